#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>

#include "tests/cpp/balance/balance_test_util.h"

namespace metaprotocol {
namespace {

std::unique_ptr<Balancer> LeastRequestOver(const std::vector<HostInfo>& hosts,
                                           uint32_t choice_count = 2) {
  BalancePolicy policy = PolicyOf(BalancePolicy::Kind::kLeastRequest);
  policy.choice_count = choice_count;
  auto balancer = Balancer::Create(policy);
  balancer->Update(hosts);
  return balancer;
}

TEST(LeastRequest, PicksTheLeastBusyOfTheChosenFew) {
  // The busiest host of n is picked only if all draws hit it, the one of rank r (0: least busy) if
  // no draw is better and not all are worse: ((n-r)^c - (n-r-1)^c) / n^c.
  constexpr uint32_t kHosts = 5;
  for (const uint32_t choices : {1U, 2U, 3U, 7U}) {
    const auto balancer =
        LeastRequestOver(WeightedHosts(std::vector<uint32_t>(kHosts, 1)), choices);
    const std::vector<uint32_t> active = {30, 0, 20, 40, 10};
    const std::vector<uint32_t> rank = {3, 0, 2, 4, 1};
    std::vector<uint32_t> counts(kHosts);
    std::vector<double> shares(kHosts);
    RandomStream random(choices);
    for (int i = 0; i < 200000; ++i) {
      ++counts[*balancer->Pick({.hash = {}, .random = random.Next(), .active = active})];
    }
    for (uint32_t i = 0; i < kHosts; ++i) {
      shares[i] = (std::pow(kHosts - rank[i], choices) - std::pow(kHosts - rank[i] - 1, choices)) /
                  std::pow(kHosts, choices);
    }
    // 99.9 % quantile for 4 degrees of freedom: 18.5.
    EXPECT_LT(ChiSquare(counts, shares), 18.5) << choices << " choices";
  }
}

TEST(LeastRequest, SpreadsLikeWeightedTurnsWhenNothingIsOpen) {
  const auto balancer = LeastRequestOver(WeightedHosts({1, 2, 5}));
  const auto counts = CountPicks(*balancer, 3, 8000);
  EXPECT_NEAR(counts[0], 1000, 2);
  EXPECT_NEAR(counts[1], 2000, 2);
  EXPECT_NEAR(counts[2], 5000, 2);
}

TEST(LeastRequest, CountsAHostForItsWeightOverItsOpenRequestsPlusOne) {
  const auto balancer = LeastRequestOver(WeightedHosts({4, 1, 2}));
  const std::vector<uint32_t> active = {3, 0, 1};  // effective weights 1, 1, 1
  std::vector<uint32_t> counts(3);
  RandomStream random(2);
  for (int i = 0; i < 3000; ++i) {
    ++counts[*balancer->Pick({.hash = {}, .random = random.Next(), .active = active})];
  }
  for (const uint32_t count : counts) EXPECT_NEAR(count, 1000, 5);
}

TEST(LeastRequest, StaysBalancedInAClosedLoopWhereOneHostIsSlow) {
  // Host 0 answers after 40 steps, the others after 4; one new request a step.
  constexpr uint32_t kHosts = 4;
  const auto balancer = LeastRequestOver(WeightedHosts(std::vector<uint32_t>(kHosts, 1)));
  std::vector<uint32_t> active(kHosts);
  std::vector<uint32_t> counts(kHosts);
  std::vector<std::deque<int>> due(kHosts);
  RandomStream random(4);
  for (int now = 0; now < 20000; ++now) {
    for (uint32_t host = 0; host < kHosts; ++host) {
      while (!due[host].empty() && due[host].front() <= now) {
        due[host].pop_front();
        --active[host];
      }
    }
    const uint32_t host = *balancer->Pick({.hash = {}, .random = random.Next(), .active = active});
    ++active[host];
    ++counts[host];
    due[host].push_back(now + (host == 0 ? 40 : 4));
  }
  // Random choice would send a quarter of the requests to host 0.
  EXPECT_LT(counts[0], 20000 * 0.12);
  EXPECT_GT(counts[0], 0U);
}

TEST(LeastRequest, TakesHostsWithoutACountForIdle) {
  const auto balancer = LeastRequestOver(WeightedHosts({1, 1, 1}), 64);
  const std::vector<uint32_t> active = {9, 9};  // host 2 has none yet
  EXPECT_EQ(balancer->Pick({.hash = {}, .random = 1, .active = active}), 2U);
}

}  // namespace
}  // namespace metaprotocol
