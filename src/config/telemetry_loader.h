// Reads what is told of ended requests: access logs, whose formats are compiled,
// tracing, metrics, and request ids.
#pragma once

#include <optional>
#include <vector>

#include "generated/config_schema.h"
#include "src/config/findings.h"
#include "src/telemetry/telemetry.h"

namespace metaprotocol {

Telemetry LoadTelemetry(const std::vector<config::AccessLog>& logs,
                        const std::optional<config::Tracing>& tracing,
                        const std::optional<config::RequestMetrics>& metrics, bool request_ids,
                        MetadataKeys& keys, Findings& findings);

}  // namespace metaprotocol
