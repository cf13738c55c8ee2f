#include <gtest/gtest.h>

#include <string>

#include "src/config/snapshot.h"
#include "src/upstream/connection_count.h"

namespace metaprotocol {
namespace {

std::string ErrorsOf(const std::string& text) {
  return FormatErrors(LoadClusterPolicy(text).errors);
}

TEST(ClusterPolicy, TakesEveryField) {
  const auto loaded = LoadClusterPolicy(R"({
    "policy": "LEAST_REQUEST", "choice_count": 3, "minimum_ring_size": 5, "maximum_ring_size": 6,
    "maglev_table_size": 7, "panic_threshold_percent": 8.5, "fail_on_panic": true,
    "overprovisioning_percent": 109, "max_leases_per_host": 10, "exchanges_per_shared_lease": 11,
    "max_shared_leases_per_host": 9, "max_requests_in_flight": 13, "max_bytes_in_flight": 1400,
    "max_lease_bytes_in_flight": 1500, "max_pending_requests": 16, "lease_idle_timeout": "17s",
    "connect_timeout": "18s", "retry_budget_percent": 19.5, "min_retries_in_flight": 20,
    "max_requests_per_connection": 21, "max_connections": 24,
    "high_priority": {"max_leases_per_host": 25, "max_connections": 26, "max_requests_in_flight": 27,
                      "max_pending_requests": 28, "retry_budget_percent": 29.5,
                      "min_retries_in_flight": 30},
    "slow_start": {"window": "22s", "min_weight_percent": 23.5, "aggression": 2.5}})");
  ASSERT_EQ(FormatErrors(loaded.errors), "");
  const ClusterPolicy& policy = *loaded.policy;
  EXPECT_EQ(policy.balance.kind, BalancePolicy::Kind::kLeastRequest);
  EXPECT_EQ(policy.balance.choice_count, 3u);
  EXPECT_EQ(policy.balance.minimum_ring_size, 5u);
  EXPECT_EQ(policy.balance.maximum_ring_size, 6u);
  EXPECT_EQ(policy.balance.maglev_table_size, 7u);
  EXPECT_EQ(policy.balance.panic_threshold_percent, 8.5);
  EXPECT_TRUE(policy.balance.fail_on_panic);
  EXPECT_EQ(policy.balance.overprovisioning_percent, 109u);
  EXPECT_EQ(policy.max_leases_per_host, 10u);
  EXPECT_EQ(policy.exchanges_per_shared_lease, 11u);
  EXPECT_EQ(policy.max_shared_leases_per_host, 9u);
  EXPECT_EQ(policy.max_requests_in_flight, 13u);
  EXPECT_EQ(policy.max_bytes_in_flight, 1400u);
  EXPECT_EQ(policy.max_lease_bytes_in_flight, 1500u);
  EXPECT_EQ(policy.max_pending_requests, 16u);
  EXPECT_EQ(policy.lease_idle_timeout_us, 17000000u);
  EXPECT_EQ(policy.connect_timeout_us, 18000000u);
  EXPECT_EQ(policy.retry_budget_percent, 19.5);
  EXPECT_EQ(policy.min_retries_in_flight, 20u);
  EXPECT_EQ(policy.max_requests_per_connection, 21u);
  EXPECT_EQ(policy.connections->most(), 24u);
  EXPECT_EQ(policy.high.max_leases_per_host, 25u);
  EXPECT_EQ(policy.high.connections->most(), 26u);
  EXPECT_EQ(policy.high.max_requests_in_flight, 27u);
  EXPECT_EQ(policy.high.max_pending_requests, 28u);
  EXPECT_EQ(policy.high.retry_budget_percent, 29.5);
  EXPECT_EQ(policy.high.min_retries_in_flight, 30u);
  EXPECT_EQ(policy.slow_start, (SlowStart{22000000, 23.5, 2.5}));
}

TEST(ClusterPolicy, KeysKeepTheirHostsSoThatNoHostStartsSlowly) {
  for (const char* const hashes : {"RING_HASH", "MAGLEV"}) {
    const std::string errors =
        ErrorsOf(R"({"slow_start": {"window": "9s"}, "policy": ")" + std::string(hashes) + "\"}");
    EXPECT_NE(errors.find("slow_start: cannot be with consistent hashing"), std::string::npos)
        << errors;
  }
  EXPECT_NE(ErrorsOf(R"({"slow_start": {}})").find("slow_start.window: is required"),
            std::string::npos);
}

TEST(ClusterPolicy, KnowsEveryPolicy) {
  const std::pair<const char*, BalancePolicy::Kind> policies[] = {
      {"ROUND_ROBIN", BalancePolicy::Kind::kRoundRobin},
      {"LEAST_REQUEST", BalancePolicy::Kind::kLeastRequest},
      {"RANDOM", BalancePolicy::Kind::kRandom},
      {"RING_HASH", BalancePolicy::Kind::kRingHash},
      {"MAGLEV", BalancePolicy::Kind::kMaglev}};
  for (const auto& [name, kind] : policies) {
    const auto loaded = LoadClusterPolicy(R"({"policy": ")" + std::string(name) + "\"}");
    ASSERT_NE(loaded.policy, nullptr) << name;
    EXPECT_EQ(loaded.policy->balance.kind, kind) << name;
  }
}

TEST(ClusterPolicy, IsAllDefaultsWithoutText) { EXPECT_NE(LoadClusterPolicy("").policy, nullptr); }

TEST(ClusterPolicy, WantsTheRingsBoundsInOrder) {
  EXPECT_EQ(ErrorsOf(R"({"minimum_ring_size": 10, "maximum_ring_size": 9})"),
            "minimum_ring_size: 10: must be at most maximum_ring_size, which is 9");
}

TEST(ClusterPolicy, WantsAPrimeForMaglev) {
  for (const char* size : {"4", "65536", "5000010"}) {
    EXPECT_EQ(
        ErrorsOf(R"({"maglev_table_size": )" + std::string(size) + "}"),
        "maglev_table_size: " + std::string(size) + ": must be a prime number, such as 65537");
  }
  for (const char* size : {"2", "3", "5000011"}) {
    EXPECT_EQ(ErrorsOf(R"({"maglev_table_size": )" + std::string(size) + "}"), "");
  }
}

}  // namespace
}  // namespace metaprotocol
