// What each kind of condition means, and which of several routes wins.
#include "src/route/route_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/cpp/route/route_test_util.h"

namespace metaprotocol::test {
namespace {

using Kind = Condition::Kind;

TEST(RouteCondition, ExactComparesTheWholeValue) {
  const Condition condition = Exact("k", "Value");
  EXPECT_TRUE(Holds(condition, {{"k", "Value"}}));
  EXPECT_FALSE(Holds(condition, {{"k", "value"}}));
  EXPECT_FALSE(Holds(condition, {{"k", "Values"}}));
  EXPECT_FALSE(Holds(condition, {{"other", "Value"}}));
  EXPECT_TRUE(Holds(AnyCase(condition), {{"k", "vALUE"}}));
  EXPECT_FALSE(Holds(AnyCase(condition), {{"k", "vALU"}}));
}

TEST(RouteCondition, ExactMatchesAnEmptyValueButNotAMissingOne) {
  EXPECT_TRUE(Holds(Exact("k", ""), {{"k", ""}}));
  EXPECT_FALSE(Holds(Exact("k", ""), {}));
}

TEST(RouteCondition, PrefixComparesTheBeginning) {
  const Condition condition = Where("k", Kind::kPrefix, {"Get"});
  EXPECT_TRUE(Holds(condition, {{"k", "GetUser"}}));
  EXPECT_TRUE(Holds(condition, {{"k", "Get"}}));
  EXPECT_FALSE(Holds(condition, {{"k", "Ge"}}));
  EXPECT_FALSE(Holds(condition, {{"k", "forGet"}}));
  EXPECT_FALSE(Holds(condition, {{"k", "getUser"}}));
  EXPECT_TRUE(Holds(AnyCase(condition), {{"k", "getUser"}}));
  EXPECT_FALSE(Holds(AnyCase(condition), {{"k", "ge"}}));
}

TEST(RouteCondition, SuffixComparesTheEnd) {
  const Condition condition = Where("k", Kind::kSuffix, {"Service"});
  EXPECT_TRUE(Holds(condition, {{"k", "UserService"}}));
  EXPECT_TRUE(Holds(condition, {{"k", "Service"}}));
  EXPECT_FALSE(Holds(condition, {{"k", "ServiceUser"}}));
  EXPECT_FALSE(Holds(condition, {{"k", "ervice"}}));
  EXPECT_FALSE(Holds(condition, {{"k", "Userservice"}}));
  EXPECT_TRUE(Holds(AnyCase(condition), {{"k", "USERSERVICE"}}));
  EXPECT_FALSE(Holds(AnyCase(condition), {{"k", "ERVICE"}}));
}

TEST(RouteCondition, ContainsLooksAnywhere) {
  const Condition condition = Where("k", Kind::kContains, {"Order"});
  EXPECT_TRUE(Holds(condition, {{"k", "NewOrderNow"}}));
  EXPECT_TRUE(Holds(condition, {{"k", "Order"}}));
  EXPECT_FALSE(Holds(condition, {{"k", "Orde"}}));
  EXPECT_FALSE(Holds(condition, {{"k", "newordernow"}}));
  EXPECT_TRUE(Holds(AnyCase(condition), {{"k", "newordernow"}}));
  EXPECT_FALSE(Holds(AnyCase(condition), {{"k", "newordenow"}}));
}

TEST(RouteCondition, RegexMatchesTheWholeValue) {
  const Condition condition = Where("k", Kind::kRegex, {"qa-[0-9]+"});
  EXPECT_TRUE(Holds(condition, {{"k", "qa-17"}}));
  EXPECT_FALSE(Holds(condition, {{"k", "qa-17x"}}));
  EXPECT_FALSE(Holds(condition, {{"k", "xqa-17"}}));
  EXPECT_FALSE(Holds(condition, {{"k", "QA-17"}}));
  EXPECT_TRUE(Holds(AnyCase(condition), {{"k", "QA-17"}}));
}

TEST(RouteCondition, IgnoringCaseLeavesRegexClassesAlone) {
  EXPECT_TRUE(Holds(AnyCase(Where("k", Kind::kRegex, {"\\D+"})), {{"k", "abc"}}));
  EXPECT_FALSE(Holds(AnyCase(Where("k", Kind::kRegex, {"\\D+"})), {{"k", "123"}}));
}

TEST(RouteCondition, PresentAndAbsentAskForTheKeyOnly) {
  EXPECT_TRUE(Holds(Where("k", Kind::kPresent), {{"k", ""}}));
  EXPECT_FALSE(Holds(Where("k", Kind::kPresent), {{"other", ""}}));
  EXPECT_FALSE(Holds(Where("k", Kind::kAbsent), {{"k", ""}}));
  EXPECT_TRUE(Holds(Where("k", Kind::kAbsent), {{"other", ""}}));
  EXPECT_TRUE(Holds(Not(Where("k", Kind::kAbsent)), {{"k", ""}}));
  EXPECT_FALSE(Holds(Not(Where("k", Kind::kPresent)), {{"k", ""}}));
}

TEST(RouteCondition, RangeIncludesItsStartAndNotItsEnd) {
  const Condition condition = InRange("k", -5, 10);
  EXPECT_TRUE(Holds(condition, {{"k", "-5"}}));
  EXPECT_TRUE(Holds(condition, {{"k", "9"}}));
  EXPECT_TRUE(Holds(condition, {{"k", "+9"}}));
  EXPECT_TRUE(Holds(condition, {{"k", "009"}}));
  EXPECT_FALSE(Holds(condition, {{"k", "-6"}}));
  EXPECT_FALSE(Holds(condition, {{"k", "10"}}));
}

TEST(RouteCondition, RangeHoldsForWholeDecimalIntegersOnly) {
  const Condition condition = InRange("k", INT64_MIN, INT64_MAX);
  for (const char* text : {"", "+", "-", "+-1", "-+1", "1.0", "0x1", "1 ", " 1", "1e1", "one",
                           "9223372036854775808", "-9223372036854775809"}) {
    EXPECT_FALSE(Holds(condition, {{"k", text}})) << text;
    EXPECT_TRUE(Holds(Not(condition), {{"k", text}})) << text;
  }
  EXPECT_TRUE(Holds(condition, {{"k", "9223372036854775806"}}));
  EXPECT_TRUE(Holds(condition, {{"k", "-9223372036854775808"}}));
  EXPECT_FALSE(Holds(condition, {{"k", "9223372036854775807"}}));
}

TEST(RouteCondition, OneOfTakesAnyOfItsTexts) {
  const Condition condition = Where("k", Kind::kOneOf, {"get", "Find", "list"});
  EXPECT_TRUE(Holds(condition, {{"k", "Find"}}));
  EXPECT_TRUE(Holds(condition, {{"k", "list"}}));
  EXPECT_FALSE(Holds(condition, {{"k", "find"}}));
  EXPECT_FALSE(Holds(condition, {{"k", "lis"}}));
  EXPECT_TRUE(Holds(AnyCase(condition), {{"k", "fIND"}}));
  EXPECT_FALSE(Holds(AnyCase(condition), {{"k", "fINDs"}}));
  EXPECT_FALSE(Holds(Not(condition), {{"k", "get"}}));
  EXPECT_TRUE(Holds(Not(condition), {{"k", "put"}}));
}

TEST(RouteCondition, OneOfWithMoreTextsThanAreIndexedStillTakesEach) {
  std::vector<std::string> texts;
  for (int i = 0; i < 1000; ++i) texts.push_back("text" + std::to_string(i));
  const Condition condition = Where("k", Kind::kOneOf, texts);
  EXPECT_TRUE(Holds(condition, {{"k", "text0"}}));
  EXPECT_TRUE(Holds(condition, {{"k", "text999"}}));
  EXPECT_FALSE(Holds(condition, {{"k", "text1000"}}));
}

TEST(RouteCondition, AnyOfARepeatedKeysValuesWillDo) {
  const Pairs message = {{"k", "a"}, {"other", "x"}, {"k", "b"}};
  EXPECT_TRUE(Holds(Exact("k", "a"), message));
  EXPECT_TRUE(Holds(Exact("k", "b"), message));
  EXPECT_FALSE(Holds(Exact("k", "x"), message));
  EXPECT_TRUE(Holds(AnyCase(Exact("k", "B")), message));
}

TEST(RouteCondition, InvertedHoldsIfNoValueSatisfiesIt) {
  EXPECT_FALSE(Holds(Not(Exact("k", "b")), {{"k", "a"}, {"k", "b"}}));
  EXPECT_TRUE(Holds(Not(Exact("k", "c")), {{"k", "a"}, {"k", "b"}}));
  EXPECT_TRUE(Holds(Not(Exact("k", "c")), {}));
}

TEST(RouteCondition, ConnectionKeysLookAtTheConnectionAlone) {
  const Condition condition = Exact("connection.sni", "a.example");
  EXPECT_TRUE(Holds(condition, {}, {{"connection.sni", "a.example"}}));
  // A peer cannot pretend by an attachment of that name.
  EXPECT_FALSE(Holds(condition, {{"connection.sni", "a.example"}}));
  EXPECT_TRUE(Holds(Not(condition), {{"connection.sni", "a.example"}}));
  EXPECT_FALSE(Holds(Exact("k", "v"), {}, {{"k", "v"}}));
}

TEST(RouteTable, TakesTheFirstRuleOfThoseThatHold) {
  const auto table = TableOf(RulesOf({
      {Exact("a", "1"), Exact("b", "1")},
      {Where("a", Kind::kPrefix, {"1"})},
      {Exact("a", "1")},
      {},
      {Exact("a", "2")},
  }));
  EXPECT_EQ(Matched(*table, {{"a", "1"}, {"b", "1"}}), 0);
  EXPECT_EQ(Matched(*table, {{"a", "1"}, {"b", "2"}}), 1);
  EXPECT_EQ(Matched(*table, {{"a", "2"}}), 3);  // 4 is behind the catch-all
}

TEST(RouteTable, HasNoRouteIfNoRuleHolds) {
  EXPECT_EQ(Matched(*TableOf({}), {{"a", "1"}}), -1);
  EXPECT_EQ(Matched(*TableOf(RulesOf({{Exact("a", "1")}})), {{"a", "2"}}), -1);
}

TEST(RouteTable, OrdersRulesOfDifferentKeySetsAmongEachOther) {
  const auto table = TableOf(RulesOf({
      {Exact("b", "1")},
      {Exact("a", "1")},
      {Exact("b", "2")},
      {Exact("a", "2"), Exact("b", "2")},
      {Exact("a", "2")},
  }));
  EXPECT_EQ(Matched(*table, {{"a", "1"}, {"b", "1"}}), 0);
  EXPECT_EQ(Matched(*table, {{"a", "1"}, {"b", "2"}}), 1);
  EXPECT_EQ(Matched(*table, {{"a", "2"}, {"b", "2"}}), 2);
  EXPECT_EQ(Matched(*table, {{"a", "2"}, {"b", "3"}}), 4);
}

TEST(RouteTable, TriesTheNextRuleWithTheSameTextsIfAConditionFails) {
  const auto table = TableOf(RulesOf({
      {Exact("a", "1"), Where("b", Kind::kPrefix, {"x"})},
      {Exact("a", "1"), Where("b", Kind::kPrefix, {"y"})},
      {Exact("a", "1")},
  }));
  EXPECT_EQ(Matched(*table, {{"a", "1"}, {"b", "yy"}}), 1);
  EXPECT_EQ(Matched(*table, {{"a", "1"}, {"b", "z"}}), 2);
}

TEST(RouteTable, OrderOfConditionsIsAllTheSame) {
  const auto table = TableOf(RulesOf({
      {Exact("a", "1"), Exact("b", "1")},
      {Exact("b", "2"), Exact("a", "1")},
  }));
  EXPECT_EQ(Matched(*table, {{"b", "2"}, {"a", "1"}}), 1);
}

TEST(RouteTable, TwoTextsForOneKeyNeedBothAmongItsValues) {
  const auto table = TableOf(RulesOf({{Exact("a", "1"), Exact("a", "2")}}));
  EXPECT_EQ(Matched(*table, {{"a", "1"}}), -1);
  EXPECT_EQ(Matched(*table, {{"a", "2"}, {"a", "1"}}), 0);
}

TEST(RouteTable, TriesEachCombinationOfRepeatedKeys) {
  const auto table = TableOf(RulesOf({
      {Exact("a", "3"), Exact("b", "3")},
      {Exact("a", "2"), Exact("b", "1")},
      {Exact("a", "1"), Exact("b", "2")},
  }));
  const Pairs message = {{"a", "1"}, {"a", "2"}, {"b", "1"}, {"b", "2"}};
  EXPECT_EQ(Matched(*table, message), 1);
}

TEST(RouteTable, RepeatedKeysDoNotMultiplyBeyondWhatRulesAskFor) {
  // 8 keys with 60 values each would be 60^8 combinations.
  std::vector<Condition> conditions;
  Pairs message;
  for (int key = 0; key < 8; ++key) {
    const std::string name = "k" + std::to_string(key);
    conditions.push_back(Exact(name, "59"));
    for (int value = 0; value < 60; ++value) message.emplace_back(name, std::to_string(value));
  }
  EXPECT_EQ(Matched(*TableOf(RulesOf({conditions})), message), 0);
}

TEST(RouteTable, RulesWithManyExactKeysCheckThemAll) {
  std::vector<Condition> conditions;
  Pairs message;
  for (int key = 0; key < 12; ++key) {
    conditions.push_back(Exact("k" + std::to_string(key), "v"));
    message.emplace_back("k" + std::to_string(key), "v");
  }
  const auto table = TableOf(RulesOf({conditions}));
  EXPECT_EQ(Matched(*table, message), 0);
  for (auto& pair : message) {
    pair.second = "w";
    EXPECT_EQ(Matched(*table, message), -1) << pair.first;
    pair.second = "v";
  }
}

TEST(RouteTable, TextsThatOnlyJoinToTheSameAreNotTheSame) {
  const auto table = TableOf(RulesOf({{Exact("a", "xy"), Exact("b", "z")}}));
  EXPECT_EQ(Matched(*table, {{"a", "x"}, {"b", "yz"}}), -1);
}

TEST(RouteTable, ListsItsRoutesInOrder) {
  const auto table = TableOf(RulesOf({{Exact("a", "1")}, {}}));
  ASSERT_EQ(table->routes().size(), 2u);
  EXPECT_EQ(table->routes()[0]->name, "0");
  EXPECT_EQ(table->routes()[1]->name, "1");
  EXPECT_EQ(table->name(), "table");
}

TEST(RouteTable, KeysAreThoseOfConditionsAndHashesWithoutTheConnections) {
  auto rules = RulesOf({{Exact("a", "1"), Where("c", Kind::kPresent)},
                        {Exact("connection.sni", "x"), Exact("a", "2")}});
  rules[1].route.hash_keys = {"h", "connection.source_address"};
  const auto table = TableOf(std::move(rules));
  const std::vector<std::string_view> keys(table->keys().begin(), table->keys().end());
  EXPECT_EQ(keys, (std::vector<std::string_view>{"a", "c", "h"}));
}

TEST(RouteTable, NamesEveryBadRegularExpressionWithItsPlace) {
  std::vector<RouteTable::BuildError> errors;
  auto rules = RulesOf({{Exact("a", "1"), Where("b", Kind::kRegex, {"ab[c"})},
                        {Where("b", Kind::kRegex, {"fine"})},
                        {Where("b", Kind::kRegex, {"x**"})}});
  EXPECT_EQ(RouteTable::Build("table", std::move(rules), errors), nullptr);
  ASSERT_EQ(errors.size(), 2u);
  EXPECT_EQ(errors[0].rule, 0u);
  EXPECT_EQ(errors[0].condition, 1u);
  EXPECT_EQ(errors[0].message, "is not a valid RE2 expression: missing ]: [c (at byte 2)");
  EXPECT_EQ(errors[1].rule, 2u);
  EXPECT_EQ(errors[1].message,
            "is not a valid RE2 expression: bad repetition operator: ** (at byte 1)");
}

TEST(RouteTable, RefusesARegularExpressionThatNeedsTooMuchMemory) {
  std::vector<RouteTable::BuildError> errors;
  auto rules = RulesOf({{Where("a", Kind::kRegex, {"((\\pL{100}){10}){10}"})}});
  EXPECT_EQ(RouteTable::Build("table", std::move(rules), errors), nullptr);
  ASSERT_EQ(errors.size(), 1u);
}

}  // namespace
}  // namespace metaprotocol::test
