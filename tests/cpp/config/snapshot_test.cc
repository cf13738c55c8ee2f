// What a filter's configuration becomes, and which mistakes are found.
#include "src/config/snapshot.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "src/filter/global_rate_limit/global_rate_limit.h"
#include "src/filter/local_rate_limit/local_rate_limit.h"
#include "tests/cpp/config/config_test_util.h"
#include "tests/cpp/support/cpu_time.h"
#include "tests/cpp/support/sanitized.h"

namespace metaprotocol::test {
namespace {

std::string WarningsOf(const json& config) { return FormatErrors(Load(config).warnings); }

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

TEST(Snapshot, TakesEveryFieldOfTheFilter) {
  json config = MinimalConfig();
  config["limits"] = json::parse(R"({
    "max_message_bytes": 1000, "stream_message_bytes": 2000, "max_requests_in_flight": 3,
    "max_bytes_in_flight": 4000, "max_unread_reply_bytes": 5000, "max_sessions_per_worker": 6,
    "idle_timeout": "7s", "slow_client_timeout": "0s", "message_timeout": "0.5s"})");
  config["default_timeout"] = "2.5s";
  config["listener_name"] = "0.0.0.0_20880";
  const auto snapshot = LoadValid(config);
  EXPECT_EQ(snapshot->name, "test");
  EXPECT_EQ(snapshot->listener_name, "0.0.0.0_20880");
  EXPECT_EQ(snapshot->codec->traits().name, "fake_multiplexed");
  EXPECT_EQ(snapshot->limits.max_message_bytes, 1000u);
  EXPECT_EQ(snapshot->limits.stream_message_bytes, 2000u);
  EXPECT_EQ(snapshot->limits.max_requests_in_flight, 3u);
  EXPECT_EQ(snapshot->limits.max_bytes_in_flight, 4000u);
  EXPECT_EQ(snapshot->limits.max_unread_reply_bytes, 5000u);
  EXPECT_EQ(snapshot->limits.max_sessions_per_worker, 6u);
  EXPECT_EQ(snapshot->limits.idle_timeout_us, 7000000u);
  EXPECT_EQ(snapshot->limits.slow_client_timeout_us, 0u);
  EXPECT_EQ(snapshot->limits.message_timeout_us, 500000u);
  EXPECT_EQ(snapshot->default_timeout_us, 2500000u);
}

json ConfigWithLimit(const char* limit) {
  json config = MinimalConfig();
  config["route_tables"][0]["local_rate_limit"] = json::parse(limit);
  return config;
}

// The only filter of the first table.
template <typename T>
const T& FilterOf(const Snapshot& snapshot) {
  EXPECT_EQ(snapshot.tables[0].filters.size(), 1u);
  return dynamic_cast<const T&>(*snapshot.tables[0].filters.at(0).filter);
}

// Of the messages, by the names that the configuration gives them.
std::set<std::string_view> WantedKeys(const Snapshot& snapshot) {
  std::set<std::string_view> names;
  for (uint32_t slot = 0; slot < snapshot.request_keys.size(); ++slot) {
    if (snapshot.request_keys.wants(slot)) names.insert(snapshot.request_keys.name(slot));
  }
  return names;
}

// How many of ten requests with that metadata pass, at once.
int Passing(const Snapshot& snapshot, const std::string& key, const std::string& value) {
  Metadata message;
  message.Clear(&snapshot.request_keys);
  message.Set(key, value);
  int passed = 0;
  for (int i = 0; i < 10; ++i) {
    passed += FilterOf<LocalRateLimit>(snapshot).Admit({message, ConnectionMetadata{}}, 1000).passes
                  ? 1
                  : 0;
  }
  return passed;
}

TEST(Snapshot, TakesALocalRateLimit) {
  const auto snapshot = LoadValid(ConfigWithLimit(R"({
    "token_bucket": {"max_tokens": 5, "tokens_per_fill": 2, "fill_interval": "0.001s"},
    "rules": [{"match": [{"key": "method", "prefix": "put"}],
               "token_bucket": {"max_tokens": 3, "fill_interval": "60s"}}]})"));
  EXPECT_EQ(Passing(*snapshot, "method", "get"), 5);
  EXPECT_EQ(Passing(*snapshot, "method", "put-it"), 3);
  EXPECT_EQ(snapshot->tables[0].filters[0].name, "local_rate_limit");
  EXPECT_EQ(WantedKeys(*snapshot), std::set<std::string_view>{"method"});
  // A bucket that cannot be told lets nothing pass.
  const auto searched = LoadValid(ConfigWithLimit(R"({
    "rules": [{"match": [{"key": "method", "contains": "put"}],
               "token_bucket": {"max_tokens": 3, "fill_interval": "60s"}}]})"));
  EXPECT_EQ(Passing(*searched, "method", "get"), 10);
  EXPECT_EQ(Passing(*searched, "method", std::string(5000, 'x')), 0);
  EXPECT_TRUE(LoadValid(MinimalConfig())->tables[0].filters.empty());
}

TEST(Snapshot, RefusesLocalRateLimitsThatCannotBe) {
  const auto error = [](const char* limit) { return ErrorsOf(ConfigWithLimit(limit)); };
  const std::string place = "route_tables[0].local_rate_limit";
  EXPECT_EQ(error("{}").rfind(place + ": needs token_bucket, rules, or both", 0), 0u);
  EXPECT_EQ(error(R"({"token_bucket": {"fill_interval": "1s"}})")
                .rfind(place + ".token_bucket.max_tokens", 0),
            0u);
  EXPECT_EQ(error(R"({"token_bucket": {"max_tokens": 0, "fill_interval": "1s"}})")
                .rfind(place + ".token_bucket.max_tokens: 0", 0),
            0u);
  EXPECT_EQ(error(R"({"token_bucket": {"max_tokens": 1, "fill_interval": "0s"}})")
                .rfind(place + ".token_bucket.fill_interval", 0),
            0u);
  EXPECT_EQ(error(R"({"token_bucket": {"max_tokens": 1, "tokens_per_fill": 0,
                                       "fill_interval": "1s"}})")
                .rfind(place + ".token_bucket.tokens_per_fill", 0),
            0u);
  EXPECT_EQ(error(R"({"rules": [{"match": []}]})").rfind(place + ".rules[0].token_bucket", 0), 0u);
  EXPECT_EQ(error(R"({"rules": [{"match": [{"key": "a", "regex": "("}],
                                 "token_bucket": {"max_tokens": 1, "fill_interval": "1s"}}]})")
                .rfind(place + ".rules[0].match[0].regex: \"(\"", 0),
            0u);
  EXPECT_EQ(error(R"({"rules": [{"match": [{"key": "connection.color", "exact": "x"}],
                                 "token_bucket": {"max_tokens": 1, "fill_interval": "1s"}}]})")
                .rfind(place + ".rules[0].match[0].key", 0),
            0u);
}

