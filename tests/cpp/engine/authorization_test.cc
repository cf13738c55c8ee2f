// Authorization. The laws: a denial beats any permission; if anything is permitted, what is not is
// denied; what cannot be told is denied; what is only counted passes.
#include <algorithm>
#include <array>
#include <random>
#include <string>
#include <vector>

#include "tests/cpp/config/config_test_util.h"
#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {
namespace {

json Policy(const std::string& action, const std::vector<json>& rules) {
  json policy = {{"name", "p"}, {"action", action}, {"rules", json::array()}};
  for (const json& match : rules) policy["rules"].push_back({{"match", match}});
  return policy;
}
json Is(const std::string& key, const std::string& value) {
  return {{"key", key}, {"exact", value}};
}

json Config(const std::vector<json>& policies) {
  json config = MinimalConfig();
  config["route_tables"][0]["authorization"] = {{"policies", policies}};
  return config;
}

// 'R': passed, 'E': denied.
std::string Answer(const std::vector<json>& policies, const FakeKv& kv, ConnectionInfo info = {}) {
  World world(LoadValid(Config(policies)));
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect(std::move(info));
  client.Send(world.Request(1, "", kv));
  world.RunFor(kSecond);
  const std::string kinds = Kinds(client.Take());
  EXPECT_EQ(world.Count(Counter::kAuthorizationDenied), kinds == "E" ? 1u : 0u);
  EXPECT_EQ(world.Count(LocalReply::kDenied), kinds == "E" ? 1u : 0u);
  EXPECT_EQ(world.Seen().size(), kinds == "R" ? 1u : 0u);
  return kinds;
}

TEST(Authorization, DenialBeatsAnyPermission) {
  const std::vector<json> policies = {Policy("ALLOW", {json::array({Is("who", "ann")})}),
                                      Policy("DENY", {json::array({Is("what", "delete")})})};
  EXPECT_EQ(Answer(policies, {{"who", "ann"}, {"what", "read"}}), "R");
  EXPECT_EQ(Answer(policies, {{"who", "ann"}, {"what", "delete"}}), "E");
  EXPECT_EQ(Answer(policies, {{"who", "bob"}, {"what", "read"}}), "E");
  EXPECT_EQ(Answer(policies, {}), "E");
}

TEST(Authorization, WithoutPermissionsWhatIsNotDeniedPasses) {
  const std::vector<json> policies = {Policy("DENY", {json::array({Is("what", "delete")})})};
  EXPECT_EQ(Answer(policies, {{"what", "read"}}), "R");
  EXPECT_EQ(Answer(policies, {}), "R");
  EXPECT_EQ(Answer(policies, {{"what", "delete"}}), "E");
}

TEST(Authorization, PolicyWithoutRulesIsMetByNobodyAndOneWithAnEmptyRuleByAll) {
  EXPECT_EQ(Answer({Policy("ALLOW", {})}, {}), "E");
  EXPECT_EQ(Answer({Policy("DENY", {})}, {}), "R");
  EXPECT_EQ(Answer({Policy("ALLOW", {json::array()})}, {}), "R");
  EXPECT_EQ(Answer({Policy("DENY", {json::array()})}, {}), "E");
  EXPECT_EQ(Answer({}, {}), "R");
}

TEST(Authorization, ConditionsOfARuleHoldTogetherAndRulesByThemselves) {
  const std::vector<json> policies = {Policy(
      "ALLOW",
      {json::array({Is("who", "ann"), Is("what", "read")}), json::array({Is("who", "root")})})};
  EXPECT_EQ(Answer(policies, {{"who", "ann"}, {"what", "read"}}), "R");
  EXPECT_EQ(Answer(policies, {{"who", "ann"}}), "E");
  EXPECT_EQ(Answer(policies, {{"who", "root"}}), "R");
}

TEST(Authorization, WhatCannotBeToldIsDenied) {
  const std::string padded = std::string(5000, 'x') + "delete";
  const json finds = {{"key", "what"}, {"regex", ".*delete.*"}};
  EXPECT_EQ(Answer({Policy("DENY", {json::array({finds})})}, {{"what", padded}}), "E");
  EXPECT_EQ(Answer({Policy("ALLOW", {json::array({finds})})}, {{"what", padded}}), "E");
  json other = finds;
  other["invert"] = true;
  EXPECT_EQ(Answer({Policy("ALLOW", {json::array({other})})}, {{"what", padded}}), "E");
}

TEST(Authorization, GoesByTheAddressOfTheClient) {
  const json ranges = {{"key", "connection.source_address"},
                       {"ip_in", {{"values", {"10.0.0.0/8", "fd00::/8"}}}}};
  const std::vector<json> policies = {Policy("ALLOW", {json::array({ranges})})};
  const auto from = [&](const std::string& address) {
    ConnectionInfo info;
    info.remote_address = address;
    return Answer(policies, {}, info);
  };
  EXPECT_EQ(from("10.255.0.1"), "R");
  EXPECT_EQ(from("::ffff:10.0.0.1"), "R");
  EXPECT_EQ(from("11.0.0.1"), "E");
  EXPECT_EQ(from("fd12::1"), "R");
  EXPECT_EQ(from("fe80::1"), "E");
}

TEST(Authorization, GoesByWhoTheClientIs) {
  const json is_web = {{"key", "connection.peer_uri_san"},
                       {"exact", "spiffe://cluster.local/ns/shop/sa/web"}};
  const std::vector<json> policies = {Policy("ALLOW", {json::array({is_web})})};
  ConnectionInfo info;
  EXPECT_EQ(Answer(policies, {}, info), "E") << "nobody";
  info.peer_uri_sans = {"spiffe://other", "spiffe://cluster.local/ns/shop/sa/web"};
  EXPECT_EQ(Answer(policies, {}, info), "R");
}

TEST(Authorization, WhatIsOnlyCountedPasses) {
  World world(LoadValid(Config({Policy("AUDIT", {json::array({Is("what", "read")})})})));
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  client.Send(world.Request(1, "", {{"what", "read"}}) + world.Request(2));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(client.Take()), "RR");
  EXPECT_EQ(world.Count(Counter::kAuthorizationAudited), 1u);
}

