#include <gtest/gtest.h>

#include <numeric>

#include "tests/cpp/balance/balance_test_util.h"

namespace metaprotocol {
namespace {

TEST(Random, FollowsTheWeights) {
  const std::vector<std::vector<uint32_t>> cases = {
      {1, 1, 1, 1}, {1, 2, 3, 4}, {1000, 1, 1}, {7}, {4294967295, 2147483648, 1000000000}};
  for (const auto& weights : cases) {
    const auto balancer = Balancer::Create(PolicyOf(BalancePolicy::Kind::kRandom));
    balancer->Update(WeightedHosts(weights));
    std::vector<double> shares;
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    for (const uint32_t weight : weights) shares.push_back(weight / sum);
    const auto counts = CountPicks(*balancer, weights.size(), 300000);
    // 99.9 % quantile for 3 degrees of freedom (fewer have smaller ones): 16.3.
    EXPECT_LT(ChiSquare(counts, shares), 16.3) << weights.size() << " hosts";
  }
}

TEST(Random, IsTheSameForTheSameNumber) {
  for (const auto kind : kAllPolicies) {
    const auto one = Balancer::Create(PolicyOf(kind));
    const auto other = Balancer::Create(PolicyOf(kind));
    const auto hosts = WeightedHosts({3, 1, 4, 1, 5});
    one->Update(hosts);
    other->Update(hosts);
    RandomStream random(6);
    for (int i = 0; i < 1000; ++i) {
      const PickInput input{.hash = {}, .random = random.Next()};
      EXPECT_EQ(one->Pick(input), other->Pick(input));
    }
  }
}

}  // namespace
}  // namespace metaprotocol