TEST(Snapshot, SpansHaveAttributesOfTheirRequestAndOfTheProxy) {
  json config = MinimalConfig();
  config["tracing"] = json::parse(R"({"cluster": "c", "attributes": [
      {"name": "lane", "key": "lane", "default_value": "base"},
      {"name": "took", "format": "%DURATION%"},
      {"name": "home", "environment": {"name": "HOME"}},
      {"name": "none", "environment": {"name": "NO_SUCH_VARIABLE", "default_value": "x"}}]})");
  const auto snapshot = LoadValid(config);
  const std::vector<Tracing::Attribute>& attributes = snapshot->telemetry.tracing->attributes;
  ASSERT_EQ(attributes.size(), 4u);
  EXPECT_TRUE(attributes[0].place);
  EXPECT_EQ(attributes[0].value, "base");
  EXPECT_TRUE(attributes[1].format);
  EXPECT_EQ(attributes[2].value, std::getenv("HOME") != nullptr ? std::getenv("HOME") : "");
  EXPECT_EQ(attributes[3].value, "x");
  config["tracing"]["attributes"] = json::parse(R"([{"name": "a", "format": "%COLOUR%"},
      {"name": "b", "value": "x", "default_value": "y"}])");
  const std::string errors = ErrorsOf(config);
  EXPECT_NE(errors.find("tracing.attributes[0].format: "), std::string::npos) << errors;
  EXPECT_NE(errors.find("tracing.attributes[1].default_value: "), std::string::npos) << errors;
}

