// How JSON is read into configuration structs: proto3-JSON's freedoms, and what each mistake is
// told.
#include <gtest/gtest.h>

#include <string>

#include "src/config/snapshot.h"
#include "tests/cpp/config/config_test_util.h"

namespace metaprotocol::test {
namespace {

// ClusterPolicy has a field of almost every kind and no required ones.
std::shared_ptr<const ClusterPolicy> ReadPolicy(const std::string& text) {
  auto loaded = LoadClusterPolicy(text);
  EXPECT_EQ(FormatErrors(loaded.errors), "") << text;
  return loaded.policy;
}
std::string PolicyErrors(const std::string& text) {
  const auto loaded = LoadClusterPolicy(text);
  EXPECT_EQ(loaded.policy == nullptr, !loaded.errors.empty());
  return FormatErrors(loaded.errors);
}

TEST(SchemaReader, TakesFieldNamesInBothSpellings) {
  EXPECT_EQ(ReadPolicy(R"({"max_pending_requests": 7})")->max_pending_requests, 7u);
  EXPECT_EQ(ReadPolicy(R"({"maxPendingRequests": 7})")->max_pending_requests, 7u);
}

TEST(SchemaReader, RefusesAFieldGivenInBothSpellings) {
  EXPECT_EQ(PolicyErrors(R"({"max_pending_requests": 7, "maxPendingRequests": 8})"),
            "max_pending_requests: 8: is given twice");
}

TEST(SchemaReader, TakesNullForAbsent) {
  EXPECT_EQ(ReadPolicy(R"({"max_pending_requests": null})")->max_pending_requests, 4096u);
}

TEST(SchemaReader, TakesIntegersHoweverTheyAreWritten) {
  for (const char* text : {"65536", "\"65536\"", "65536.0", "6.5536e4"}) {
    EXPECT_EQ(
        ReadPolicy(R"({"max_bytes_in_flight": )" + std::string(text) + "}")->max_bytes_in_flight,
        65536u);
  }
}

TEST(SchemaReader, RefusesWhatIsNoIntegerInItsRange) {
  for (const char* text : {"1023", "-1", "1099511627777", "65536.5", "\"65536x\"", "\"\"", "true",
                           "[65536]", "1e300", "18446744073709551615", "18446744073709551616"}) {
    const std::string errors =
        PolicyErrors(R"({"max_bytes_in_flight": )" + std::string(text) + "}");
    EXPECT_NE(errors.find("max_bytes_in_flight: "), std::string::npos) << errors;
    EXPECT_NE(errors.find("must be an integer from 1024 to 1099511627776"), std::string::npos)
        << errors;
  }
}

TEST(SchemaReader, TakesEnumValuesByNameOrNumber) {
  EXPECT_EQ(ReadPolicy(R"({"policy": "MAGLEV"})")->balance.kind, BalancePolicy::Kind::kMaglev);
  EXPECT_EQ(ReadPolicy(R"({"policy": 2})")->balance.kind, BalancePolicy::Kind::kRandom);
}

TEST(SchemaReader, ListsTheNamesOfAnEnum) {
  EXPECT_EQ(
      PolicyErrors(R"({"policy": "round_robin"})"),
      "policy: \"round_robin\": must be one of ROUND_ROBIN, LEAST_REQUEST, RANDOM, RING_HASH, "
      "MAGLEV; did you mean \"ROUND_ROBIN\"?");
  EXPECT_EQ(PolicyErrors(R"({"policy": 9})"),
            "policy: 9: must be one of ROUND_ROBIN, LEAST_REQUEST, RANDOM, RING_HASH, MAGLEV");
}

TEST(SchemaReader, TakesDurationsWithFractions) {
  EXPECT_EQ(ReadPolicy(R"({"connect_timeout": "1.5s"})")->connect_timeout_us, 1500000u);
  EXPECT_EQ(ReadPolicy(R"({"connect_timeout": "2s"})")->connect_timeout_us, 2000000u);
  EXPECT_EQ(ReadPolicy(R"({"connect_timeout": "0.001000001s"})")->connect_timeout_us, 1001u);
}

TEST(SchemaReader, RefusesWhatIsNoDurationInItsRange) {
  for (const char* text :
       {"5", "\"5\"", "\"5ms\"", "\"-5s\"", "\"s\"", "\".5s\"", "\"5.s\"", "\"1.0000000001s\"",
        "\"0s\"", "\"86400.000001s\"", "\"1e3s\"", "\"99999999999999999999s\""}) {
    EXPECT_EQ(PolicyErrors(R"({"connect_timeout": )" + std::string(text) + "}"),
              "connect_timeout: " + std::string(text) +
                  ": must be a duration such as \"1.5s\", from 0.001s to 86400s");
  }
}

TEST(SchemaReader, TakesNumbersAndTextOfNumbersForFractions) {
  for (const char* text : {"12.5", "\"12.5\"", "1.25e1"}) {
    EXPECT_EQ(ReadPolicy(R"({"panic_threshold_percent": )" + std::string(text) + "}")
                  ->balance.panic_threshold_percent,
              12.5);
  }
  EXPECT_EQ(PolicyErrors(R"({"panic_threshold_percent": "NaN"})"),
            "panic_threshold_percent: \"NaN\": must be a number from 0 to 100");
  EXPECT_EQ(PolicyErrors(R"({"panic_threshold_percent": 100.5})"),
            "panic_threshold_percent: 100.5: must be a number from 0 to 100");
}

TEST(SchemaReader, RefusesWhatIsNoBool) {
  EXPECT_EQ(PolicyErrors(R"({"fail_on_panic": "true"})"),
            "fail_on_panic: \"true\": must be true or false");
}

TEST(SchemaReader, GuessesWhatAMisspeltFieldShouldBe) {
  EXPECT_EQ(PolicyErrors(R"({"max_pending_request": 7})"),
            "max_pending_request: 7: is not a field here; did you mean \"max_pending_requests\"?");
  EXPECT_EQ(PolicyErrors(R"({"max_Lease_per_hosts": 7})"),
            "max_Lease_per_hosts: 7: is not a field here; did you mean \"max_leases_per_host\"?");
}

TEST(SchemaReader, ListsTheFieldsWhereNoneIsNear) {
  json config = MinimalConfig();
  config["protocol"]["transport_layer_security"] = 1;
  EXPECT_EQ(
      ErrorsOf(config),
      "protocol.transport_layer_security: 1: is not a field here; allowed are codec, options, "
      "upstream_connections, declaration, library");
}

TEST(SchemaReader, RefusesOtherValuesWhereAnObjectBelongs) {
  EXPECT_EQ(PolicyErrors("[]"), "[]: must be an object");
  json config = MinimalConfig();
  config["limits"] = 3;
  EXPECT_EQ(ErrorsOf(config), "limits: 3: must be an object");
}

TEST(SchemaReader, RefusesOtherValuesWhereAListBelongs) {
  json config = MinimalConfig();
  config["route_tables"][0]["routes"] = "none";
  EXPECT_EQ(ErrorsOf(config), "route_tables[0].routes: \"none\": must be a list");
}

TEST(SchemaReader, NamesWhatIsRequired) {
  EXPECT_EQ(ErrorsOf(json::object()),
            "name: is required\nprotocol: is required\nroute_tables: is required");
  json config = MinimalConfig();
  config["name"] = nullptr;
  config["protocol"] = json::object();
  config["route_tables"] = json::array();
  EXPECT_EQ(ErrorsOf(config),
            "protocol.codec: is required\nroute_tables: []: must not be empty\nname: is required");
}

TEST(SchemaReader, AMisspeltRequiredFieldIsOneMistakeOnly) {
  json config = MinimalConfig();
  config["route_table"] = config["route_tables"];
  config.erase("route_tables");
  const std::string errors = ErrorsOf(config);
  EXPECT_EQ(errors.find('\n'), std::string::npos) << errors;
  EXPECT_NE(errors.find("did you mean \"route_tables\"?"), std::string::npos) << errors;
}

TEST(SchemaReader, WantsOneFieldOfAOneof) {
  EXPECT_EQ(
      ErrorsOf(ConfigWithRoutes({{{"match", {{{"key", "k"}}}}, {"cluster", "a"}}})),
      "route_tables[0].routes[0].match[0]: {\"key\":\"k\"}: needs one of exact, prefix, suffix, "
      "contains, regex, present, absent, range, one_of, ip_in");
  EXPECT_EQ(
      ErrorsOf(ConfigWithRoutes(
          {{{"match", {{{"key", "k"}, {"exact", "x"}, {"prefix", "y"}}}}, {"cluster", "a"}}})),
      "route_tables[0].routes[0].match[0].prefix: \"y\": only one may be given of exact, "
      "prefix, suffix, contains, regex, present, absent, range, one_of, ip_in");
}

TEST(SchemaReader, BoundsTextAndSaysHowLongItIs) {
  json config = MinimalConfig();
  config["name"] = std::string(256, 'n');
  EXPECT_EQ(ErrorsOf(config),
            "name: \"" + std::string(79, 'n') + "...: must have at most 255 bytes, has 256");
  config["name"] = "with space";
  EXPECT_EQ(ErrorsOf(config), "name: \"with space\": must be printable ASCII without spaces");
  config["name"] = "";
  EXPECT_EQ(ErrorsOf(config), "name: \"\": must not be empty");
  config["name"] = 5;
  EXPECT_EQ(ErrorsOf(config), "name: 5: must be a string");
}

TEST(SchemaReader, CutsValuesBetweenCharacters) {
  json config = MinimalConfig();
  std::string name;
  for (int i = 0; i < 100; ++i) name += "\u00e9";
  config["name"] = name;
  const std::string errors = ErrorsOf(config);
  EXPECT_EQ(errors,
            "name: \"" + name.substr(0, 78) + "...: must be printable ASCII without spaces");
}

TEST(SchemaReader, CollectsAllMistakesUpToABound) {
  json routes = json::array();
  for (int i = 0; i < 60; ++i) routes.push_back({{"cluster", i}});
  const SnapshotOrErrors loaded = Load(ConfigWithRoutes(routes));
  ASSERT_EQ(loaded.errors.size(), ErrorList::kMaxErrors + 1);
  EXPECT_EQ(loaded.errors[49].path, "route_tables[0].routes[49].cluster");
  EXPECT_EQ(loaded.errors.back().message, "and 10 more");
}

TEST(SchemaReader, FollowsTheSchemaInDefaultsWhereTheEngineHasItsOwn) {
  const auto policy = ReadPolicy("{}");
  const ClusterPolicy own;
  EXPECT_EQ(policy->balance.kind, own.balance.kind);
  EXPECT_EQ(policy->balance.choice_count, own.balance.choice_count);
  EXPECT_EQ(policy->balance.minimum_ring_size, own.balance.minimum_ring_size);
  EXPECT_EQ(policy->balance.maximum_ring_size, own.balance.maximum_ring_size);
  EXPECT_EQ(policy->balance.maglev_table_size, own.balance.maglev_table_size);
  EXPECT_EQ(policy->balance.panic_threshold_percent, own.balance.panic_threshold_percent);
  EXPECT_EQ(policy->balance.fail_on_panic, own.balance.fail_on_panic);
  EXPECT_EQ(policy->balance.overprovisioning_percent, own.balance.overprovisioning_percent);
  EXPECT_EQ(policy->max_leases_per_host, own.max_leases_per_host);
  EXPECT_EQ(policy->exchanges_per_shared_lease, own.exchanges_per_shared_lease);
  EXPECT_EQ(policy->max_shared_leases_per_host, own.max_shared_leases_per_host);
  EXPECT_EQ(policy->max_requests_in_flight, own.max_requests_in_flight);
  EXPECT_EQ(policy->max_bytes_in_flight, own.max_bytes_in_flight);
  EXPECT_EQ(policy->max_lease_bytes_in_flight, own.max_lease_bytes_in_flight);
  EXPECT_EQ(policy->max_pending_requests, own.max_pending_requests);
  EXPECT_EQ(policy->lease_idle_timeout_us, own.lease_idle_timeout_us);
  EXPECT_EQ(policy->connect_timeout_us, own.connect_timeout_us);
  const auto snapshot = LoadValid(MinimalConfig());
  const SessionLimits limits;
  EXPECT_EQ(snapshot->limits.max_message_bytes, limits.max_message_bytes);
  EXPECT_EQ(snapshot->limits.stream_message_bytes, limits.stream_message_bytes);
  EXPECT_EQ(snapshot->limits.max_requests_in_flight, limits.max_requests_in_flight);
  EXPECT_EQ(snapshot->limits.max_bytes_in_flight, limits.max_bytes_in_flight);
  EXPECT_EQ(snapshot->limits.max_unread_reply_bytes, limits.max_unread_reply_bytes);
  EXPECT_EQ(snapshot->limits.max_sessions_per_worker, limits.max_sessions_per_worker);
  EXPECT_EQ(snapshot->limits.idle_timeout_us, limits.idle_timeout_us);
  EXPECT_EQ(snapshot->limits.slow_client_timeout_us, limits.slow_client_timeout_us);
  EXPECT_EQ(snapshot->limits.message_timeout_us, limits.message_timeout_us);
}

}  // namespace
}  // namespace metaprotocol::test
