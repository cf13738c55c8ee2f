// From the conditions of a configuration to those that rules are compiled from.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "generated/config_schema.h"
#include "src/config/findings.h"
#include "src/route/route_table.h"

namespace metaprotocol {

// `path` is the place of the list.
std::vector<Condition> LoadConditions(const std::vector<config::Condition>& configs,
                                      const std::string& path, Findings& findings);

// Keys of the connection are a closed set.
void CheckKey(const std::string& key, const std::string& path, Findings& findings);

// A regular expression of those conditions that could not be compiled.
void ReportBadRegex(const RouteTable::BuildError& error,
                    const std::vector<config::Condition>& configs, const std::string& path,
                    Findings& findings);

// The table of one rule with those conditions; null, and told, if that cannot be.
std::unique_ptr<const RouteTable> LoadMatch(const std::vector<config::Condition>& configs,
                                            const std::string& path, MetadataKeys& keys,
                                            Findings& findings);

}  // namespace metaprotocol
