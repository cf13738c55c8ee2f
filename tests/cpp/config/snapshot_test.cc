// What a filter's configuration becomes, and which mistakes are found.
#include "src/config/snapshot.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/cpp/config/config_test_util.h"
#include "tests/cpp/support/cpu_time.h"
#include "tests/cpp/support/sanitized.h"

namespace metaprotocol::test {
namespace {

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