TEST(Snapshot, TakesAGlobalRateLimit) {
  json config = MinimalConfig();
  config["route_tables"][0]["global_rate_limit"] = json::parse(R"({
    "match": [{"key": "method", "exact": "put"}], "domain": "prod", "cluster": "limiter",
    "timeout": "0.050s", "deny_on_fail": true,
    "descriptors": [{"key": "user", "descriptor_key": "u"},
                    {"key": "connection.source_address", "descriptor_key": "from"}]})");
  const auto snapshot = LoadValid(config);
  const GlobalRateLimit& limit = FilterOf<GlobalRateLimit>(*snapshot);
  EXPECT_EQ(limit.domain, "prod");
  EXPECT_EQ(limit.cluster, "limiter");
  EXPECT_EQ(limit.timeout_us, 50000u);
  EXPECT_TRUE(limit.deny_on_fail);
  Metadata message;
  message.Clear(&snapshot->request_keys);
  message.Set("user", "me");
  const ConnectionMetadata connection;
  EXPECT_EQ(limit.Question({message, connection}), "") << "the method is another";
  message.Set("method", "put");
  EXPECT_NE(limit.Question({message, connection}).find("\x0a\x01u\x12\x02me"), std::string::npos);
  EXPECT_EQ(WantedKeys(*snapshot), (std::set<std::string_view>{"method", "user"}));
}

TEST(Snapshot, RefusesGlobalRateLimitsThatCannotBe) {
  const json good = json::parse(R"({"domain": "d", "cluster": "c",
                                    "descriptors": [{"key": "k", "descriptor_key": "u"}]})");
  const auto error = [&](const char* field, json value) {
    json config = MinimalConfig();
    json limit = good;
    limit[field] = std::move(value);
    config["route_tables"][0]["global_rate_limit"] = std::move(limit);
    const std::string errors = ErrorsOf(config);
    const std::string place = "route_tables[0].global_rate_limit." + std::string(field);
    return errors.rfind(place, 0) == 0 ? errors.substr(place.size()) : "elsewhere: " + errors;
  };
  for (const auto& [field, value] : std::vector<std::pair<const char*, json>>{
           {"domain", ""}, {"cluster", "two words"}, {"timeout", "0s"}, {"timeout", "61s"}}) {
    EXPECT_EQ(error(field, value).front(), ':') << field;
  }
  EXPECT_EQ(error("match", json::parse(R"([{"key": "a", "regex": "("}])")).rfind("[0].regex", 0),
            0u);
  EXPECT_EQ(error("descriptors", json::parse(R"([{"key": "connection.color",
                                                  "descriptor_key": "u"}])"))
                .rfind("[0].key", 0),
            0u);
  const auto whole = [&](const char* text) {
    json config = MinimalConfig();
    config["route_tables"][0]["global_rate_limit"] = json::parse(text);
    return ErrorsOf(config);
  };
  const std::string place = "route_tables[0].global_rate_limit";
  EXPECT_EQ(whole(R"({"domain": "d", "cluster": "c"})"),
            place + ": needs descriptors, rules, or both");
  EXPECT_EQ(error("rules", json::parse(R"([{"descriptors": []}])")).rfind("[0].descriptors: ", 0),
            0u);
  EXPECT_EQ(error("rules", json::parse(R"([{"match": [{"key": "a", "regex": "("}], "descriptors":
                                            [{"value": "v", "descriptor_key": "u"}]}])"))
                .rfind("[0].match[0].regex: ", 0),
            0u);
  EXPECT_EQ(error("rules", json::parse(R"([{"descriptors": [{"value": "v", "descriptor_key": "u",
                       "also": [{"key": "connection.color", "descriptor_key": "c"}]}]}])"))
                .rfind("[0].descriptors[0].also[0].key: ", 0),
            0u);
  json many = json::array();
  for (int i = 0; i < 8; ++i) {
    json descriptors = json::array();
    for (int j = 0; j < 16; ++j) descriptors.push_back({{"value", "v"}, {"descriptor_key", "u"}});
    many.push_back({{"descriptors", descriptors}});
  }
  EXPECT_EQ(
      error("rules", many),
      "elsewhere: " + place + ": 129: entries of descriptors are too many, at most 128 may be");
}

