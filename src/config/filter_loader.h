// From the filters of a route table's configuration to those that requests pass.
#pragma once

#include <memory>
#include <string>

#include "generated/config_schema.h"
#include "src/config/findings.h"
#include "src/filter/authorization/authorization.h"
#include "src/filter/concurrency_limit/concurrency_filter.h"
#include "src/filter/external_authorization/external_authorization.h"
#include "src/filter/fault/fault.h"
#include "src/filter/global_rate_limit/global_rate_limit.h"
#include "src/filter/library/library_filter.h"
#include "src/filter/local_rate_limit/local_rate_limit.h"

namespace metaprotocol {

// `keys` comes to hold what the filters look at in requests.
//
// All: null if a regular expression in it is bad; errors are in the findings. `path` is its place.
std::unique_ptr<LocalRateLimit> LoadLocalRateLimit(const config::LocalRateLimit& config,
                                                   const std::string& path, MetadataKeys& keys,
                                                   Findings& findings);

std::unique_ptr<GlobalRateLimit> LoadGlobalRateLimit(const config::GlobalRateLimit& config,
                                                     const std::string& path, MetadataKeys& keys,
                                                     Findings& findings);

std::unique_ptr<ConcurrencyFilter> LoadConcurrencyLimit(const config::ConcurrencyLimit& config,
                                                        const std::string& path, MetadataKeys& keys,
                                                        Findings& findings);

std::unique_ptr<Authorization> LoadAuthorization(const config::Authorization& config,
                                                 const std::string& path, MetadataKeys& keys,
                                                 Findings& findings);

// `protocol`: the codec's name.
std::unique_ptr<ExternalAuthorization> LoadExternalAuthorization(
    const config::ExternalAuthorization& config, const std::string& protocol,
    const std::string& path, MetadataKeys& keys, Findings& findings);

std::unique_ptr<Fault> LoadFault(const config::Fault& config, const std::string& path,
                                 MetadataKeys& keys, Findings& findings);

std::unique_ptr<LibraryFilter> LoadLibraryFilter(const config::LibraryFilter& config,
                                                 const std::string& path,
                                                 const FilterSurroundings& surroundings,
                                                 Findings& findings);

// `config` is a config::Filter or a config::RouteFilter, of which one of the kinds is there.
template <typename Config>
std::unique_ptr<const Filter> LoadFilter(const Config& config, const std::string& path,
                                         const FilterSurroundings& surroundings,
                                         Findings& findings) {
  MetadataKeys& keys = surroundings.request_keys;
  if (config.local_rate_limit) {
    return LoadLocalRateLimit(*config.local_rate_limit, path + ".local_rate_limit", keys, findings);
  }
  if (config.global_rate_limit) {
    return LoadGlobalRateLimit(*config.global_rate_limit, path + ".global_rate_limit", keys,
                               findings);
  }
  if (config.fault) return LoadFault(*config.fault, path + ".fault", keys, findings);
  if (config.authorization) {
    return LoadAuthorization(*config.authorization, path + ".authorization", keys, findings);
  }
  if (config.external_authorization) {
    return LoadExternalAuthorization(*config.external_authorization, surroundings.protocol,
                                     path + ".external_authorization", keys, findings);
  }
  if (config.concurrency_limit) {
    return LoadConcurrencyLimit(*config.concurrency_limit, path + ".concurrency_limit", keys,
                                findings);
  }
  if (config.library) {
    return LoadLibraryFilter(*config.library, path + ".library", surroundings, findings);
  }
  return nullptr;  // the reader has said so
}

}  // namespace metaprotocol
