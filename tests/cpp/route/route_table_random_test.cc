// Compiled tables against a matcher that simply tries rule after rule, on random tables and
// messages.
#include <gtest/gtest.h>
#include <re2/re2.h>

#include <algorithm>
#include <cctype>
#include <random>
#include <string>
#include <vector>

#include "src/route/route_table.h"
#include "tests/cpp/route/route_test_util.h"
#include "tests/cpp/support/sanitized.h"

namespace metaprotocol::test {
namespace {

using Kind = Condition::Kind;

std::string LowerOf(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x80) c = static_cast<char>(std::tolower(c));
  }
  return text;
}

// Values are short here, so a sign and digits are all there is to a range.
bool InRangeOf(const Condition& condition, const std::string& value) {
  const size_t digits = !value.empty() && (value[0] == '-' || value[0] == '+') ? 1 : 0;
  if (value.size() == digits) return false;
  for (size_t i = digits; i < value.size(); ++i) {
    if (std::isdigit(static_cast<unsigned char>(value[i])) == 0) return false;
  }
  const long long number = std::atoll(value.c_str());
  return number >= condition.range_start && number < condition.range_end;
}

bool ReferenceSatisfies(const Condition& condition, std::string value) {
  std::vector<std::string> texts = condition.values;
  if (condition.kind == Kind::kRegex) {
    const std::string expression = condition.ignore_case ? "(?i:" + texts[0] + ")" : texts[0];
    return RE2::FullMatch(value, expression);
  }
  if (condition.ignore_case) {
    value = LowerOf(value);
    for (std::string& text : texts) text = LowerOf(text);
  }
  const auto ends = [&](const std::string& text) {
    return value.size() >= text.size() &&
           value.compare(value.size() - text.size(), std::string::npos, text) == 0;
  };
  switch (condition.kind) {
    case Kind::kExact:
      return value == texts[0];
    case Kind::kPrefix:
      return value.rfind(texts[0], 0) == 0;
    case Kind::kSuffix:
      return ends(texts[0]);
    case Kind::kContains:
      return value.find(texts[0]) != std::string::npos;
    case Kind::kPresent:
      return true;
    case Kind::kRange:
      return InRangeOf(condition, value);
    case Kind::kOneOf:
      return std::find(texts.begin(), texts.end(), value) != texts.end();
    case Kind::kAbsent:
    case Kind::kRegex:
    case Kind::kIpIn:  // never drawn; address_range_test.cc
      break;
  }
  return false;
}

bool ReferenceHolds(const Condition& condition, const Pairs& message, const Pairs& connection) {
  const bool of_connection = condition.key.rfind("connection.", 0) == 0;
  bool any = false;
  bool there = false;
  for (const auto& [key, value] : of_connection ? connection : message) {
    if (key != condition.key) continue;
    const bool repeats = key.ends_with("_san");
    if (of_connection && !repeats && there) continue;  // a connection has one of these
    if (!of_connection) any = false;                   // a message's last value counts
    there = true;
    any = any || ReferenceSatisfies(condition, value);
  }
  if (condition.kind == Kind::kAbsent) any = !there;
  return any != condition.invert;
}

int ReferenceMatch(const std::vector<RouteTable::Rule>& rules, const Pairs& message,
                   const Pairs& connection) {
  for (size_t i = 0; i < rules.size(); ++i) {
    bool all = true;
    for (const Condition& condition : rules[i].conditions) {
      all = all && ReferenceHolds(condition, message, connection);
    }
    if (all) return static_cast<int>(i);
  }
  return -1;
}

// Few keys and values, so that rules and messages often meet.
class Generator {
 public:
  explicit Generator(uint64_t seed) : random_(seed) {}

  size_t Below(size_t bound) { return random_() % bound; }

  std::string Key(bool message_only) {
    static const std::vector<std::string> kKeys = {"interface",
                                                   "method",
                                                   "a",
                                                   "b",
                                                   "connection.sni",
                                                   "connection.peer_uri_san",
                                                   "connection.peer_dns_san"};
    return kKeys[Below(message_only ? 4 : kKeys.size())];
  }

  std::string Value() {
    static const std::vector<std::string> kValues = {"a", "A", "ab", "aB", "b",
                                                     "",  "1", "-2", "17"};
    return kValues[Below(kValues.size())];
  }

  Condition AnyCondition() {
    // Exact ones more often than others: they are what is indexed.
    const auto kind = Below(2) == 0 ? Kind::kExact : static_cast<Kind>(Below(9));
    Condition condition = Where(Key(false), kind);
    const size_t texts = kind == Kind::kOneOf ? 1 + Below(4) : 1;
    for (size_t i = 0; i < texts; ++i) condition.values.push_back(Value());
    if (kind == Kind::kRegex) {
      static const std::vector<std::string> kExpressions = {"a.*", "[ab]+", ".", "A?b*", "\\d+"};
      condition.values = {kExpressions[Below(kExpressions.size())]};
    }
    if (kind == Kind::kPresent || kind == Kind::kAbsent || kind == Kind::kRange) {
      condition.values.clear();
    }
    condition.range_start = static_cast<int64_t>(Below(20)) - 10;
    condition.range_end = condition.range_start + 1 + static_cast<int64_t>(Below(20));
    condition.invert = Below(6) == 0;
    condition.ignore_case = Below(6) == 0;
    return condition;
  }

  std::vector<RouteTable::Rule> Rules() {
    std::vector<std::vector<Condition>> rules(Below(13));
    for (auto& rule : rules) {
      rule.resize(Below(5));
      for (Condition& condition : rule) condition = AnyCondition();
    }
    return RulesOf(std::move(rules));
  }

  Pairs Message(bool message_only) {
    Pairs pairs(Below(7));
    for (auto& [key, value] : pairs) {
      key = Key(message_only && Below(10) != 0);
      value = Value();
    }
    return pairs;
  }

 private:
  std::mt19937_64 random_;
};

TEST(RouteTable, DecidesLikeTryingRuleAfterRule) {
  constexpr int kTables = kSanitized ? 1000 : 4000;
  int matched = 0;
  int unmatched = 0;
  for (int seed = 0; seed < kTables; ++seed) {
    Generator generator(static_cast<uint64_t>(seed));
    const auto rules = generator.Rules();
    const auto table = TableOf(rules);
    ASSERT_NE(table.routes, nullptr);
    for (int i = 0; i < 25; ++i) {
      const Pairs message = generator.Message(true);
      const Pairs connection = generator.Message(false);
      const int expected = ReferenceMatch(rules, message, connection);
      ++(expected < 0 ? unmatched : matched);
      ASSERT_EQ(Matched(table, message, connection), expected) << "seed " << seed;
    }
  }
  // The comparison says something only if both happen often.
  EXPECT_GT(matched, kTables * 5 / 2);
  EXPECT_GT(unmatched, kTables * 5 / 2);
}

}  // namespace
}  // namespace metaprotocol::test
