// Short ways to write rules and messages in route tests.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/route/route_table.h"

namespace metaprotocol::test {

using Pairs = std::vector<std::pair<std::string, std::string>>;

// A compiled table and the keys that it looks at.
struct Table {
  std::unique_ptr<MetadataKeys> keys = std::make_unique<MetadataKeys>();
  std::unique_ptr<const RouteTable> routes = {};
};

// Key/value pairs as metadata; `pairs` must outlive it.
inline Metadata MetadataOf(const Table& table, const Pairs& pairs) {
  Metadata metadata;
  metadata.Clear(table.keys.get());
  for (const auto& [key, value] : pairs) metadata.Set(key, value);
  return metadata;
}
inline ConnectionMetadata ConnectionOf(const Pairs& pairs) {
  ConnectionMetadata metadata;
  for (const auto& [key, value] : pairs) metadata.Add(key, value);
  return metadata;
}

inline Condition Where(std::string key, Condition::Kind kind,
                       std::vector<std::string> values = {}) {
  Condition condition;
  condition.key = std::move(key);
  condition.kind = kind;
  condition.values = std::move(values);
  return condition;
}
inline Condition Exact(std::string key, std::string value) {
  return Where(std::move(key), Condition::Kind::kExact, {std::move(value)});
}
inline Condition InRange(std::string key, int64_t start, int64_t end) {
  Condition condition = Where(std::move(key), Condition::Kind::kRange);
  condition.range_start = start;
  condition.range_end = end;
  return condition;
}
inline Condition Not(Condition condition) {
  condition.invert = true;
  return condition;
}
inline Condition AnyCase(Condition condition) {
  condition.ignore_case = true;
  return condition;
}

// Each rule's route is named by its position.
inline std::vector<RouteTable::Rule> RulesOf(std::vector<std::vector<Condition>> conditions) {
  std::vector<RouteTable::Rule> rules;
  for (auto& of_rule : conditions) {
    RouteTable::Rule rule;
    rule.conditions = std::move(of_rule);
    rule.route.index = static_cast<uint32_t>(rules.size());
    rule.route.name = std::to_string(rules.size());
    rules.push_back(std::move(rule));
  }
  return rules;
}

inline Table TableOf(std::vector<RouteTable::Rule> rules) {
  Table table;
  std::vector<RouteTable::BuildError> errors;
  table.routes = RouteTable::Build("table", std::move(rules), *table.keys, errors);
  for (const auto& error : errors) ADD_FAILURE() << error.message;
  return table;
}

inline RouteMatch Match(const Table& table, const Pairs& message, const Pairs& connection = {}) {
  return table.routes->Match({MetadataOf(table, message), ConnectionOf(connection)});
}

// Position of the rule that takes the message; -1: none does.
inline int Matched(const Table& table, const Pairs& message, const Pairs& connection = {}) {
  const RouteMatch match = Match(table, message, connection);
  EXPECT_FALSE(match.undecided);
  return match.route == nullptr ? -1 : static_cast<int>(match.route->index);
}

inline bool Holds(const Condition& condition, const Pairs& message, const Pairs& connection = {}) {
  return Matched(TableOf(RulesOf({{condition}})), message, connection) == 0;
}

}  // namespace metaprotocol::test
