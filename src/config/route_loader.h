// From the routes of a configuration to compiled route tables.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "generated/config_schema.h"
#include "src/config/findings.h"
#include "src/route/route_table.h"

namespace metaprotocol {

class RouteLoader {
 public:
  // `keys` comes to hold what the routes look at, `response_keys` what they look at in replies.
  RouteLoader(MetadataKeys& keys, MetadataKeys& response_keys, Findings& findings,
              std::chrono::microseconds default_timeout)
      : keys_(keys),
        response_keys_(response_keys),
        findings_(findings),
        default_timeout_(default_timeout) {}

  // Checks and compiles one table; `path` is its place. Null if a regular expression in it is bad;
  // other errors are in the findings. Routes are numbered on from those of the tables before.
  std::unique_ptr<const RouteTable> Load(const config::RouteTable& table, const std::string& path);

  uint32_t route_count() const { return route_count_; }

 private:
  RouteTable::Rule LoadRoute(const config::Route& route, const std::string& path);
  void LoadAction(const config::Route& config, const std::string& path, Route& route);
  void LoadWeightedClusters(const config::Route& config, const std::string& path, Route& route);
  void LoadDirectReply(const config::Route& config, const std::string& path, Route& route);
  void CheckUnreachable(const config::RouteTable& table, const std::string& path);

  MetadataKeys& keys_;
  MetadataKeys& response_keys_;
  Findings& findings_;
  std::chrono::microseconds default_timeout_;
  uint32_t route_count_ = 0;
  uint64_t schedule_entries_ = 0;
  // By weights: many routes split their requests alike.
  std::map<std::vector<uint32_t>, std::vector<uint16_t>> schedules_;
};

}  // namespace metaprotocol
