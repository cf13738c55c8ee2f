#include "src/config/route_loader.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "src/codec/codec.h"
#include "src/config/condition_loader.h"
#include "src/config/local_reply_loader.h"
#include "src/route/weighted_schedule.h"

namespace metaprotocol {
namespace {

// All schedules of a configuration together: two bytes each.
constexpr uint64_t kMaxScheduleEntries = uint64_t{16} << 20;

std::string At(const std::string& path, std::string_view field) {
  return path + "." + std::string(field);
}
std::string At(const std::string& path, std::string_view field, size_t index) {
  return At(path, field) + "[" + std::to_string(index) + "]";
}

Mutation LoadMutation(const std::vector<config::Mutation>& configs) {
  Mutation mutation;
  for (const config::Mutation& config : configs) {
    if (config.set) {
      mutation.push_back({MutationOp::Kind::kSet, config.set->key, config.set->value});
    } else if (config.add_if_absent) {
      mutation.push_back(
          {MutationOp::Kind::kAddIfAbsent, config.add_if_absent->key, config.add_if_absent->value});
    } else if (config.remove) {
      mutation.push_back({MutationOp::Kind::kRemove, *config.remove, ""});
    }
  }
  return mutation;
}

std::vector<Route::Mirror> LoadMirrors(const std::vector<config::Mirror>& configs) {
  std::vector<Route::Mirror> mirrors;
  for (const config::Mirror& config : configs) {
    mirrors.push_back({config.cluster, Route::ChanceOf(config.percent)});
  }
  return mirrors;
}

uint8_t CauseOf(config::RetryCause cause) {
  using Cause = config::RetryCause;
  switch (cause) {
    case Cause::CONNECT_FAILURE:
      return RetryPolicy::kConnectFailure;
    case Cause::NOT_WRITTEN:
      return RetryPolicy::kNotWritten;
    case Cause::LOST:
      return RetryPolicy::kLost;
    case Cause::TIMEOUT:
      return RetryPolicy::kTimeout;
    case Cause::ERROR:
      return RetryPolicy::kError;
    case Cause::EXCEPTION:
      return RetryPolicy::kException;
  }
  return 0;
}

std::shared_ptr<const RetryPolicy> LoadRetry(const config::Retry& config, const std::string& path,
                                             MetadataKeys& response_keys, Findings& findings) {
  auto policy = std::make_shared<RetryPolicy>();
  policy->retries = config.attempts;
  if (!config.on.empty() || !config.status_codes.empty()) policy->causes = 0;
  for (const config::RetryCause cause : config.on) policy->causes |= CauseOf(cause);
  policy->status_codes = config.status_codes;
  std::sort(policy->status_codes.begin(), policy->status_codes.end());
  for (size_t i = 0; i < config.reply_keys.size(); ++i) {
    const std::string& key = config.reply_keys[i];
    if (IsConnectionKey(key)) {
      findings.Error(At(path, "reply_keys", i), QuoteShort(key), "is no key of replies");
      continue;
    }
    response_keys.Want(key);
    policy->reply_keys.push_back(key);
  }
  if (config.per_try_timeout) {
    policy->per_try_timeout_us = static_cast<uint64_t>(config.per_try_timeout->count());
  } else if (policy->Has(RetryPolicy::kTimeout)) {
    findings.Warn(At(path, "on"), "\"TIMEOUT\"", "has no effect without per_try_timeout");
  }
  policy->backoff_us = static_cast<uint64_t>(config.backoff.count());
  policy->max_backoff_us = static_cast<uint64_t>(config.max_backoff.count());
  return policy;
}

}  // namespace

std::unique_ptr<const RouteTable> RouteLoader::Load(const config::RouteTable& table,
                                                    const std::string& path) {
  std::vector<RouteTable::Rule> rules;
  rules.reserve(table.routes.size());
  std::unordered_map<std::string, size_t> position_of_name;
  for (size_t i = 0; i < table.routes.size(); ++i) {
    const std::string route_path = At(path, "routes", i);
    RouteTable::Rule rule = LoadRoute(table.routes[i], route_path);
    if (rule.route.name.empty()) rule.route.name = table.name + "/" + std::to_string(i);
    const auto [before, is_new] = position_of_name.emplace(rule.route.name, i);
    if (!is_new) {
      findings_.Error(At(route_path, "name"), QuoteShort(rule.route.name),
                      "is the name of routes[" + std::to_string(before->second) +
                          "] already; names must be unique within a table");
    }
    rules.push_back(std::move(rule));
  }
  CheckUnreachable(table, path);

  std::vector<RouteTable::BuildError> errors;
  auto compiled = RouteTable::Build(table.name, std::move(rules), keys_, errors);
  for (const RouteTable::BuildError& error : errors) {
    ReportBadRegex(error, table.routes[error.rule].match,
                   At(At(path, "routes", error.rule), "match"), findings_);
  }
  return compiled;
}

RouteTable::Rule RouteLoader::LoadRoute(const config::Route& config, const std::string& path) {
  RouteTable::Rule rule;
  rule.conditions = LoadConditions(config.match, At(path, "match"), findings_);
  Route& route = rule.route;
  route.index = route_count_++;
  route.name = config.name;
  route.timeout_us = static_cast<uint64_t>(config.timeout.value_or(default_timeout_).count());
  route.request_mutation = LoadMutation(config.request_mutation);
  route.response_mutation = LoadMutation(config.response_mutation);
  for (size_t i = 0; i < config.hash_on.size(); ++i) {
    CheckKey(config.hash_on[i], At(path, "hash_on", i), findings_);
    route.hash_keys.emplace_back(config.hash_on[i], keys_);
  }
  route.mirrors = LoadMirrors(config.mirrors);
  if (config.priority == config::RoutePriority::HIGH) route.priority = Priority::kHigh;
  if (config.retry) {
    route.retry = LoadRetry(*config.retry, At(path, "retry"), response_keys_, findings_);
  }
  LoadAction(config, path, route);
  return rule;
}

void RouteLoader::LoadAction(const config::Route& config, const std::string& path, Route& route) {
  const int actions = (config.cluster.has_value() ? 1 : 0) +
                      (config.weighted_clusters.empty() ? 0 : 1) +
                      (config.direct_reply.has_value() ? 1 : 0);
  if (actions != 1) {
    findings_.Error(path, "",
                    std::string(actions == 0 ? "needs one of" : "only one may be given of") +
                        " cluster, weighted_clusters, direct_reply");
    return;
  }
  if (config.cluster) route.clusters.push_back({*config.cluster, 1});
  if (!config.weighted_clusters.empty()) LoadWeightedClusters(config, path, route);
  if (config.direct_reply) LoadDirectReply(config, path, route);
}

void RouteLoader::LoadWeightedClusters(const config::Route& config, const std::string& path,
                                       Route& route) {
  std::vector<uint32_t> weights;
  for (const config::WeightedCluster& cluster : config.weighted_clusters) {
    route.clusters.push_back({cluster.name, cluster.weight});
    weights.push_back(cluster.weight);
  }
  const uint64_t length = ScheduleLength(weights);
  const std::string place = At(path, "weighted_clusters");
  if (length == 0) return findings_.Error(place, "", "needs a weight above 0");
  if (weights.size() == 1) return;
  if (length > kMaxScheduleLength) {
    return findings_.Error(
        place, "",
        "the sum of the weights divided by their greatest common divisor must be at most " +
            std::to_string(kMaxScheduleLength) + ", is " + std::to_string(length));
  }
  schedule_entries_ += length;
  if (schedule_entries_ > kMaxScheduleEntries) {
    return findings_.Error(place, "",
                           "weights of all routes, divided by their greatest common divisors, must "
                           "add up to at most " +
                               std::to_string(kMaxScheduleEntries) + "; use rounder weights");
  }
  std::vector<uint16_t>& schedule = schedules_[weights];
  if (schedule.empty()) schedule = WeightedSchedule(weights);
  route.schedule = schedule;
}

void RouteLoader::LoadDirectReply(const config::Route& config, const std::string& path,
                                  Route& route) {
  route.is_direct_reply = true;
  route.direct_reply_text = config.direct_reply->text;
  route.direct_reply =
      LoadLocalReply(config.direct_reply->kind, At(path, "direct_reply.kind"), findings_);
  const std::array<std::pair<std::string_view, bool>, 7> ignored = {
      {{"timeout", config.timeout.has_value()},
       {"request_mutation", !config.request_mutation.empty()},
       {"response_mutation", !config.response_mutation.empty()},
       {"hash_on", !config.hash_on.empty()},
       {"mirrors", !config.mirrors.empty()},
       {"retry", config.retry.has_value()},
       {"priority", config.priority != config::RoutePriority::DEFAULT}}};
  for (const auto& [field, given] : ignored) {
    if (given) findings_.Warn(At(path, field), "", "has no effect beside direct_reply");
  }
}

void RouteLoader::CheckUnreachable(const config::RouteTable& table, const std::string& path) {
  const auto catch_all = std::find_if(table.routes.begin(), table.routes.end(),
                                      [](const auto& route) { return route.match.empty(); });
  if (catch_all == table.routes.end() || catch_all + 1 == table.routes.end()) return;
  const auto position = static_cast<size_t>(catch_all - table.routes.begin());
  findings_.Warn(At(path, "routes", position), "",
                 "has no conditions and takes every request; the " +
                     std::to_string(table.routes.size() - position - 1) +
                     " after it are never reached");
}

}  // namespace metaprotocol
