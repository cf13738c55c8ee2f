// From the limits of a route table's configuration to what sessions ask.
#pragma once

#include <memory>
#include <string>

#include "generated/config_schema.h"
#include "src/config/findings.h"
#include "src/limit/global_rate_limit.h"
#include "src/limit/local_rate_limit.h"

namespace metaprotocol {

// Both: null if a regular expression in it is bad; errors are in the findings. `path` is its place.
std::unique_ptr<LocalRateLimit> LoadLocalRateLimit(const config::LocalRateLimit& config,
                                                   const std::string& path, MetadataKeys& keys,
                                                   Findings& findings);

std::unique_ptr<GlobalRateLimit> LoadGlobalRateLimit(const config::GlobalRateLimit& config,
                                                     const std::string& path, MetadataKeys& keys,
                                                     Findings& findings);

}  // namespace metaprotocol
