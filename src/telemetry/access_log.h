// An access log of a configuration: which requests it wants, and how those look.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "src/route/route_table.h"
#include "src/telemetry/log_format.h"
#include "src/telemetry/otlp.h"
#include "src/telemetry/request_record.h"

namespace metaprotocol {

struct AccessLog {
  std::string path;                     // of a file; or
  std::optional<OtlpTarget> collector;  // who gets records
  LogFormat format;
  std::shared_ptr<const RouteTable> match;  // null: every request
  uint64_t chance = Route::kAlways;         // of kAlways, that a request is logged
  bool failures_only = false;
  uint64_t min_duration_us = 0;
  uint64_t max_duration_us = ~uint64_t{0};  // below it
  // Of EndedRequest::http_code(), each from its first to before its second; none: all.
  std::vector<std::pair<int64_t, int64_t>> response_codes;

  // By what is known when the request comes, but for chance. One of which it cannot be told is
  // wanted.
  bool MayWant(const MatchInput& input) const;
  bool Wants(const EndedRequest& request) const {
    if (failures_only && !request.failed()) return false;
    const uint64_t duration_us = request.ended_us - request.started_us;
    if (duration_us < min_duration_us || duration_us >= max_duration_us) return false;
    return response_codes.empty() || WantsCode(request);
  }

 private:
  bool WantsCode(const EndedRequest& request) const;
};

}  // namespace metaprotocol
