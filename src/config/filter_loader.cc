#include "src/config/filter_loader.h"

#include <utility>
#include <vector>

#include "src/config/condition_loader.h"
#include "src/config/local_reply_loader.h"

namespace metaprotocol {
namespace {

TokenBucketSettings LoadBucketSettings(const config::TokenBucket& config) {
  TokenBucketSettings settings;
  settings.max_tokens = config.max_tokens;
  settings.tokens_per_fill = config.tokens_per_fill.value_or(config.max_tokens);
  settings.fill_interval_us = static_cast<uint64_t>(config.fill_interval.count());
  return settings;
}

std::string RulePlace(const std::string& path, size_t rule) {
  return path + ".rules[" + std::to_string(rule) + "]";
}

// `Route::index` is the rule's position. Null if a regular expression is bad.
template <typename Rule>
std::unique_ptr<const RouteTable> BuildLimitRules(const std::vector<Rule>& from,
                                                  const std::string& path, MetadataKeys& keys,
                                                  Findings& findings) {
  std::vector<RouteTable::Rule> rules;
  for (size_t i = 0; i < from.size(); ++i) {
    RouteTable::Rule& rule = rules.emplace_back();
    rule.conditions = LoadConditions(from[i].match, RulePlace(path, i) + ".match", findings);
    rule.route.index = static_cast<uint32_t>(i);
  }
  std::vector<RouteTable::BuildError> errors;
  auto compiled = RouteTable::Build("", std::move(rules), keys, errors);
  for (const RouteTable::BuildError& error : errors) {
    ReportBadRegex(error, from[error.rule].match, RulePlace(path, error.rule) + ".match", findings);
  }
  return compiled;
}

std::vector<KeyRef> LoadKeys(const std::vector<std::string>& names, const std::string& path,
                             MetadataKeys& keys, Findings& findings) {
  std::vector<KeyRef> found;
  for (size_t i = 0; i < names.size(); ++i) {
    CheckKey(names[i], path + "[" + std::to_string(i) + "]", findings);
    found.emplace_back(names[i], keys);
  }
  return found;
}

std::shared_ptr<TokenBucket> LoadBucket(const config::TokenBucket& config) {
  return std::make_shared<TokenBucket>(LoadBucketSettings(config));
}

LocalRateLimit::Source LoadSource(const config::LocalRateLimitRule& config, const std::string& path,
                                  MetadataKeys& keys, Findings& findings) {
  LocalRateLimit::Source source;
  if (config.per_value_of.empty()) {
    source.bucket = LoadBucket(config.token_bucket);
    return source;
  }
  source.keys = LoadKeys(config.per_value_of, path + ".per_value_of", keys, findings);
  source.buckets = std::make_shared<TokenBucketTable>(TokenBucketTable::Settings{
      LoadBucketSettings(config.token_bucket), config.max_buckets, config.per_value_of});
  return source;
}

// Where a rule of an authorization comes from, for what is wrong with it.
struct RuleOrigin {
  const std::vector<config::Condition>* match;
  std::string path;
};

struct RulesToBuild {
  std::vector<RouteTable::Rule> rules;
  std::vector<RuleOrigin> origins;
};

// What can be told of requests that nobody here can read. A rule that says what is denied may be
// about any of them, and one that says what is allowed about none.
std::vector<RouteTable::Rule> RulesOfUnread(const RulesToBuild& from, bool allow,
                                            const MetadataKeys& keys) {
  std::vector<RouteTable::Rule> rules;
  for (const RouteTable::Rule& rule : from.rules) {
    RouteTable::Rule& known = rules.emplace_back();
    for (const Condition& condition : rule.conditions) {
      if (IsConnectionKey(condition.key) || keys.KnownOfUnread(condition.key)) {
        known.conditions.push_back(condition);
      }
    }
    if (allow && known.conditions.size() < rule.conditions.size()) rules.pop_back();
  }
  return rules;
}

// `Rules` has a table, and one of what can be told of requests that cannot be read.
template <typename Rules>
bool BuildRules(RulesToBuild from, bool allow, Rules& rules, MetadataKeys& keys,
                Findings& findings) {
  std::vector<RouteTable::BuildError> errors;
  rules.unread = RouteTable::Build("", RulesOfUnread(from, allow, keys), keys, errors);
  errors.clear();  // all are found once more below
  rules.table = RouteTable::Build("", std::move(from.rules), keys, errors);
  for (const RouteTable::BuildError& error : errors) {
    const RuleOrigin& origin = from.origins[error.rule];
    ReportBadRegex(error, *origin.match, origin.path, findings);
  }
  return rules.table != nullptr;
}

RouteTable::Rule LoadRule(const config::AuthorizationRule& config, const std::string& path,
                          RulesToBuild& to, Findings& findings) {
  RouteTable::Rule rule;
  rule.conditions = LoadConditions(config.match, path, findings);
  rule.route.index = static_cast<uint32_t>(to.rules.size());
  to.origins.push_back({&config.match, path});
  return rule;
}

}  // namespace

std::unique_ptr<LocalRateLimit> LoadLocalRateLimit(const config::LocalRateLimit& config,
                                                   const std::string& path, MetadataKeys& keys,
                                                   Findings& findings) {
  if (!config.token_bucket && config.rules.empty()) {
    findings.Error(path, "", "needs token_bucket, rules, or both");
  }
  std::vector<LocalRateLimit::Source> sources;
  for (size_t i = 0; i < config.rules.size(); ++i) {
    sources.push_back(LoadSource(config.rules[i], RulePlace(path, i), keys, findings));
  }
  auto compiled = BuildLimitRules(config.rules, path, keys, findings);
  if (compiled == nullptr) return nullptr;
  return std::make_unique<LocalRateLimit>(
      std::move(compiled), std::move(sources),
      config.token_bucket ? LoadBucket(*config.token_bucket) : nullptr,
      config.enable_x_ratelimit_headers);
}

namespace {

std::shared_ptr<ConcurrencyLimit> LoadConcurrency(
    uint32_t max_requests, const std::optional<config::AdaptiveConcurrency>& adaptive,
    const std::string& path, Findings& findings) {
  ConcurrencyLimit::Settings settings;
  settings.max_requests = max_requests;
  if (adaptive) {
    GradientSettings& gradient = settings.gradient.emplace();
    gradient.min_requests = adaptive->min_requests;
    gradient.interval_us = static_cast<uint64_t>(adaptive->interval.count());
    gradient.min_time_interval_us = static_cast<uint64_t>(adaptive->min_time_interval.count());
    gradient.min_time_requests = adaptive->min_time_requests;
    gradient.buffer_percent = adaptive->buffer_percent;
    gradient.percentile = adaptive->percentile;
    if (gradient.min_requests > max_requests) {
      findings.Error(path + ".adaptive.min_requests", std::to_string(gradient.min_requests),
                     "must be at most max_requests, which is " + std::to_string(max_requests));
    }
  }
  return std::make_shared<ConcurrencyLimit>(settings);
}

}  // namespace

std::unique_ptr<ConcurrencyFilter> LoadConcurrencyLimit(const config::ConcurrencyLimit& config,
                                                        const std::string& path, MetadataKeys& keys,
                                                        Findings& findings) {
  if (!config.max_requests && config.rules.empty()) {
    findings.Error(path, "", "needs max_requests, rules, or both");
  }
  if (config.adaptive && !config.max_requests) {
    findings.Error(path + ".adaptive", "", "needs max_requests");
  }
  ConcurrencyFilter::Source rest;
  if (config.max_requests) {
    rest.limit = LoadConcurrency(*config.max_requests, config.adaptive, path, findings);
  }
  std::vector<ConcurrencyFilter::Source> sources;
  for (size_t i = 0; i < config.rules.size(); ++i) {
    const config::ConcurrencyLimitRule& from = config.rules[i];
    const std::string place = RulePlace(path, i);
    ConcurrencyFilter::Source& source = sources.emplace_back();
    if (from.per_value_of.empty()) {
      source.limit = LoadConcurrency(from.max_requests, from.adaptive, place, findings);
      continue;
    }
    if (from.adaptive) findings.Error(place + ".adaptive", "", "cannot be with per_value_of");
    source.table = std::make_shared<ConcurrencyTable>(from.max_requests);
    source.keys = LoadKeys(from.per_value_of, place + ".per_value_of", keys, findings);
  }
  auto compiled = BuildLimitRules(config.rules, path, keys, findings);
  if (compiled == nullptr) return nullptr;
  return std::make_unique<ConcurrencyFilter>(std::move(compiled), std::move(sources),
                                             std::move(rest));
}

namespace {

// `Config` is a RateLimitDescriptor or one of its further entries.
template <typename Config>
GlobalRateLimit::Entry LoadEntry(const Config& config, const std::string& path, MetadataKeys& keys,
                                 Findings& findings) {
  if (!config.key) return {{}, config.descriptor_key, config.value.value_or("")};
  CheckKey(*config.key, path + ".key", findings);
  return {KeyRef(*config.key, keys), config.descriptor_key};
}

// The same for the limit itself and for its rules. Returns how many entries there are.
template <typename Config>
size_t LoadDescriptors(const Config& config, const std::string& path, GlobalRateLimit::Source& to,
                       MetadataKeys& keys, Findings& findings) {
  size_t entries = 0;
  for (size_t i = 0; i < config.descriptors.size(); ++i) {
    const config::RateLimitDescriptor& from = config.descriptors[i];
    const std::string place = path + ".descriptors[" + std::to_string(i) + "]";
    GlobalRateLimit::Descriptor& descriptor = to.descriptors.emplace_back();
    descriptor.push_back(LoadEntry(from, place, keys, findings));
    for (size_t j = 0; j < from.also.size(); ++j) {
      const std::string more = place + ".also[" + std::to_string(j) + "]";
      descriptor.push_back(LoadEntry(from.also[j], more, keys, findings));
    }
    entries += descriptor.size();
  }
  to.match = LoadMatch(config.match, path + ".match", keys, findings);
  return entries;
}

}  // namespace

std::unique_ptr<GlobalRateLimit> LoadGlobalRateLimit(const config::GlobalRateLimit& config,
                                                     const std::string& path, MetadataKeys& keys,
                                                     Findings& findings) {
  auto limit = std::make_unique<GlobalRateLimit>();
  limit->domain = config.domain;
  limit->cluster = config.cluster;
  limit->timeout_us = static_cast<uint64_t>(config.timeout.count());
  limit->deny_on_fail = config.deny_on_fail;
  limit->tells_clients = config.enable_x_ratelimit_headers;
  if (config.descriptors.empty() && config.rules.empty()) {
    findings.Error(path, "", "needs descriptors, rules, or both");
  }
  size_t entries = LoadDescriptors(config, path, limit->all, keys, findings);
  bool good = limit->all.match != nullptr;
  for (size_t i = 0; i < config.rules.size(); ++i) {
    GlobalRateLimit::Source& source = limit->further.emplace_back();
    entries += LoadDescriptors(config.rules[i], RulePlace(path, i), source, keys, findings);
    good = good && source.match != nullptr;
  }
  if (entries > GlobalRateLimit::kMostEntries) {
    findings.Error(path, std::to_string(entries),
                   "entries of descriptors are too many, at most " +
                       std::to_string(GlobalRateLimit::kMostEntries) + " may be");
  }
  if (!good) return nullptr;
  return limit;
}

std::unique_ptr<ExternalAuthorization> LoadExternalAuthorization(
    const config::ExternalAuthorization& config, const std::string& protocol,
    const std::string& path, MetadataKeys& keys, Findings& findings) {
  auto check = std::make_unique<ExternalAuthorization>(protocol, keys);
  check->cluster = config.cluster;
  check->timeout_us = static_cast<uint64_t>(config.timeout.count());
  check->failure_mode_allow = config.failure_mode_allow;
  check->max_body_bytes = config.max_body_bytes;
  const auto place = [&](std::string_view list, size_t i) {
    return path + "." + std::string(list) + "[" + std::to_string(i) + "]";
  };
  for (size_t i = 0; i < config.metadata.size(); ++i) {
    CheckKey(config.metadata[i], place("metadata", i), findings);
    check->metadata.emplace_back(config.metadata[i], keys);
  }
  if (config.metadata.empty()) {
    for (uint32_t slot = 0; slot < keys.own(); ++slot) {
      check->metadata.emplace_back(std::string(keys.name(slot)), keys);
    }
  }
  for (const config::KeyValue& told : config.context) {
    check->context.emplace_back(told.key, told.value);
  }
  check->match = LoadMatch(config.match, path + ".match", keys, findings);
  for (size_t i = 0; i < config.proxy_metadata.size(); ++i) {
    const std::string& key = config.proxy_metadata[i];
    if (IsConnectionKey(key)) {
      findings.Error(place("proxy_metadata", i), QuoteShort(key), "is of the connection");
    } else if (keys.IsOwn(key)) {
      findings.Error(place("proxy_metadata", i), QuoteShort(key),
                     "is a field of the protocol, which clients have to fill");
    } else {
      check->AddProxyKey(key, keys);
    }
  }
  if (check->match == nullptr) return nullptr;
  if (config.any_of.empty()) return check;
  RulesToBuild rules;
  for (size_t i = 0; i < config.any_of.size(); ++i) {
    rules.rules.push_back(
        LoadRule(config.any_of[i], place("any_of", i) + ".match", rules, findings));
  }
  if (!BuildRules(std::move(rules), false, check->any_of.emplace(), keys, findings)) return nullptr;
  return check;
}

std::unique_ptr<Fault> LoadFault(const config::Fault& config, const std::string& path,
                                 MetadataKeys& keys, Findings& findings) {
  auto fault = std::make_unique<Fault>();
  if (config.delay) {
    fault->delay = {Route::ChanceOf(config.delay->percent),
                    static_cast<uint64_t>(config.delay->duration.count())};
  }
  if (config.abort) {
    const config::FaultAbort& from = *config.abort;
    FaultAbort& abort = fault->abort.emplace();
    abort.chance = Route::ChanceOf(from.percent);
    if (from.kind) abort.reply = LoadLocalReply(*from.kind, path + ".abort.kind", findings);
    abort.text = from.text;
  }
  if (config.requested) {
    const config::RequestedFaults& from = *config.requested;
    const auto key = [&](const std::string& name, const char* field) {
      CheckKey(name, path + ".requested." + field, findings);
      return KeyRef(name, keys);
    };
    fault->requested.emplace(
        RequestedFaults{.delay = key(from.delay_key, "delay_key"),
                        .delay_percent = KeyRef(from.delay_key + "-percentage", keys),
                        .abort = key(from.abort_key, "abort_key"),
                        .abort_percent = KeyRef(from.abort_key + "-percentage", keys),
                        .max_delay_us = static_cast<uint64_t>(from.max_delay.count()),
                        .max_chance = Route::ChanceOf(from.max_percent)});
  }
  return fault;
}

std::unique_ptr<Authorization> LoadAuthorization(const config::Authorization& config,
                                                 const std::string& path, MetadataKeys& keys,
                                                 Findings& findings) {
  using Action = config::AuthorizationPolicyAction;
  auto authorization = std::make_unique<Authorization>();
  RulesToBuild allow;
  RulesToBuild deny;
  RulesToBuild audit;
  for (size_t i = 0; i < config.policies.size(); ++i) {
    const config::AuthorizationPolicy& policy = config.policies[i];
    RulesToBuild* to = &allow;
    Authorization::Rules* rules = &authorization->allow;
    switch (policy.action) {
      case Action::ALLOW:
        authorization->only_allowed = true;
        break;
      case Action::DENY:
        to = &deny;
        rules = &authorization->deny;
        break;
      case Action::AUDIT:
        to = &audit;
        rules = &authorization->audit;
        break;
    }
    for (size_t j = 0; j < policy.rules.size(); ++j) {
      const std::string place =
          path + ".policies[" + std::to_string(i) + "].rules[" + std::to_string(j) + "].match";
      to->rules.push_back(LoadRule(policy.rules[j], place, *to, findings));
      rules->texts.push_back("denied by the authorization policy " + policy.name);
    }
  }
  const bool built = BuildRules(std::move(allow), true, authorization->allow, keys, findings) &&
                     BuildRules(std::move(deny), false, authorization->deny, keys, findings) &&
                     BuildRules(std::move(audit), false, authorization->audit, keys, findings);
  return built ? std::move(authorization) : nullptr;
}

std::unique_ptr<LibraryFilter> LoadLibraryFilter(const config::LibraryFilter& config,
                                                 const std::string& path,
                                                 const FilterSurroundings& surroundings,
                                                 Findings& findings) {
  if (!config.path.starts_with('/')) {
    findings.Error(path + ".path", QuoteShort(config.path), "must be an absolute path");
    return nullptr;
  }
  LibraryFilterOrError made = LibraryFilter::Load(config.path, config.options, surroundings);
  if (made.filter == nullptr && made.of_options) {
    findings.Error(path + ".options", Shorten(config.options, 80), std::move(made.error));
  } else if (made.filter == nullptr) {
    findings.Error(path + ".path", QuoteShort(config.path), std::move(made.error));
  }
  return std::move(made.filter);
}

}  // namespace metaprotocol
