// Reads access logs, and compiles their formats.
#pragma once

#include <vector>

#include "generated/config_schema.h"
#include "src/config/findings.h"
#include "src/telemetry/access_log.h"

namespace metaprotocol {

AccessLogs LoadAccessLogs(const std::vector<config::AccessLog>& configs, MetadataKeys& keys,
                          Findings& findings);

}  // namespace metaprotocol