TEST(Authorization, MessagesWithoutReplyAreDroppedIfDenied) {
  World world(LoadValid(Config({Policy("DENY", {json::array()})})));
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  client.Send(world.OneWay(1));
  world.RunFor(kSecond);
  EXPECT_TRUE(world.Seen().empty());
  EXPECT_EQ(world.Count(Counter::kAuthorizationDenied), 1u);
}

TEST(Authorization, OfARouteStandsInPlaceOfTheTables) {
  json config = Config({Policy("DENY", {json::array()})});
  config["route_tables"][0]["routes"] = {
      {{"cluster", "a"},
       {"match", {Is("what", "health")}},
       {"filters", {{{"name", "authorization"}, {"disabled", true}}}}},
      {{"cluster", "a"}}};
  World world(LoadValid(config));
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  client.Send(world.Request(1, "", {{"what", "health"}}) + world.Request(2));
  world.RunFor(kSecond);
  EXPECT_EQ(world.Seen().size(), 1u);
}

TEST(Authorization, WhatIsWrongIsToldWithItsPlace) {
  EXPECT_EQ(ErrorsOf(Config({Policy("DENY", {json::array({{{"key", "k"}, {"regex", "("}}})})})),
            "route_tables[0].authorization.policies[0].rules[0].match[0].regex: \"(\": is not a "
            "valid RE2 expression: missing ): (");
  EXPECT_EQ(
      ErrorsOf(Config({Policy(
          "ALLOW", {json::array({{{"key", "k"}, {"ip_in", {{"values", {"10.0.0.0/33"}}}}}})})})),
      "route_tables[0].authorization.policies[0].rules[0].match[0].ip_in.values[0]: "
      "\"10.0.0.0/33\": must be an IP address or a range of them, such as 10.0.0.0/8 or "
      "fd00::/8");
}

// Against the words of the law themselves.
TEST(Authorization, DecidesAsItsLawsSayForAnyPolicies) {
  std::mt19937 random(1);  // NOLINT(cert-msc51-cpp): the same policies each time
  const auto below = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
  for (int round = 0; round < 300; ++round) {
    std::vector<json> policies;
    for (uint32_t i = below(4); i != 0; --i) {
      std::vector<json> rules;
      for (uint32_t j = below(3); j != 0; --j) {
        json match = json::array();
        for (uint32_t k = below(3); k != 0; --k) {
          json condition =
              Is(std::string(1, static_cast<char>('a' + below(2))), std::to_string(below(3)));
          condition["invert"] = below(2) == 0;
          match.push_back(condition);
        }
        rules.push_back(match);
      }
      policies.push_back(Policy(std::array{"ALLOW", "DENY", "AUDIT"}.at(below(3)), rules));
    }
    const FakeKv request = {{"a", std::to_string(below(3))}, {"b", std::to_string(below(3))}};
    const auto meets = [&](const json& policy) {
      return std::any_of(policy["rules"].begin(), policy["rules"].end(), [&](const json& rule) {
        return std::all_of(rule["match"].begin(), rule["match"].end(), [&](const json& c) {
          const std::string& value = request[c["key"] == "a" ? 0 : 1].second;
          return (value == c["exact"]) != c["invert"].get<bool>();
        });
      });
    };
    bool denied = false;
    bool any_allow = false;
    bool allowed = false;
    for (const json& policy : policies) {
      if (policy["action"] == "DENY") denied |= meets(policy);
      if (policy["action"] != "ALLOW") continue;
      any_allow = true;
      allowed |= meets(policy);
    }
    const bool passes = !denied && (!any_allow || allowed);
    EXPECT_EQ(Answer(policies, request), passes ? "R" : "E") << json(policies).dump();
  }
}

}  // namespace
}  // namespace metaprotocol::test
