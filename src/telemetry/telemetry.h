// All that is told of ended requests, and what is kept of them for it.
#pragma once

#include <memory>
#include <vector>

#include "src/telemetry/access_log.h"
#include "src/telemetry/request_metrics.h"
#include "src/telemetry/request_record.h"
#include "src/telemetry/tracing.h"

namespace metaprotocol {

struct Telemetry {
  std::vector<AccessLog> logs;
  std::shared_ptr<const Tracing> tracing;         // null: no spans
  std::shared_ptr<const RequestMetrics> metrics;  // null: none
  RecordedKeys keys;                              // of all three

  bool any() const { return !logs.empty() || tracing != nullptr || metrics != nullptr; }
};

}  // namespace metaprotocol
