// What building a table and looking routes up costs as tables grow: ratios, since the speed of the
// machine is nobody's property.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "src/route/route_table.h"
#include "tests/cpp/route/route_test_util.h"
#include "tests/cpp/support/cpu_time.h"
#include "tests/cpp/support/sanitized.h"

namespace metaprotocol::test {
namespace {

std::string Interface(size_t i) { return "org.example.shop.Service" + std::to_string(i / 10); }
std::string Method(size_t i) { return "method" + std::to_string(i % 10); }

std::vector<RouteTable::Rule> ExactRules(size_t count) {
  std::vector<std::vector<Condition>> rules;
  for (size_t i = 0; i < count; ++i) {
    rules.push_back({Exact("interface", Interface(i)), Exact("method", Method(i))});
  }
  return RulesOf(std::move(rules));
}

double BuildNs(size_t count) {
  const auto rules = ExactRules(count);
  return LeastCpuNs(kSanitized ? 3 : 10, [&rules] { TableOf(rules); });
}

// Nanoseconds per lookup over the same 10 messages: so the
// processor's caches, which more routes in use would fill in any case, do not enter.
double LookupNs(size_t count) {
  const auto table = TableOf(ExactRules(count));
  std::vector<Pairs> texts;
  for (size_t i = 0; i < 10; ++i) {
    const size_t route = count - 1 - i * (count / 10);
    texts.push_back({{"path", "p"},
                     {"interface", Interface(route)},
                     {"version", "1.0.0"},
                     {"method", Method(route)},
                     {"group", "g"}});
  }
  std::vector<Metadata> messages;
  for (const Pairs& text : texts) messages.push_back(MetadataOf(table, text));
  const ConnectionMetadata connection;

  constexpr size_t kLookups = 20000;
  size_t found = 0;
  const double ns = LeastCpuNs(kSanitized ? 5 : 15, [&] {
    found = 0;
    for (size_t i = 0; i < kLookups; ++i) {
      found +=
          table.routes->Match({messages[i % messages.size()], connection}).route != nullptr ? 1 : 0;
    }
  });
  EXPECT_EQ(found, kLookups);
  return ns / kLookups;
}

TEST(RouteTableScale, LookupAmongTenThousandExactRoutesCostsWhatItCostsAmongTen) {
  const double few = LookupNs(10);
  const double many = LookupNs(10000);
  RecordProperty("lookup_ns_10", std::to_string(few));
  RecordProperty("lookup_ns_10000", std::to_string(many));
  EXPECT_LT(many, 3 * few) << few << " ns among 10, " << many << " ns among 10,000";
}

TEST(RouteTableScale, BuildingTenThousandRoutesCostsAboutTenTimesBuildingAThousand) {
  const double few = BuildNs(1000);
  const double many = BuildNs(10000);
  EXPECT_LT(many, 40 * few) << few / 1e6 << " ms for 1,000, " << many / 1e6 << " ms for 10,000";
}

TEST(RouteTableScale, EachOfTenThousandRoutesIsFound) {
  const auto table = TableOf(ExactRules(10000));
  for (size_t i = 0; i < 10000; ++i) {
    ASSERT_EQ(Matched(table, {{"method", Method(i)}, {"interface", Interface(i)}}),
              static_cast<int>(i));
  }
}

TEST(RouteTableScale, EachOfAThousandRoutesThatDifferInPrefixesOnlyIsFound) {
  std::vector<std::vector<Condition>> rules;
  for (int i = 0; i < 1000; ++i) {
    rules.push_back({Where("k", Condition::Kind::kPrefix, {"p" + std::to_string(i) + "."})});
  }
  const auto table = TableOf(RulesOf(std::move(rules)));
  for (int i = 0; i < 1000; ++i) {
    ASSERT_EQ(Matched(table, {{"k", "p" + std::to_string(i) + ".x"}}), i);
  }
}

}  // namespace
}  // namespace metaprotocol::test