TEST(Snapshot, GoesOnWithTheBucketsOfTheTableOfTheSameName) {
  json config = ConfigWithLimit(R"({"token_bucket": {"max_tokens": 5, "fill_interval": "60s"}})");
  const auto before = LoadValid(config);
  EXPECT_EQ(Passing(*before, "a", "b"), 5);
  const auto same = LoadValid(config);
  same->ContinueWith(*before);
  EXPECT_EQ(Passing(*same, "a", "b"), 0);
  config["route_tables"][0]["name"] = "another";
  const auto renamed = LoadValid(config);
  renamed->ContinueWith(*before);
  EXPECT_EQ(Passing(*renamed, "a", "b"), 5);
  config["route_tables"][0]["name"] = "main";
  config["route_tables"][0]["local_rate_limit"]["token_bucket"]["fill_interval"] = "61s";
  const auto changed = LoadValid(config);
  changed->ContinueWith(*before);
  EXPECT_EQ(Passing(*changed, "a", "b"), 5);
}

constexpr const char* kOnceAMinute =
    R"({"token_bucket": {"max_tokens": 1, "fill_interval": "60s"}})";

json ConfigWithFilters() {
  json config = ConfigWithLimit(kOnceAMinute);
  json& table = config["route_tables"][0];
  table["filters"] =
      json::array({{{"name", "second"}, {"local_rate_limit", json::parse(kOnceAMinute)}},
                   {{"name", "third"}, {"local_rate_limit", json::parse(kOnceAMinute)}}});
  table["routes"] = json::parse(R"([
      {"name": "all", "match": [{"key": "k", "exact": "all"}], "cluster": "a"},
      {"name": "some", "match": [{"key": "k", "exact": "some"}], "cluster": "a",
       "filters": [{"name": "second", "disabled": true},
                   {"name": "local_rate_limit", "local_rate_limit":
                       {"token_bucket": {"max_tokens": 9, "fill_interval": "60s"}}}]},
      {"name": "answered", "direct_reply": {"kind": "denied"}}])");
  return config;
}

TEST(Snapshot, FiltersComeInOrderAndRoutesMayHaveThemOtherwise) {
  const auto snapshot = LoadValid(ConfigWithFilters());
  const auto& filters = snapshot->tables[0].filters;
  ASSERT_EQ(filters.size(), 3u);
  EXPECT_EQ(filters[0].name, "local_rate_limit");
  EXPECT_EQ(filters[1].name, "second");
  EXPECT_EQ(filters[2].name, "third");
  const FilterChain& all = snapshot->ChainOf(RouteOf(*snapshot, 0));
  ASSERT_EQ(all.size(), 3u);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(&all.at(i), filters[i].filter.get());
  const FilterChain& some = snapshot->ChainOf(RouteOf(*snapshot, 1));
  ASSERT_EQ(some.size(), 2u);
  EXPECT_NE(&some.at(0), filters[0].filter.get());
  EXPECT_EQ(&some.at(1), filters[2].filter.get());
  const FilterChain& answered = snapshot->ChainOf(RouteOf(*snapshot, 2));
  ASSERT_EQ(answered.size(), 4u);
  EXPECT_EQ(answered.at(3).name(), "direct_reply");
}

TEST(Snapshot, FiltersOfOneRouteGoOnWithTheirBucketsToo) {
  const auto before = LoadValid(ConfigWithFilters());
  const auto take = [](const Snapshot& snapshot) {
    const Metadata message;
    const auto& filter =
        dynamic_cast<const LocalRateLimit&>(snapshot.ChainOf(RouteOf(snapshot, 1)).at(0));
    int passed = 0;
    for (int i = 0; i < 20; ++i) {
      passed += filter.Admit({message, ConnectionMetadata{}}, 1).passes ? 1 : 0;
    }
    return passed;
  };
  EXPECT_EQ(take(*before), 9);
  const auto after = LoadValid(ConfigWithFilters());
  after->ContinueWith(*before);
  EXPECT_EQ(take(*after), 0);
}

