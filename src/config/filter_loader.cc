#include "src/config/filter_loader.h"

#include <utility>
#include <vector>

#include "src/config/condition_loader.h"

namespace metaprotocol {
namespace {

std::shared_ptr<TokenBucket> LoadBucket(const config::TokenBucket& config) {
  TokenBucketSettings settings;
  settings.max_tokens = config.max_tokens;
  settings.tokens_per_fill = config.tokens_per_fill.value_or(config.max_tokens);
  settings.fill_interval_us = static_cast<uint64_t>(config.fill_interval.count());
  return std::make_shared<TokenBucket>(settings);
}

}  // namespace

std::unique_ptr<LocalRateLimit> LoadLocalRateLimit(const config::LocalRateLimit& config,
                                                   const std::string& path, MetadataKeys& keys,
                                                   Findings& findings) {
  if (!config.token_bucket && config.rules.empty()) {
    findings.Error(path, "", "needs token_bucket, rules, or both");
  }
  std::vector<RouteTable::Rule> rules;
  std::vector<std::shared_ptr<TokenBucket>> buckets;
  const auto place = [&](size_t i) { return path + ".rules[" + std::to_string(i) + "].match"; };
  for (size_t i = 0; i < config.rules.size(); ++i) {
    const config::LocalRateLimitRule& from = config.rules[i];
    RouteTable::Rule rule;
    rule.conditions = LoadConditions(from.match, place(i), findings);
    rule.route.index = static_cast<uint32_t>(i);
    rules.push_back(std::move(rule));
    buckets.push_back(LoadBucket(from.token_bucket));
  }
  std::vector<RouteTable::BuildError> errors;
  auto compiled = RouteTable::Build("", std::move(rules), keys, errors);
  for (const RouteTable::BuildError& error : errors) {
    ReportBadRegex(error, config.rules[error.rule].match, place(error.rule), findings);
  }
  if (compiled == nullptr) return nullptr;
  return std::make_unique<LocalRateLimit>(
      std::move(compiled), std::move(buckets),
      config.token_bucket ? LoadBucket(*config.token_bucket) : nullptr);
}

std::unique_ptr<GlobalRateLimit> LoadGlobalRateLimit(const config::GlobalRateLimit& config,
                                                     const std::string& path, MetadataKeys& keys,
                                                     Findings& findings) {
  auto limit = std::make_unique<GlobalRateLimit>();
  limit->domain = config.domain;
  limit->cluster = config.cluster;
  limit->timeout_us = static_cast<uint64_t>(config.timeout.count());
  limit->deny_on_fail = config.deny_on_fail;
  for (size_t i = 0; i < config.descriptors.size(); ++i) {
    const config::RateLimitDescriptor& from = config.descriptors[i];
    CheckKey(from.key, path + ".descriptors[" + std::to_string(i) + "].key", findings);
    limit->descriptors.push_back({KeyRef(from.key, keys), from.descriptor_key});
  }
  std::vector<RouteTable::Rule> rules(1);
  rules[0].conditions = LoadConditions(config.match, path + ".match", findings);
  std::vector<RouteTable::BuildError> errors;
  limit->match = RouteTable::Build("", std::move(rules), keys, errors);
  for (const RouteTable::BuildError& error : errors) {
    ReportBadRegex(error, config.match, path + ".match", findings);
  }
  if (limit->match == nullptr) return nullptr;
  return limit;
}

}  // namespace metaprotocol
