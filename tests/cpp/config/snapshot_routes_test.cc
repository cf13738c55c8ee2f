// What a route of a configuration becomes: conditions, weights, retries, mirrors, direct replies.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "src/config/snapshot.h"
#include "tests/cpp/config/config_test_util.h"

namespace metaprotocol::test {
namespace {

// The only error of a configuration with this one route.
std::string RouteError(json route) {
  const std::string errors = ErrorsOf(ConfigWithRoutes(json::array({std::move(route)})));
  const std::string place = "route_tables[0].routes[0]";
  EXPECT_EQ(errors.rfind(place, 0), 0u) << errors;
  return errors.substr(std::min(errors.size(), place.size()));
}

std::string ConditionError(json condition) {
  const std::string error =
      RouteError({{"match", json::array({std::move(condition)})}, {"cluster", "a"}});
  const std::string place = ".match[0]";
  EXPECT_EQ(error.rfind(place, 0), 0u) << error;
  return error.substr(std::min(error.size(), place.size()));
}

int MatchedIndex(const Snapshot& snapshot, const std::string& key, const std::string& value) {
  Metadata message;
  message.Clear(&snapshot.request_keys);
  message.Set(key, value);
  const RouteMatch match = snapshot.tables[0].routes->Match({message, ConnectionMetadata{}});
  return match.route == nullptr ? -1 : static_cast<int>(match.route->index);
}

TEST(Snapshot, TakesMirrorsWithTheirShare) {
  const auto snapshot = LoadValid(ConfigWithRoutes(json::parse(R"([{
    "cluster": "c", "mirrors": [{"cluster": "all"}, {"cluster": "half", "percent": 50},
                                {"cluster": "few", "percent": 0.000001}]}])")));
  const std::vector<Route::Mirror>& mirrors = RouteOf(*snapshot, 0).mirrors;
  ASSERT_EQ(mirrors.size(), 3u);
  EXPECT_EQ(mirrors[0].cluster, "all");
  EXPECT_EQ(mirrors[0].chance, Route::kAlways);
  EXPECT_EQ(mirrors[1].chance, Route::kAlways / 2);
  EXPECT_EQ(mirrors[2].chance, 43u) << "never less than it says";
}

TEST(Snapshot, RefusesMirrorsThatCannotBe) {
  const auto error = [](const char* mirror) {
    return RouteError({{"cluster", "a"}, {"mirrors", json::array({json::parse(mirror)})}});
  };
  EXPECT_NE(error(R"({"cluster": "m", "percent": 0})").find(".mirrors[0].percent"),
            std::string::npos);
  EXPECT_NE(error(R"({"cluster": "m", "percent": 100.5})").find(".mirrors[0].percent"),
            std::string::npos);
  EXPECT_NE(error(R"({"cluster": "two words"})").find(".mirrors[0].cluster"), std::string::npos);
  EXPECT_NE(error(R"({"percent": 5})").find(".mirrors[0]"), std::string::npos);
  const std::string warnings = WarningsOf(ConfigWithRoutes(
      json::parse(R"([{"direct_reply": {"kind": "denied"}, "mirrors": [{"cluster": "m"}]}])")));
  EXPECT_NE(warnings.find("mirrors: has no effect beside direct_reply"), std::string::npos);
}

TEST(Snapshot, RetriesAreForWhatNobodyHasSeenUnlessTheirCausesAreNamed) {
  const auto snapshot = LoadValid(ConfigWithRoutes(json::parse(R"([
    {"cluster": "a", "match": [{"key": "k", "exact": "1"}]},
    {"cluster": "a", "match": [{"key": "k", "exact": "2"}], "retry": {}},
    {"cluster": "a", "retry": {"attempts": 7, "on": ["LOST", "ERROR"], "status_codes": [9, -1],
                               "per_try_timeout": "2s", "backoff": "3s", "max_backoff": "4s",
                               "reply_keys": ["again"]}}])")));
  EXPECT_EQ(RouteOf(*snapshot, 0).retry, nullptr);
  const RetryPolicy& bare = *RouteOf(*snapshot, 1).retry;
  EXPECT_EQ(bare.causes, RetryPolicy::kUnseen);
  EXPECT_EQ(bare.retries, 2u);
  EXPECT_EQ(bare.backoff_us, 25'000u);
  EXPECT_EQ(bare.max_backoff_us, 250'000u);
  const RetryPolicy& full = *RouteOf(*snapshot, 2).retry;
  EXPECT_EQ(full.retries, 7u);
  EXPECT_EQ(full.causes, RetryPolicy::kLost | RetryPolicy::kError);
  EXPECT_EQ(full.status_codes, (std::vector<int32_t>{-1, 9}));
  EXPECT_EQ(full.reply_keys, (std::vector<std::string>{"again"}));
  EXPECT_NE(snapshot->response_keys.Find("again"), MetadataKeys::kNone);
  EXPECT_EQ(full.per_try_timeout_us, 2'000'000u);
  EXPECT_EQ(full.backoff_us, 3'000'000u);
  EXPECT_EQ(full.max_backoff_us, 4'000'000u);
  EXPECT_NE(WarningsOf(ConfigWithRoutes(
                           json::parse(R"([{"cluster": "a", "retry": {"on": ["TIMEOUT"]}}])")))
                .find("has no effect without per_try_timeout"),
            std::string::npos);
}

TEST(Snapshot, FaultsNameTheirKindOfReply) {
  const auto error = [](const char* kind) {
    json config = MinimalConfig();
    config["route_tables"][0]["filters"] = {
        {{"name", "f"}, {"fault", {{"abort", {{"kind", kind}}}}}}};
    return ErrorsOf(config);
  };
  EXPECT_EQ(error("denied"), "");
  EXPECT_NE(error("dennied").find("filters[0].fault.abort.kind: \"dennied\": must be one of"),
            std::string::npos);
}

TEST(Snapshot, TakesEveryFieldOfARoute) {
  const auto snapshot = LoadValid(ConfigWithRoutes(json::parse(R"([{
    "name": "r", "cluster": "c", "timeout": "1.5s",
    "hash_on": ["user", "connection.source_address"],
    "request_mutation": [{"set": {"key": "a", "value": "1"}},
                         {"add_if_absent": {"key": "b", "value": "2"}}, {"remove": "c"}],
    "response_mutation": [{"remove": "d"}]}])")));
  const Route& route = RouteOf(*snapshot, 0);
  EXPECT_EQ(route.name, "r");
  ASSERT_EQ(route.clusters.size(), 1u);
  EXPECT_EQ(route.clusters[0].name, "c");
  EXPECT_TRUE(route.schedule.empty());
  EXPECT_FALSE(route.is_direct_reply);
  EXPECT_EQ(route.timeout_us, 1500000u);
  ASSERT_EQ(route.hash_keys.size(), 2u);
  EXPECT_EQ(route.hash_keys[0].name(), "user");
  EXPECT_EQ(route.hash_keys[1].name(), "connection.source_address");
  ASSERT_EQ(route.request_mutation.size(), 3u);
  EXPECT_EQ(route.request_mutation[0].kind, MutationOp::Kind::kSet);
  EXPECT_EQ(route.request_mutation[0].key, "a");
  EXPECT_EQ(route.request_mutation[0].value, "1");
  EXPECT_EQ(route.request_mutation[1].kind, MutationOp::Kind::kAddIfAbsent);
  EXPECT_EQ(route.request_mutation[1].key, "b");
  EXPECT_EQ(route.request_mutation[1].value, "2");
  EXPECT_EQ(route.request_mutation[2].kind, MutationOp::Kind::kRemove);
  EXPECT_EQ(route.request_mutation[2].key, "c");
  ASSERT_EQ(route.response_mutation.size(), 1u);
  EXPECT_EQ(route.response_mutation[0].key, "d");
}

TEST(Snapshot, UnderstandsEveryKindOfCondition) {
  const auto snapshot = LoadValid(ConfigWithRoutes(json::parse(R"([
    {"cluster": "a", "match": [{"key": "k", "exact": "exact"}]},
    {"cluster": "a", "match": [{"key": "k", "prefix": "pre"}]},
    {"cluster": "a", "match": [{"key": "k", "suffix": "suf"}]},
    {"cluster": "a", "match": [{"key": "k", "contains": "con"}]},
    {"cluster": "a", "match": [{"key": "k", "regex": "re+"}]},
    {"cluster": "a", "match": [{"key": "k", "range": {"start": "-3", "end": 3}}]},
    {"cluster": "a", "match": [{"key": "k", "one_of": {"values": ["one", "two", ""]}}]},
    {"cluster": "a", "match": [{"key": "k", "exact": "CASE", "ignore_case": true}]},
    {"cluster": "a", "match": [{"key": "k", "absent": true}]},
    {"cluster": "a", "match": [{"key": "k", "exact": "last", "invert": true}]},
    {"cluster": "a", "match": [{"key": "k", "present": true}]}])")));
  const std::vector<std::string> values = {"exact", "prefix", "xsuf", "xconx",
                                           "reee",  "-3",     "two",  "case"};
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(MatchedIndex(*snapshot, "k", values[i]), static_cast<int>(i)) << values[i];
  }
  EXPECT_EQ(MatchedIndex(*snapshot, "k", ""), 6);
  EXPECT_EQ(MatchedIndex(*snapshot, "other", "x"), 8);
  EXPECT_EQ(MatchedIndex(*snapshot, "k", "else"), 9);
  EXPECT_EQ(MatchedIndex(*snapshot, "k", "last"), 10);
}

TEST(Snapshot, RoutesWithoutTimeoutHaveTheDefault) {
  json config = ConfigWithRoutes({{{"cluster", "a"}}, {{"cluster", "a"}, {"timeout", "1s"}}});
  config["default_timeout"] = "3s";
  const auto snapshot = LoadValid(config);
  EXPECT_EQ(RouteOf(*snapshot, 0).timeout_us, 3000000u);
  EXPECT_EQ(RouteOf(*snapshot, 1).timeout_us, 1000000u);
}

TEST(Snapshot, RoutesWithoutNameAreNamedByTheirPlace) {
  const auto snapshot =
      LoadValid(ConfigWithRoutes({{{"cluster", "a"}, {"name", "first"}}, {{"cluster", "a"}}}));
  EXPECT_EQ(RouteOf(*snapshot, 0).name, "first");
  EXPECT_EQ(RouteOf(*snapshot, 1).name, "main/1");
}

TEST(Snapshot, NumbersRoutesOverAllTables) {
  json config = MinimalConfig();
  config["route_tables"].push_back(json::parse(
      R"({"name": "second", "destinations": ["*:1"],
          "routes": [{"cluster": "b"}, {"cluster": "c"}]})"));
  const auto snapshot = LoadValid(config);
  EXPECT_EQ(snapshot->route_count, 3u);
  EXPECT_EQ(RouteOf(*snapshot, 0, 0).index, 0u);
  EXPECT_EQ(RouteOf(*snapshot, 0, 1).index, 1u);
  EXPECT_EQ(RouteOf(*snapshot, 1, 1).index, 2u);
}

TEST(Snapshot, WeightedClustersTakeTurnsByWeight) {
  const auto snapshot = LoadValid(ConfigWithRoutes(json::parse(R"([{"weighted_clusters": [
      {"name": "a", "weight": 75}, {"name": "b", "weight": 25}]},
      {"weighted_clusters": [{"name": "a"}, {"name": "b"}, {"name": "off", "weight": 0}]},
      {"weighted_clusters": [{"name": "a", "weight": 30}]}])")));
  const Route& route = RouteOf(*snapshot, 0);
  ASSERT_EQ(route.clusters.size(), 2u);
  EXPECT_EQ(route.clusters[1].name, "b");
  EXPECT_EQ(route.clusters[1].weight, 25u);
  ASSERT_EQ(route.schedule.size(), 4u);
  EXPECT_EQ(std::count(route.schedule.begin(), route.schedule.end(), 1), 1);
  EXPECT_EQ(RouteOf(*snapshot, 1).schedule, (std::vector<uint16_t>{0, 1}));
  EXPECT_TRUE(RouteOf(*snapshot, 2).schedule.empty());
}

TEST(Snapshot, DirectRepliesNameTheirKind) {
  const auto snapshot = LoadValid(
      ConfigWithRoutes({{{"direct_reply", {{"kind", "denied"}, {"text", "not today"}}}}}));
  const Route& route = RouteOf(*snapshot, 0);
  EXPECT_TRUE(route.is_direct_reply);
  EXPECT_EQ(route.direct_reply, LocalReply::kDenied);
  EXPECT_EQ(route.direct_reply_text, "not today");
  EXPECT_EQ(
      RouteError({{"direct_reply", {{"kind", "teapot"}}}}),
      ".direct_reply.kind: \"teapot\": must be one of no_content, no_route, cluster_not_found, "
      "no_healthy_upstream, timeout, over_limit, denied, fault, upstream_lost, too_large, "
      "malformed, shutting_down, bad_response");
}

TEST(Snapshot, WantsExactlyOneAction) {
  EXPECT_EQ(RouteError({{"name", "r"}}), ": needs one of cluster, weighted_clusters, direct_reply");
  EXPECT_EQ(RouteError({{"cluster", "a"}, {"direct_reply", {{"kind", "fault"}}}}),
            ": only one may be given of cluster, weighted_clusters, direct_reply");
}

TEST(Snapshot, AWrongActionIsOneMistakeOnly) {
  EXPECT_EQ(RouteError({{"cluster", 5}}), ".cluster: 5: must be a string");
  EXPECT_EQ(RouteError({{"clutser", "a"}}),
            ".clutser: \"a\": is not a field here; did you mean \"cluster\"?");
}

TEST(Snapshot, RefusesNamesThatNoClusterCanHave) {
  EXPECT_EQ(RouteError({{"cluster", ""}}), ".cluster: \"\": must not be empty");
  EXPECT_EQ(RouteError({{"cluster", "a\r\nb"}}),
            ".cluster: \"a\\u000d\\nb\": must be printable ASCII without spaces");
  EXPECT_EQ(RouteError({{"weighted_clusters", {{{"weight", 1}}}}}),
            ".weighted_clusters[0].name: is required");
}

TEST(Snapshot, RefusesWeightsWithoutUsefulProportions) {
  EXPECT_EQ(RouteError({{"weighted_clusters", {{{"name", "a"}, {"weight", 0}}}}}),
            ".weighted_clusters: needs a weight above 0");
  EXPECT_EQ(
      RouteError({{"weighted_clusters",
                   {{{"name", "a"}, {"weight", 10000}}, {{"name", "b"}, {"weight", 1}}}}}),
      ".weighted_clusters: the sum of the weights divided by their greatest common divisor must "
      "be at most 10000, is 10001");
}

TEST(Snapshot, BoundsTheMemoryOfAllSchedules) {
  json routes = json::array();
  for (int i = 0; i < 1700; ++i) {
    routes.push_back({{"weighted_clusters",
                       {{{"name", "a"}, {"weight", 9999}}, {{"name", "b"}, {"weight", 1}}}}});
  }
  const auto errors = Load(ConfigWithRoutes(routes)).errors;
  ASSERT_FALSE(errors.empty());
  EXPECT_EQ(errors[0].path, "route_tables[0].routes[1677].weighted_clusters");
  EXPECT_EQ(
      errors[0].message,
      "weights of all routes, divided by their greatest common divisors, must add up to at most "
      "16777216; use rounder weights");
}

TEST(Snapshot, SaysWhatIsWrongWithARegex) {
  EXPECT_EQ(ConditionError({{"key", "k"}, {"regex", "("}}),
            ".regex: \"(\": is not a valid RE2 expression: missing ): (");
  EXPECT_EQ(ConditionError({{"key", "k"}, {"regex", "qa-[0-9"}}),
            ".regex: \"qa-[0-9\": is not a valid RE2 expression: missing ]: [0-9 (at byte 3)");
}

TEST(Snapshot, RefusesConditionsThatSayNothing) {
  EXPECT_EQ(ConditionError({{"key", "k"}, {"range", {{"start", 5}, {"end", 5}}}}),
            ".range.end: 5: must be above start, which is 5; end itself is not in the range");
  EXPECT_EQ(ConditionError({{"key", "k"}, {"range", {{"start", 5}}}}), ".range.end: is required");
  EXPECT_EQ(ConditionError({{"key", "k"}, {"present", false}}),
            ".present: false: must be true; the opposite is absent: true");
  EXPECT_EQ(ConditionError({{"key", "k"}, {"absent", false}}),
            ".absent: false: must be true; the opposite is present: true");
  EXPECT_EQ(ConditionError({{"key", "k"}, {"present", true}, {"ignore_case", true}}),
            ".ignore_case: true: is for conditions on text only");
  EXPECT_EQ(ConditionError({{"key", "k"}, {"one_of", json::object()}}),
            ".one_of.values: is required");
  EXPECT_EQ(ConditionError({{"key", ""}, {"exact", "x"}}), ".key: \"\": must not be empty");
}

TEST(Snapshot, KnowsTheKeysOfConnections) {
  EXPECT_EQ(
      ConditionError({{"key", "connection.snl"}, {"exact", "x"}}),
      ".key: \"connection.snl\": keys that begin with \"connection.\" must be one of "
      "connection.source_address, connection.destination_address, connection.destination_port, "
      "connection.sni, connection.peer_uri_san, connection.peer_dns_san, "
      "connection.peer_subject");
  const std::string error = RouteError({{"cluster", "a"}, {"hash_on", {"connection.nothing"}}});
  EXPECT_EQ(error.rfind(".hash_on[0]: \"connection.nothing\": keys that begin with", 0), 0u)
      << error;
}

TEST(Snapshot, RefusesEmptyHashAndMutationKeys) {
  EXPECT_EQ(RouteError({{"cluster", "a"}, {"hash_on", {""}}}),
            ".hash_on[0]: \"\": must not be empty");
  EXPECT_EQ(RouteError({{"cluster", "a"}, {"request_mutation", {{{"remove", ""}}}}}),
            ".request_mutation[0].remove: \"\": must not be empty");
  EXPECT_EQ(RouteError({{"cluster", "a"}, {"response_mutation", {{{"set", {{"value", "v"}}}}}}}),
            ".response_mutation[0].set.key: is required");
  EXPECT_EQ(RouteError({{"cluster", "a"}, {"request_mutation", {json::object()}}}),
            ".request_mutation[0]: {}: needs one of set, add_if_absent, remove");
}

TEST(Snapshot, WarnsOfRoutesThatAreNeverReached) {
  const json config = ConfigWithRoutes(
      {{{"cluster", "a"}, {"name", "all"}}, {{"cluster", "b"}}, {{"cluster", "c"}}});
  EXPECT_NE(Load(config).snapshot, nullptr);
  EXPECT_EQ(
      WarningsOf(config),
      "route_tables[0].routes[0]: has no conditions and takes every request; the 2 after it are "
      "never reached");
  EXPECT_EQ(WarningsOf(MinimalConfig()), "");
}

}  // namespace
}  // namespace metaprotocol::test