TEST(Snapshot, RefusesFiltersThatCannotBe) {
  const auto error = [](auto&& change) {
    json config = ConfigWithFilters();
    change(config["route_tables"][0]);
    return ErrorsOf(config);
  };
  EXPECT_EQ(error([](json& table) { table["filters"][1]["name"] = "second"; }),
            "route_tables[0].filters[1].name: \"second\": is the name of another filter of the "
            "table; names must be unique");
  EXPECT_EQ(error([](json& table) { table["routes"][1]["filters"][0]["name"] = "other"; }),
            "route_tables[0].routes[1].filters[0].name: \"other\": is no filter of the table");
  EXPECT_EQ(error([](json& table) { table["routes"][1]["filters"][0]["disabled"] = false; }),
            "route_tables[0].routes[1].filters[0].disabled: false: must be true, or not be "
            "there");
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

TEST(Snapshot, UpstreamConnectionsFollowTheCodecUnlessSaid) {
  const std::tuple<const char*, const char*, UpstreamMode> cases[] = {
      {"fake_multiplexed", "AUTOMATIC", UpstreamMode::kShared},
      {"fake_pipelined_ids", "AUTOMATIC", UpstreamMode::kExclusive},
      {"fake_exclusive", "AUTOMATIC", UpstreamMode::kExclusive},
      {"fake_stateful", "AUTOMATIC", UpstreamMode::kPerSession},
      {"fake_multiplexed", "EXCLUSIVE", UpstreamMode::kExclusive},
      {"fake_multiplexed", "PER_SESSION", UpstreamMode::kPerSession},
      {"fake_pipelined_ids", "SHARED", UpstreamMode::kShared}};
  for (const auto& [codec, wanted, mode] : cases) {
    json config = MinimalConfig();
    config["protocol"] = {{"codec", codec}, {"upstream_connections", wanted}};
    EXPECT_EQ(LoadValid(config)->upstream_mode, mode) << codec << " " << wanted;
  }
}

TEST(Snapshot, CodecsWithoutIdsCannotShareConnections) {
  json config = MinimalConfig();
  config["protocol"] = {{"codec", "fake_exclusive"}, {"upstream_connections", "SHARED"}};
  EXPECT_EQ(ErrorsOf(config),
            "protocol.upstream_connections: \"SHARED\": messages of fake_exclusive have no "
            "correlation id to tell clients apart; allowed are AUTOMATIC, EXCLUSIVE, PER_SESSION");
}

TEST(Snapshot, WarnsOfPassingStatefulConnectionsOn) {
  json config = MinimalConfig();
  config["protocol"] = {{"codec", "fake_stateful"}, {"upstream_connections", "EXCLUSIVE"}};
  EXPECT_EQ(WarningsOf(config),
            "protocol.upstream_connections: \"EXCLUSIVE\": connections of fake_stateful remember "
            "their client (login, transaction), and another client will use them");
}

TEST(Snapshot, ListsTheCodecsThereAre) {
  json config = MinimalConfig();
  config["protocol"]["codec"] = "dubo";
  EXPECT_EQ(ErrorsOf(config),
            "protocol.codec: \"dubo\": is not a codec of this build; it has fake_exclusive, "
            "fake_multiplexed, fake_pipelined, fake_pipelined_ids, fake_stateful");
}

TEST(Snapshot, HandsTheCodecItsOptionsAsJson) {
  CodecRegistry codecs;
  std::string seen;
  codecs.Register("picky", [&seen](std::string_view options) {
    seen = options;
    if (options.find("wrong") != std::string_view::npos) {
      return CodecOrError{nullptr, "has a wrong option"};
    }
    return CodecOrError{std::make_shared<FakeCodec>(), ""};
  });
  json config = MinimalConfig();
  config["protocol"] = {{"codec", "picky"}};
  EXPECT_NE(LoadSnapshot(config.dump(), codecs).snapshot, nullptr);
  EXPECT_EQ(seen, "");
  config["protocol"]["options"] = json::parse(R"({"a": [1, 2.5, "x"], "b": {"c": null}})");
  EXPECT_NE(LoadSnapshot(config.dump(), codecs).snapshot, nullptr);
  EXPECT_EQ(json::parse(seen), config["protocol"]["options"]);
  config["protocol"]["options"] = {{"wrong", 1}};
  EXPECT_EQ(FormatErrors(LoadSnapshot(config.dump(), codecs).errors),
            "protocol.options: {\"wrong\":1}: has a wrong option");
}

TEST(Snapshot, KeyOfTheCodecTellsItsNameAndOptionsButNotTheirOrder) {
  CodecRegistry codecs;
  for (const char* name : {"one", "two"}) {
    codecs.Register(name, [](std::string_view) {
      return CodecOrError{std::make_shared<FakeCodec>(), ""};
    });
  }
  const auto key = [&](const std::string& codec, const std::string& options) {
    const std::string text = R"({"name": "test", "route_tables": [{"name": "main"}],)"
                             R"("protocol": {"codec": ")" +
                             codec + '"' + (options.empty() ? "" : ",\"options\":" + options) +
                             "}}";
    const SnapshotOrErrors loaded = LoadSnapshot(text, codecs);
    EXPECT_EQ(FormatErrors(loaded.errors), "");
    return loaded.snapshot == nullptr ? "" : loaded.snapshot->codec_key;
  };
  EXPECT_NE(key("one", ""), key("two", ""));
  EXPECT_EQ(key("one", ""), key("one", "{}"));
  EXPECT_NE(key("one", ""), key("one", R"({"a":true})"));
  EXPECT_NE(key("one", R"({"a":false})"), key("one", R"({"a":true})"));
  EXPECT_EQ(key("one", R"({"a":1,"b":{"c":2,"d":3}})"), key("one", R"({"b":{"d":3,"c":2},"a":1})"));
}

