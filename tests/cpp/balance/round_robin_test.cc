#include <gtest/gtest.h>

#include <numeric>

#include "tests/cpp/balance/balance_test_util.h"

namespace metaprotocol {
namespace {

std::unique_ptr<Balancer> RoundRobinOver(const std::vector<HostInfo>& hosts) {
  auto balancer = Balancer::Create(PolicyOf(BalancePolicy::Kind::kRoundRobin));
  balancer->Update(hosts);
  return balancer;
}

TEST(RoundRobin, TakesEqualHostsInTheirOrder) {
  const auto balancer = RoundRobinOver(WeightedHosts({7, 7, 7, 7}));
  const uint32_t first = *balancer->Pick({.hash = {}, .random = 42});
  for (uint32_t i = 1; i < 100; ++i) {
    EXPECT_EQ(balancer->Pick({.hash = {}, .random = i}), (first + i) % 4);
  }
}

TEST(RoundRobin, BeginsAtARandomHost) {
  std::vector<uint32_t> first_picks(8);
  RandomStream random(9);
  for (int i = 0; i < 800; ++i) {
    const auto balancer = RoundRobinOver(WeightedHosts(std::vector<uint32_t>(8, 1)));
    ++first_picks[*balancer->Pick({.hash = {}, .random = random.Next()})];
  }
  // 99.9 % quantile for 7 degrees of freedom: 24.3.
  EXPECT_LT(ChiSquare(first_picks, std::vector<double>(8, 1.0 / 8)), 24.3);
}

TEST(RoundRobin, KeepsWeightsExactOverEveryCycle) {
  const std::vector<uint32_t> weights = {5, 1, 3, 1};
  const auto balancer = RoundRobinOver(WeightedHosts(weights));
  for (uint64_t cycle = 0; cycle < 50; ++cycle) {
    EXPECT_EQ(CountPicks(*balancer, 4, 10, cycle), weights);
  }
}

TEST(RoundRobin, KeepsWeightsExactOverACycleTooLongToWriteOut) {
  const std::vector<uint32_t> weights = {30011, 60013, 1};
  const auto balancer = RoundRobinOver(WeightedHosts(weights));
  EXPECT_EQ(CountPicks(*balancer, 3, 30011 + 60013 + 1), weights);
  EXPECT_EQ(CountPicks(*balancer, 3, 30011 + 60013 + 1), weights);
}

TEST(RoundRobin, TakesWeightZeroForOne) {
  const auto balancer = RoundRobinOver(WeightedHosts({0, 2}));
  EXPECT_EQ(CountPicks(*balancer, 2, 30), (std::vector<uint32_t>{10, 20}));
}

TEST(RoundRobin, SpillsOverInTheProportionOfThePriorities) {
  std::vector<HostInfo> hosts;
  AddHosts(hosts, 10, 5, 0, 0);  // 70 %
  AddHosts(hosts, 2, 2, 0, 1);   // the rest
  const auto balancer = RoundRobinOver(hosts);
  const auto counts = CountPicks(*balancer, hosts.size(), 100000);
  const double first = std::accumulate(counts.begin(), counts.begin() + 10, 0.0);
  EXPECT_NEAR(first / 100000, 0.70, 0.01);
  for (int i = 5; i < 10; ++i) EXPECT_EQ(counts[i], 0U);
}

TEST(RoundRobin, ForgetsHostsThatAreGone) {
  const auto balancer = RoundRobinOver(WeightedHosts({1, 1, 1, 1, 1}));
  CountPicks(*balancer, 5, 4);
  balancer->Update(WeightedHosts({1, 2}));
  EXPECT_EQ(CountPicks(*balancer, 2, 300), (std::vector<uint32_t>{100, 200}));
  balancer->Update({});
  EXPECT_EQ(balancer->Pick({}), std::nullopt);
}

}  // namespace
}  // namespace metaprotocol
