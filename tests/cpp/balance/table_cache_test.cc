#include "src/balance/table_cache.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/cpp/balance/balance_test_util.h"

namespace metaprotocol {
namespace {

struct Counted {
  int number = 0;
};
using Cache = TableCache<Counted>;

HostSet::Source SourceOf(const std::vector<HostInfo>& hosts) {
  HostSet::Source source;
  for (uint32_t i = 0; i < hosts.size(); ++i) {
    source.hosts.push_back(i);
    source.weights.push_back(hosts[i].weight);
    source.shares.push_back(1.0 / static_cast<double>(hosts.size()));
  }
  return source;
}
TableKey KeyOf(const std::vector<HostInfo>& hosts, uint64_t size = 7) {
  return {size, size, hosts, SourceOf(hosts)};
}

TEST(TableCache, EqualHostsShareOneTable) {
  Cache cache;
  int made = 0;
  const auto make = [&] { return Counted{++made}; };
  const auto first = cache.Find(KeyOf(WeightedHosts({1, 1})), make);
  const auto second = cache.Find(KeyOf(WeightedHosts({1, 1})), make);
  EXPECT_EQ(first, second);
  EXPECT_EQ(made, 1);
}

TEST(TableCache, WhateverATableIsMadeFromTellsItFromOthers) {
  Cache cache;
  int made = 0;
  const auto make = [&] { return Counted{++made}; };
  const std::vector<HostInfo> hosts = WeightedHosts({1, 1, 1});
  std::vector<HostInfo> other_address = hosts;
  other_address[1].address += "1";
  HostSet::Source other_order = SourceOf(hosts);
  std::swap(other_order.hosts[0], other_order.hosts[1]);
  HostSet::Source other_shares = SourceOf(hosts);
  other_shares.shares = {0.5, 0.25, 0.25};
  std::vector<std::shared_ptr<const Counted>> tables = {
      cache.Find(KeyOf(hosts), make),
      cache.Find(KeyOf(hosts, 11), make),
      cache.Find(KeyOf(other_address), make),
      cache.Find({7, 7, hosts, other_order}, make),
      cache.Find({7, 7, hosts, other_shares}, make),
  };
  EXPECT_EQ(made, 5);
  EXPECT_EQ(cache.size(), 5u);
}

TEST(TableCache, UnusedTablesAreDropped) {
  Cache cache;
  int made = 0;
  const auto make = [&] { return Counted{++made}; };
  auto table = cache.Find(KeyOf(WeightedHosts({1})), make);
  table.reset();
  EXPECT_EQ(cache.size(), 0u);
  table = cache.Find(KeyOf(WeightedHosts({1})), make);
  EXPECT_EQ(made, 2);
  for (uint64_t size = 100; size < 10000; ++size) cache.Find(KeyOf(WeightedHosts({1}), size), make);
  EXPECT_EQ(cache.size(), 1u);
}

TEST(TableCache, ABalancerThatIsUpdatedWithTheSameHostsMakesNothing) {
  for (const auto kind : {BalancePolicy::Kind::kMaglev, BalancePolicy::Kind::kRingHash}) {
    const auto first = Balancer::Create(PolicyOf(kind));
    const auto second = Balancer::Create(PolicyOf(kind));
    const std::vector<HostInfo> hosts = WeightedHosts({1, 2, 3});
    first->Update(hosts);
    second->Update(hosts);
    first->Update(hosts);
    for (uint64_t hash = 0; hash < 1000; ++hash) {
      const PickInput input{.hash = hash * 0x9E3779B97F4A7C15, .random = 0};
      ASSERT_EQ(first->Pick(input), second->Pick(input));
    }
  }
}

}  // namespace
}  // namespace metaprotocol