TEST(Snapshot, AsksTheCodecForTheKeysOfAllTables) {
  json config = ConfigWithRoutes({{{"cluster", "a"}, {"match", {{{"key", "k"}, {"exact", "x"}}}}}});
  EXPECT_TRUE(LoadValid(config)->request_interest.head_suffices);
  config["route_tables"].push_back(json::parse(
      R"({"name": "second", "destinations": ["*:1"],
          "routes": [{"cluster": "a", "hash_on": ["body"]}]})"));
  EXPECT_FALSE(LoadValid(config)->request_interest.head_suffices);
}

TEST(Snapshot, ConnectionsUseTheTableThatNamesTheirAddressBest) {
  json config = MinimalConfig();
  const auto add = [&config](const char* name, std::vector<std::string> destinations) {
    config["route_tables"].push_back(
        {{"name", name}, {"destinations", destinations}, {"routes", json::array()}});
  };
  add("port", {"*:80"});
  add("address", {"10.0.0.1:*", "[FD00::0001]:*"});
  add("both", {"10.0.0.1:80"});
  const auto snapshot = LoadValid(config);
  EXPECT_EQ(snapshot->TableFor("10.0.0.2", 81).routes->name(), "main");
  EXPECT_EQ(snapshot->TableFor("10.0.0.2", 80).routes->name(), "port");
  EXPECT_EQ(snapshot->TableFor("10.0.0.1", 81).routes->name(), "address");
  EXPECT_EQ(snapshot->TableFor("fd00::1", 80).routes->name(), "address");
  EXPECT_EQ(snapshot->TableFor("10.0.0.1", 80).routes->name(), "both");
  EXPECT_EQ(snapshot->TableFor("", 0).routes->name(), "main");
}

TEST(Snapshot, RefusesBadAndDoubledDestinations) {
  json config = MinimalConfig();
  config["route_tables"][0]["destinations"] = {"10.0.0.1:80", "host:80"};
  config["route_tables"].push_back(
      {{"name", "second"}, {"destinations", {"10.0.0.1:080"}}, {"routes", json::array()}});
  EXPECT_EQ(
      ErrorsOf(config),
      "route_tables[0].destinations[1]: \"host:80\": must be an IP address or *, a colon, and a "
      "port or *, such as 10.0.0.1:20880, [fd00::1]:20880, 10.0.0.1:* or *:20880\n"
      "route_tables[1].destinations[0]: \"10.0.0.1:080\": is a destination of route_tables[0] "
      "already");
}

