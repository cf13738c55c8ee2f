// Configurations for simulated worlds, built without JSON so that a test shows only what it is
// about.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/config/snapshot.h"
#include "src/filter/global_rate_limit/global_rate_limit.h"
#include "src/filter/local_rate_limit/local_rate_limit.h"
#include "src/route/route_table.h"
#include "src/route/weighted_schedule.h"
#include "tests/cpp/support/fake_codec.h"

namespace metaprotocol::test {

inline Condition Exact(std::string key, std::string value) {
  Condition condition;
  condition.key = std::move(key);
  condition.values = {std::move(value)};
  return condition;
}

struct SimRoute {
  std::vector<Condition> match = {};
  std::vector<Route::WeightedCluster> clusters = {{"a", 1}};
  std::optional<LocalReply> direct_reply = {};
  uint64_t timeout_us = 0;
  Mutation request_mutation = {};
  Mutation response_mutation = {};
  std::vector<std::string> hash_keys = {};
  std::vector<Route::Mirror> mirrors = {};
  std::optional<RetryPolicy> retry = {};
  Priority priority = Priority::kDefault;
};

struct SimLimitRule {
  std::vector<Condition> match;
  TokenBucketSettings bucket;
  std::vector<std::string> per_value_of = {};
  uint32_t max_buckets = 1000;
};

// The entries of each descriptor: keys of the metadata, or "=text", and what the service calls
// them.
using SimDescriptors = std::vector<std::vector<std::pair<std::string, std::string>>>;

struct SimGlobalLimit {
  std::vector<Condition> match = {};
  SimDescriptors descriptors = {{{"name", "who"}}};
  std::vector<std::pair<std::vector<Condition>, SimDescriptors>> further = {};
  uint64_t timeout_us = 20 * 1000;
  bool deny_on_fail = false;
  bool tells_clients = false;
};

struct SimConfig {
  std::string name = "sim";
  std::string listener_name = "";
  std::shared_ptr<const Codec> codec = std::make_shared<FakeCodec>(FakeMultiplexed());
  std::string codec_key = "";  // the codec's name
  UpstreamMode mode = UpstreamMode::kShared;
  SessionLimits limits = {};
  uint64_t default_timeout_us = 0;
  std::vector<SimRoute> routes = {SimRoute{}};
  // The local rate limit, unless neither is there.
  std::optional<TokenBucketSettings> bucket = {};
  std::vector<SimLimitRule> limit_rules = {};
  bool limit_tells_clients = false;
  std::optional<SimGlobalLimit> global_limit = {};
  // What filters look at in responses.
  std::vector<std::string> response_keys = {};
  // Path and format, a text; all requests.
  std::vector<std::pair<std::string, std::string>> access_logs = {};
  std::function<void(AccessLog&)> change_log = {};
  bool traces = false;  // to the cluster "spans"
  std::function<void(Tracing&)> change_tracing = {};
  bool request_ids = false;
  bool metrics = false;  // Istio's
  // Behind the limits, in order.
  std::vector<std::pair<std::string, std::shared_ptr<const Filter>>> filters = {};
  // Likewise, of filters that look at metadata; behind those.
  using MakeFilter = std::function<std::shared_ptr<const Filter>(MetadataKeys&)>;
  std::vector<std::pair<std::string, MakeFilter>> make_filters = {};
  const FilterMetrics* filter_metrics = nullptr;  // of those
};

inline std::unique_ptr<LocalRateLimit> BuildLocalRateLimit(SimConfig& config, MetadataKeys& keys) {
  if (!config.bucket && config.limit_rules.empty()) return nullptr;
  std::vector<RouteTable::Rule> rules;
  std::vector<LocalRateLimit::Source> sources;
  for (SimLimitRule& from : config.limit_rules) {
    RouteTable::Rule rule;
    rule.conditions = std::move(from.match);
    rule.route.index = static_cast<uint32_t>(rules.size());
    rules.push_back(std::move(rule));
    LocalRateLimit::Source& source = sources.emplace_back();
    if (from.per_value_of.empty()) {
      source.bucket = std::make_shared<TokenBucket>(from.bucket);
      continue;
    }
    source.buckets = std::make_shared<TokenBucketTable>(
        TokenBucketTable::Settings{from.bucket, from.max_buckets, from.per_value_of});
    for (const std::string& key : from.per_value_of) source.keys.emplace_back(key, keys);
  }
  std::vector<RouteTable::BuildError> errors;
  return std::make_unique<LocalRateLimit>(
      RouteTable::Build("limit", std::move(rules), keys, errors), std::move(sources),
      config.bucket ? std::make_shared<TokenBucket>(*config.bucket) : nullptr,
      config.limit_tells_clients);
}

inline std::unique_ptr<const GlobalRateLimit> BuildGlobalRateLimit(SimConfig& config,
                                                                   MetadataKeys& keys) {
  if (!config.global_limit) return nullptr;
  const auto source = [&](std::vector<Condition> match, const SimDescriptors& descriptors) {
    std::vector<RouteTable::Rule> rules(1);
    rules[0].conditions = std::move(match);
    std::vector<RouteTable::BuildError> errors;
    GlobalRateLimit::Source made;
    made.match = RouteTable::Build("limit", std::move(rules), keys, errors);
    for (const auto& entries : descriptors) {
      GlobalRateLimit::Descriptor& descriptor = made.descriptors.emplace_back();
      for (const auto& [key, name] : entries) {
        if (key.starts_with('=')) {
          descriptor.push_back({{}, name, key.substr(1)});
        } else {
          descriptor.push_back({KeyRef(key, keys), name});
        }
      }
    }
    return made;
  };
  auto limit = std::make_unique<GlobalRateLimit>();
  limit->all = source(std::move(config.global_limit->match), config.global_limit->descriptors);
  for (auto& [match, descriptors] : config.global_limit->further) {
    limit->further.push_back(source(std::move(match), descriptors));
  }
  limit->domain = "sim";
  limit->cluster = "limiter";
  limit->timeout_us = config.global_limit->timeout_us;
  limit->deny_on_fail = config.global_limit->deny_on_fail;
  limit->tells_clients = config.global_limit->tells_clients;
  return limit;
}

inline std::shared_ptr<const Snapshot> BuildSnapshot(SimConfig config) {
  auto snapshot = std::make_shared<Snapshot>();
  snapshot->name = config.name;
  snapshot->listener_name = config.listener_name;
  snapshot->codec = config.codec;
  snapshot->codec_key =
      config.codec_key.empty() ? std::string(config.codec->traits().name) : config.codec_key;
  snapshot->upstream_mode = config.mode;
  snapshot->limits = config.limits;
  snapshot->default_timeout_us = config.default_timeout_us;
  snapshot->request_keys = MetadataKeys(config.codec->traits().metadata_keys);
  MetadataKeys& keys = snapshot->request_keys;
  std::vector<RouteTable::Rule> rules;
  for (SimRoute& from : config.routes) {
    RouteTable::Rule rule;
    rule.conditions = std::move(from.match);
    Route& route = rule.route;
    route.index = static_cast<uint32_t>(rules.size());
    route.name = "main/" + std::to_string(rules.size());
    if (from.direct_reply) {
      route.is_direct_reply = true;
      route.direct_reply = *from.direct_reply;
    } else {
      route.clusters = std::move(from.clusters);
    }
    if (route.clusters.size() > 1) {
      std::vector<uint32_t> weights;
      for (const auto& cluster : route.clusters) weights.push_back(cluster.weight);
      route.schedule = WeightedSchedule(weights);
    }
    route.timeout_us = from.timeout_us;
    route.priority = from.priority;
    route.request_mutation = std::move(from.request_mutation);
    route.response_mutation = std::move(from.response_mutation);
    for (const std::string& key : from.hash_keys) route.hash_keys.emplace_back(key, keys);
    route.mirrors = std::move(from.mirrors);
    if (from.retry) route.retry = std::make_shared<RetryPolicy>(*std::move(from.retry));
    rules.push_back(std::move(rule));
  }
  std::vector<RouteTable::BuildError> errors;
  snapshot->route_count = static_cast<uint32_t>(rules.size());
  snapshot->tables.emplace_back();
  snapshot->tables[0].routes = RouteTable::Build("main", std::move(rules), keys, errors);
  Snapshot::Table& table = snapshot->tables[0];
  if (auto limit = BuildLocalRateLimit(config, keys)) {
    table.filters.push_back({"local_rate_limit", std::move(limit)});
  }
  if (auto limit = BuildGlobalRateLimit(config, keys)) {
    table.filters.push_back({"global_rate_limit", std::move(limit)});
  }
  for (const auto& [path, format] : config.access_logs) {
    AccessLog log;
    log.path = path;
    std::string error;
    log.format =
        LogFormat::Text(LogTemplate::Compile(format, snapshot->telemetry.keys, keys, error));
    if (config.change_log) config.change_log(log);
    snapshot->telemetry.logs.push_back(std::move(log));
  }
  if (config.traces) {
    auto tracing = std::make_shared<Tracing>(snapshot->telemetry.keys, keys);
    tracing->target = {OtlpSignal::kSpans, "spans", "sim"};
    if (config.change_tracing) config.change_tracing(*tracing);
    snapshot->telemetry.tracing = std::move(tracing);
  }
  if (config.metrics) {
    snapshot->telemetry.metrics = std::make_shared<RequestMetrics>(
        RequestMetrics::Reporter::kSource, 100, 1000, snapshot->telemetry.keys, keys);
  }
  if (config.request_ids) snapshot->telemetry.request_ids.emplace(snapshot->telemetry.keys, keys);
  for (auto& [name, filter] : config.filters) table.filters.push_back({name, std::move(filter)});
  for (const auto& [name, make] : config.make_filters) table.filters.push_back({name, make(keys)});
  if (config.filter_metrics != nullptr) snapshot->filter_metrics = *config.filter_metrics;
  snapshot->response_keys = MetadataKeys(config.codec->traits().metadata_keys);
  for (const std::string& key : config.response_keys) snapshot->response_keys.Want(key);
  snapshot->Compile();
  return snapshot;
}

}  // namespace metaprotocol::test
