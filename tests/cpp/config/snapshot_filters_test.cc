// Which filters a configuration has, of which route, and what they keep when it changes.
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <string_view>

#include "src/config/snapshot.h"
#include "src/filter/global_rate_limit/global_rate_limit.h"
#include "src/filter/local_rate_limit/local_rate_limit.h"
#include "tests/cpp/config/config_test_util.h"

namespace metaprotocol::test {
namespace {

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

}  // namespace
}  // namespace metaprotocol::test
