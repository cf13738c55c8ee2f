// What each kind of condition means, and which of several routes wins.
#include "src/route/route_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/cpp/route/route_test_util.h"
#include "tests/cpp/support/cpu_time.h"

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

// Headers of Thrift and fields of declared protocols are bytes.
TEST(RouteCondition, RegexMatchesByteByByteWhatIsNoText) {
  const Condition condition = Where("k", Kind::kRegex, {"(?s:delete.*|.*\u00e9)"});
  EXPECT_TRUE(Holds(condition, {{"k", "delete\xff"}}));
  EXPECT_TRUE(Holds(condition, {{"k", "\xc3\xc3\xa9"}}));
  EXPECT_FALSE(Holds(condition, {{"k", "\xff"}}));
  EXPECT_FALSE(Holds(Not(condition), {{"k", "delete\xc0\x80"}}));
  EXPECT_TRUE(Holds(AnyCase(Where("k", Kind::kRegex, {"delete.+"})), {{"k", "DELETE\xfe"}}));
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

constexpr const char* kUri = "connection.peer_uri_san";
constexpr const char* kDns = "connection.peer_dns_san";

TEST(RouteCondition, AnyOfAConnectionKeysValuesWillDo) {
  const Pairs connection = {{kUri, "a"}, {kDns, "x"}, {kUri, "b"}};
  EXPECT_TRUE(Holds(Exact(kUri, "a"), {}, connection));
  EXPECT_TRUE(Holds(Exact(kUri, "b"), {}, connection));
  EXPECT_FALSE(Holds(Exact(kUri, "x"), {}, connection));
  EXPECT_TRUE(Holds(AnyCase(Exact(kUri, "B")), {}, connection));
}

TEST(RouteCondition, InvertedHoldsIfNoValueSatisfiesIt) {
  const Pairs connection = {{kUri, "a"}, {kUri, "b"}};
  EXPECT_FALSE(Holds(Not(Exact(kUri, "b")), {}, connection));
  EXPECT_TRUE(Holds(Not(Exact(kUri, "c")), {}, connection));
  EXPECT_TRUE(Holds(Not(Exact("k", "c")), {}));
}

TEST(RouteCondition, AMessageHasOneValueUnderAKeyTheLastThatItNamed) {
  const Pairs message = {{"k", "a"}, {"other", "x"}, {"k", "b"}};
  EXPECT_FALSE(Holds(Exact("k", "a"), message));
  EXPECT_TRUE(Holds(Exact("k", "b"), message));
  EXPECT_TRUE(Holds(Not(Exact("k", "a")), message));
}

TEST(RouteCondition, KeysAreComparedWithoutCaseButWhatIsExactlyWrittenComesFirst) {
  EXPECT_TRUE(Holds(Exact("BatchJob", "1"), {{"batchjob", "1"}}));
  EXPECT_TRUE(Holds(Exact("batchjob", "1"), {{"BATCHJOB", "1"}}));
  EXPECT_FALSE(Holds(Exact("BatchJob", "1"), {{"BatchJobs", "1"}}));
  EXPECT_TRUE(Holds(Exact("BatchJob", "1"), {{"BatchJob", "1"}, {"batchjob", "2"}}));
  EXPECT_TRUE(Holds(Exact("BatchJob", "1"), {{"batchjob", "2"}, {"BatchJob", "1"}}));
  EXPECT_FALSE(Holds(Where("BatchJob", Kind::kAbsent), {{"batchjob", ""}}));
}

TEST(RouteCondition, KeysThatDifferInCaseAloneAreReadEachFromItsOwn) {
  const auto table = TableOf(RulesOf({{Exact("Lane", "1"), Exact("lane", "2")}}));
  EXPECT_EQ(Matched(table, {{"lane", "2"}, {"Lane", "1"}}), 0);
  EXPECT_EQ(Matched(table, {{"lane", "1"}, {"Lane", "2"}}), -1);
}

TEST(RouteCondition, AnotherWayToWriteAValueIsAsGoodAsTheFirst) {
  const std::string_view own[] = {"method"};
  const auto holds = [&](std::vector<Condition> conditions) {
    MetadataKeys keys(own);
    std::vector<RouteTable::BuildError> errors;
    const auto routes = RouteTable::Build("t", RulesOf({std::move(conditions)}), keys, errors);
    Metadata message;
    message.Clear(&keys);
    message.SetOwn(0, "sayHello");
    message.SetAlternative(0, "Orders:sayHello");
    message.SetNamed("lane", "blue");
    return routes->Match({message, ConnectionOf({{kUri, "a"}, {kUri, "b"}})}).route != nullptr;
  };
  EXPECT_TRUE(holds({Exact("method", "sayHello")}));
  EXPECT_TRUE(holds({Exact("method", "Orders:sayHello")}));
  EXPECT_TRUE(holds({Exact("method", "Orders:sayHello"), Exact("lane", "blue")}));
  EXPECT_TRUE(holds({Exact("method", "Orders:sayHello"), Exact(kUri, "b"), Exact("lane", "blue")}));
  EXPECT_TRUE(holds({Where("method", Kind::kPrefix, {"Orders:"})}));
  EXPECT_FALSE(holds({Not(Exact("method", "Orders:sayHello"))}));
  EXPECT_FALSE(holds({Not(Exact("method", "sayHello"))}));
  EXPECT_FALSE(holds({Exact("method", "Orders")}));
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
  EXPECT_EQ(Matched(table, {{"a", "1"}, {"b", "1"}}), 0);
  EXPECT_EQ(Matched(table, {{"a", "1"}, {"b", "2"}}), 1);
  EXPECT_EQ(Matched(table, {{"a", "2"}}), 3);  // 4 is behind the catch-all
}

TEST(RouteTable, HasNoRouteIfNoRuleHolds) {
  EXPECT_EQ(Matched(TableOf({}), {{"a", "1"}}), -1);
  EXPECT_EQ(Matched(TableOf(RulesOf({{Exact("a", "1")}})), {{"a", "2"}}), -1);
}

TEST(RouteTable, OrdersRulesOfDifferentKeySetsAmongEachOther) {
  const auto table = TableOf(RulesOf({
      {Exact("b", "1")},
      {Exact("a", "1")},
      {Exact("b", "2")},
      {Exact("a", "2"), Exact("b", "2")},
      {Exact("a", "2")},
  }));
  EXPECT_EQ(Matched(table, {{"a", "1"}, {"b", "1"}}), 0);
  EXPECT_EQ(Matched(table, {{"a", "1"}, {"b", "2"}}), 1);
  EXPECT_EQ(Matched(table, {{"a", "2"}, {"b", "2"}}), 2);
  EXPECT_EQ(Matched(table, {{"a", "2"}, {"b", "3"}}), 4);
}

TEST(RouteTable, TriesTheNextRuleWithTheSameTextsIfAConditionFails) {
  const auto table = TableOf(RulesOf({
      {Exact("a", "1"), Where("b", Kind::kPrefix, {"x"})},
      {Exact("a", "1"), Where("b", Kind::kPrefix, {"y"})},
      {Exact("a", "1")},
  }));
  EXPECT_EQ(Matched(table, {{"a", "1"}, {"b", "yy"}}), 1);
  EXPECT_EQ(Matched(table, {{"a", "1"}, {"b", "z"}}), 2);
}

TEST(RouteTable, OrderOfConditionsIsAllTheSame) {
  const auto table = TableOf(RulesOf({
      {Exact("a", "1"), Exact("b", "1")},
      {Exact("b", "2"), Exact("a", "1")},
  }));
  EXPECT_EQ(Matched(table, {{"b", "2"}, {"a", "1"}}), 1);
}

TEST(RouteTable, TwoTextsForOneKeyNeedBothAmongItsValues) {
  const auto table = TableOf(RulesOf({{Exact(kUri, "1"), Exact(kUri, "2")}}));
  EXPECT_EQ(Matched(table, {}, {{kUri, "1"}}), -1);
  EXPECT_EQ(Matched(table, {}, {{kUri, "2"}, {kUri, "1"}}), 0);
}

TEST(RouteTable, TriesEachValueOfAConnectionsKeys) {
  const auto table = TableOf(RulesOf({
      {Exact(kUri, "3"), Exact(kDns, "3")},
      {Exact(kUri, "2"), Exact(kDns, "1"), Exact("k", "v")},
      {Exact(kUri, "1"), Exact(kDns, "2")},
  }));
  const Pairs connection = {{kUri, "1"}, {kUri, "2"}, {kDns, "1"}, {kDns, "2"}};
  EXPECT_EQ(Matched(table, {{"k", "v"}}, connection), 1);
  EXPECT_EQ(Matched(table, {{"k", "w"}}, connection), 2);
}

TEST(RouteTable, ValuesThatRepeatDoNotMultiply) {
  // The right value again and again, under every key that a rule looks at: combinations of them
  // would be 512^2 for the connection's and 512^8 for the message's.
  std::vector<Condition> conditions = {Exact(kUri, "v"), Exact(kDns, "v")};
  for (int key = 0; key < 8; ++key) conditions.push_back(Exact("k" + std::to_string(key), "v"));
  const auto table = TableOf(RulesOf({conditions}));
  // Metadata are views of what has been read: the values are kept with them.
  Pairs message;
  Pairs connection;
  for (int i = 0; i < 512; ++i) {
    for (int key = 0; key < 8; ++key) message.emplace_back("k" + std::to_string(key), "v");
    connection.emplace_back(kUri, "v");
    connection.emplace_back(kDns, "v");
  }
  EXPECT_EQ(Matched(table, message, connection), 0);
  const auto matching = [&](size_t times) {
    Metadata decoded;
    decoded.Clear(table.keys.get());
    ConnectionMetadata of_connection;
    for (size_t i = 0; i < 8 * times; ++i) decoded.Set(message[i].first, message[i].second);
    for (size_t i = 0; i < 2 * times; ++i) of_connection.Add(connection[i].first, "v");
    return [&, decoded, of_connection] { table.routes->Match({decoded, of_connection}); };
  };
  EXPECT_LT(GrowthOfUnitCost(32, matching), kLinear);
  EXPECT_LT(LeastCpuNs(5, matching(512)), 5e6) << "nanoseconds";
}

TEST(RouteTable, AValueTooLongToBeSearchedLeavesItsRuleUndecided) {
  const std::string longest(4096, 'x');
  const std::string longer(4097, 'x');
  for (const Condition& condition :
       {Where("k", Kind::kRegex, {".*x"}), Where("k", Kind::kRegex, {"y"}),
        Where("k", Kind::kContains, {"y"}), InRange("k", 0, 5),
        Not(Where("k", Kind::kRegex, {"y"})), AnyCase(Where("k", Kind::kContains, {"X"}))}) {
    // The rule is a denial, say, and a padded value must not lead past it.
    const auto table = TableOf(RulesOf({{Exact("m", "a"), condition}, {}}));
    const RouteMatch match = Match(table, {{"m", "a"}, {"k", longer}});
    EXPECT_TRUE(match.undecided);
    EXPECT_EQ(match.route->index, 0u);
    EXPECT_FALSE(Match(table, {{"m", "a"}, {"k", longest}}).undecided);
    EXPECT_EQ(Matched(table, {{"m", "b"}, {"k", longer}}), 1) << "another condition decides";
  }
}

TEST(RouteTable, EarlierRulesThatHoldSpareALongValueTheSearch) {
  const auto table = TableOf(RulesOf({{Where("m", Kind::kPrefix, {"a"})},
                                      {Exact("n", "1"), Where("k", Kind::kContains, {"y"})},
                                      {Where("k", Kind::kRegex, {"y"})}}));
  const std::string longer(5000, 'x');
  EXPECT_EQ(Matched(table, {{"m", "a"}, {"n", "1"}, {"k", longer}}), 0);
  EXPECT_EQ(Match(table, {{"n", "1"}, {"k", longer}}).route->index, 1u);
  EXPECT_EQ(Match(table, {{"k", longer}}).route->index, 2u);
}

TEST(RouteTable, OtherConditionsDecideWhateverTheLength) {
  const std::string value = "begin" + std::string(1 << 20, 'x') + "end";
  EXPECT_TRUE(Holds(Where("k", Kind::kPrefix, {"begin"}), {{"k", value}}));
  EXPECT_TRUE(Holds(Where("k", Kind::kSuffix, {"end"}), {{"k", value}}));
  EXPECT_TRUE(Holds(Exact("k", value), {{"k", value}}));
  EXPECT_TRUE(Holds(Where("k", Kind::kPresent), {{"k", value}}));
  EXPECT_FALSE(Holds(Exact("k", "begin"), {{"k", value}}));
  EXPECT_FALSE(Holds(Where("k", Kind::kOneOf, {"a", "b"}), {{"k", value}}));
}

TEST(RouteTable, RulesWithManyExactKeysCheckThemAll) {
  std::vector<Condition> conditions;
  Pairs message;
  for (int key = 0; key < 12; ++key) {
    conditions.push_back(Exact("k" + std::to_string(key), "v"));
    message.emplace_back("k" + std::to_string(key), "v");
  }
  const auto table = TableOf(RulesOf({conditions}));
  EXPECT_EQ(Matched(table, message), 0);
  for (auto& pair : message) {
    pair.second = "w";
    EXPECT_EQ(Matched(table, message), -1) << pair.first;
    pair.second = "v";
  }
}

TEST(RouteTable, TextsThatOnlyJoinToTheSameAreNotTheSame) {
  const auto table = TableOf(RulesOf({{Exact("a", "xy"), Exact("b", "z")}}));
  EXPECT_EQ(Matched(table, {{"a", "x"}, {"b", "yz"}}), -1);
}

TEST(RouteTable, ListsItsRoutesInOrder) {
  const auto table = TableOf(RulesOf({{Exact("a", "1")}, {}}));
  ASSERT_EQ(table.routes->routes().size(), 2u);
  EXPECT_EQ(table.routes->routes()[0]->name, "0");
  EXPECT_EQ(table.routes->routes()[1]->name, "1");
  EXPECT_EQ(table.routes->name(), "table");
}

TEST(RouteTable, WantsTheKeysOfItsConditionsButNotTheConnections) {
  const auto table = TableOf(RulesOf({{Exact("a", "1"), Where("c", Kind::kPresent)},
                                      {Exact("connection.sni", "x"), Exact("a", "2")}}));
  EXPECT_EQ(table.keys->size(), 2u);
  EXPECT_NE(table.keys->Find("a"), MetadataKeys::kNone);
  EXPECT_NE(table.keys->Find("c"), MetadataKeys::kNone);
}

TEST(RouteTable, NamesEveryBadRegularExpressionWithItsPlace) {
  MetadataKeys keys;
  std::vector<RouteTable::BuildError> errors;
  auto rules = RulesOf({{Exact("a", "1"), Where("b", Kind::kRegex, {"ab[c"})},
                        {Where("b", Kind::kRegex, {"fine"})},
                        {Where("b", Kind::kRegex, {"x**"})}});
  EXPECT_EQ(RouteTable::Build("table", std::move(rules), keys, errors), nullptr);
  ASSERT_EQ(errors.size(), 2u);
  EXPECT_EQ(errors[0].rule, 0u);
  EXPECT_EQ(errors[0].condition, 1u);
  EXPECT_EQ(errors[0].message, "is not a valid RE2 expression: missing ]: [c (at byte 2)");
  EXPECT_EQ(errors[1].rule, 2u);
  EXPECT_EQ(errors[1].message,
            "is not a valid RE2 expression: bad repetition operator: ** (at byte 1)");
}

TEST(RouteTable, RefusesARegularExpressionThatNeedsTooMuchMemory) {
  MetadataKeys keys;
  std::vector<RouteTable::BuildError> errors;
  auto rules = RulesOf({{Where("a", Kind::kRegex, {"((\\pL{100}){10}){10}"})}});
  EXPECT_EQ(RouteTable::Build("table", std::move(rules), keys, errors), nullptr);
  ASSERT_EQ(errors.size(), 1u);
}

}  // namespace
}  // namespace metaprotocol::test