TEST(Snapshot, RefusesTheSameNameTwice) {
  json config = ConfigWithRoutes({{{"cluster", "a"}, {"name", "r"}},
                                  {{"cluster", "a"}, {"name", "main/2"}},
                                  {{"cluster", "a"}},
                                  {{"cluster", "a"}, {"name", "r"}}});
  config["route_tables"].push_back({{"name", "main"}, {"destinations", {"*:1"}}});
  EXPECT_EQ(
      ErrorsOf(config),
      "route_tables[0].routes[2].name: \"main/2\": is the name of routes[1] already; names must "
      "be unique within a table\n"
      "route_tables[0].routes[3].name: \"r\": is the name of routes[0] already; names must be "
      "unique within a table\n"
      "route_tables[1].name: \"main\": is the name of route_tables[0] already; names must be "
      "unique");
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

TEST(Snapshot, WarnsOfTablesAndFieldsWithoutEffect) {
  json config = ConfigWithRoutes(
      {{{"direct_reply", {{"kind", "fault"}}}, {"timeout", "1s"}, {"hash_on", {"k"}}}});
  config["route_tables"].push_back({{"name", "second"}});
  EXPECT_EQ(WarningsOf(config),
            "route_tables[0].routes[0].timeout: has no effect beside direct_reply\n"
            "route_tables[0].routes[0].hash_on: has no effect beside direct_reply\n"
            "route_tables[1]: has no destinations and is not the first: no connection uses it");
}

TEST(Snapshot, CollectsMistakesOfReadingAndOfMeaning) {
  json config = ConfigWithRoutes({{{"cluster", "a"}, {"tiemout", "1s"}},
                                  {{"cluster", "a"}, {"match", {{{"key", "k"}, {"regex", "["}}}}}});
  config["protocol"]["codec"] = "none";
  EXPECT_EQ(
      ErrorsOf(config),
      "route_tables[0].routes[0].tiemout: \"1s\": is not a field here; did you mean "
      "\"timeout\"?\n"
      "protocol.codec: \"none\": is not a codec of this build; it has fake_exclusive, "
      "fake_multiplexed, fake_pipelined, fake_pipelined_ids, fake_stateful\n"
      "route_tables[0].routes[1].match[0].regex: \"[\": is not a valid RE2 expression: missing "
      "]: [");
}

TEST(Snapshot, TextThatIsNotJsonIsOneError) {
  const auto loaded = Load(std::string("{\"name\": }"));
  EXPECT_EQ(loaded.snapshot, nullptr);
  ASSERT_EQ(loaded.errors.size(), 1u);
  EXPECT_EQ(loaded.errors[0].message.rfind("not JSON: line 1, column 10", 0), 0u)
      << loaded.errors[0].message;
}

double LoadNs(int routes) {
  json list = json::array();
  for (int i = 0; i < routes; ++i) {
    const std::string interface = "org.example.shop.Service" + std::to_string(i / 10);
    const std::string method = "method" + std::to_string(i % 10);
    list.push_back(
        {{"name", "route-" + std::to_string(i)},
         {"match",
          {{{"key", "interface"}, {"exact", interface}}, {{"key", "method"}, {"exact", method}}}},
         {"cluster", "outbound|20880|v1|shop.example.org"},
         {"timeout", "3s"}});
  }
  const std::string text = ConfigWithRoutes(list).dump();
  return LeastCpuNs(kSanitized ? 2 : 5, [&text] { EXPECT_NE(Load(text).snapshot, nullptr); });
}

TEST(Snapshot, LoadingTenThousandRoutesCostsAboutTenTimesLoadingAThousand) {
  const double few = LoadNs(1000);
  const double many = LoadNs(10000);
  RecordProperty("load_ms_10000", std::to_string(many / 1e6));
  EXPECT_LT(many, 40 * few) << few / 1e6 << " ms for 1,000, " << many / 1e6 << " ms for 10,000";
}

}  // namespace
}  // namespace metaprotocol::test
