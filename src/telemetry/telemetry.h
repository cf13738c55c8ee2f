// All that is told of ended requests, and what is kept of them for it.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "src/telemetry/access_log.h"
#include "src/telemetry/request_id.h"
#include "src/telemetry/request_metrics.h"
#include "src/telemetry/request_record.h"
#include "src/telemetry/tracing.h"

namespace metaprotocol {

struct Telemetry {
  std::vector<AccessLog> logs;
  std::shared_ptr<const Tracing> tracing;         // null: no spans
  std::shared_ptr<const RequestMetrics> metrics;  // null: none
  std::optional<RequestIds> request_ids;          // nothing: none are made
  RecordedKeys keys;                              // of all of them

  bool any() const {
    return !logs.empty() || tracing != nullptr || metrics != nullptr || request_ids.has_value();
  }
};

}  // namespace metaprotocol
