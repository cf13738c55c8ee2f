#include "src/config/condition_loader.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "src/route/address_range.h"

namespace metaprotocol {
namespace {

Condition LoadCondition(const config::Condition& config, const std::string& path,
                        Findings& findings) {
  using Kind = Condition::Kind;
  CheckKey(config.key, path + ".key", findings);
  Condition condition;
  condition.key = config.key;
  condition.ignore_case = config.ignore_case;
  condition.invert = config.invert;

  struct TextKind {
    const std::optional<std::string>& text;
    Kind kind;
  };
  for (const TextKind& given :
       {TextKind{config.exact, Kind::kExact}, TextKind{config.prefix, Kind::kPrefix},
        TextKind{config.suffix, Kind::kSuffix}, TextKind{config.contains, Kind::kContains},
        TextKind{config.regex, Kind::kRegex}}) {
    if (!given.text) continue;
    condition.kind = given.kind;
    condition.values = {*given.text};
    return condition;
  }
  if (config.one_of) {
    condition.kind = Kind::kOneOf;
    condition.values = config.one_of->values;
    return condition;
  }

  if (config.ignore_case) {
    findings.Error(path + ".ignore_case", "true", "is for conditions on text only");
  }
  if (config.ip_in) {
    condition.kind = Kind::kIpIn;
    condition.values = config.ip_in->values;
    for (size_t i = 0; i < condition.values.size(); ++i) {
      if (AddressRange::Parse(condition.values[i])) continue;
      findings.Error(path + ".ip_in.values[" + std::to_string(i) + "]",
                     QuoteShort(condition.values[i]),
                     "must be an IP address or a range of them, such as 10.0.0.0/8 or fd00::/8");
    }
  } else if (config.range) {
    condition.kind = Kind::kRange;
    condition.range_start = config.range->start;
    condition.range_end = config.range->end;
    if (condition.range_start >= condition.range_end) {
      findings.Error(path + ".range.end", std::to_string(condition.range_end),
                     "must be above start, which is " + std::to_string(condition.range_start) +
                         "; end itself is not in the range");
    }
  } else if (config.present) {
    condition.kind = Kind::kPresent;
    if (!*config.present) {
      findings.Error(path + ".present", "false", "must be true; the opposite is absent: true");
    }
  } else if (config.absent) {
    condition.kind = Kind::kAbsent;
    if (!*config.absent) {
      findings.Error(path + ".absent", "false", "must be true; the opposite is present: true");
    }
  }
  return condition;
}

}  // namespace

std::vector<Condition> LoadConditions(const std::vector<config::Condition>& configs,
                                      const std::string& path, Findings& findings) {
  std::vector<Condition> conditions;
  for (size_t i = 0; i < configs.size(); ++i) {
    conditions.push_back(LoadCondition(configs[i], path + "[" + std::to_string(i) + "]", findings));
  }
  return conditions;
}

void CheckKey(const std::string& key, const std::string& path, Findings& findings) {
  if (!key.starts_with(kConnectionKeyPrefix)) return;
  if (std::find(kConnectionKeys.begin(), kConnectionKeys.end(), key) == kConnectionKeys.end()) {
    findings.Error(
        path, QuoteShort(key),
        "keys that begin with \"connection.\" must be one of " + JoinNames(kConnectionKeys));
  }
}

void ReportBadRegex(const RouteTable::BuildError& error,
                    const std::vector<config::Condition>& configs, const std::string& path,
                    Findings& findings) {
  findings.Error(path + "[" + std::to_string(error.condition) + "].regex",
                 QuoteShort(configs[error.condition].regex.value_or("")), error.message);
}

std::unique_ptr<const RouteTable> LoadMatch(const std::vector<config::Condition>& configs,
                                            const std::string& path, MetadataKeys& keys,
                                            Findings& findings) {
  std::vector<RouteTable::Rule> rules(1);
  rules[0].conditions = LoadConditions(configs, path, findings);
  std::vector<RouteTable::BuildError> errors;
  auto match = RouteTable::Build("", std::move(rules), keys, errors);
  for (const RouteTable::BuildError& error : errors) ReportBadRegex(error, configs, path, findings);
  return match;
}

}  // namespace metaprotocol
