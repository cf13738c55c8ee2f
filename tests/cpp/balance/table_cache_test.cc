#include "src/balance/table_cache.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "tests/cpp/balance/balance_test_util.h"
#include "tests/cpp/support/cpu_time.h"

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
  const std::vector<Cache::Handle> tables = {
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
  std::optional<Cache::Handle> table = cache.Find(KeyOf(WeightedHosts({1})), make);
  table.reset();
  EXPECT_EQ(cache.size(), 0u);
  table = cache.Find(KeyOf(WeightedHosts({1})), make);
  EXPECT_EQ(made, 2);
  for (uint64_t size = 100; size < 10000; ++size) cache.Find(KeyOf(WeightedHosts({1}), size), make);
  EXPECT_EQ(cache.size(), 1u);
}

TEST(TableCache, AWishIsFulfilledByWhoeverMakesTheTable) {
  Cache cache;
  const Cache::Handle wish = cache.Wish(KeyOf(WeightedHosts({1, 1})));
  EXPECT_EQ(wish.get(), nullptr);
  const auto other = cache.Find(KeyOf(WeightedHosts({1, 1}), 11), [] { return Counted{1}; });
  EXPECT_EQ(wish.get(), nullptr);
  const auto made = cache.Find(KeyOf(WeightedHosts({1, 1})), [] { return Counted{2}; });
  EXPECT_EQ(wish, made);
  ASSERT_NE(wish.get(), nullptr);
  EXPECT_EQ(wish.get()->number, 2);
}

TEST(TableCache, ALargeTableIsNotMadeByAWorkerWhichSpreadsByShareUntilItIsThere) {
  for (const auto kind : {BalancePolicy::Kind::kMaglev, BalancePolicy::Kind::kRingHash}) {
    BalancePolicy policy = PolicyOf(kind);
    policy.maglev_table_size = 5000011;
    policy.minimum_ring_size = 4000000;
    BalancePolicy on_a_worker = policy;
    on_a_worker.large_tables_made_elsewhere = true;
    const auto worker = Balancer::Create(on_a_worker);
    const std::vector<HostInfo> hosts = WeightedHosts({1, 2, 5});
    const auto picks = [&](Balancer& balancer) {
      std::vector<uint32_t> counts(hosts.size());
      for (uint64_t i = 0; i < 8000; ++i) {
        const PickInput input{.hash = i * 0x9E3779B97F4A7C15, .random = i};
        const std::optional<uint32_t> host = balancer.Pick(input);
        EXPECT_EQ(host, balancer.Pick({.hash = input.hash, .random = ~i})) << "of the same hash";
        ++counts[host.value()];
      }
      return counts;
    };
    // To make it once takes a hundred times as long.
    EXPECT_LT(test::LeastCpuNs(5, [&] { worker->Update(hosts); }), 1e6);
    const std::vector<uint32_t> before = picks(*worker);
    EXPECT_NEAR(before[0], 1000, 150);
    EXPECT_NEAR(before[1], 2000, 200);
    EXPECT_NEAR(before[2], 5000, 300);

    const auto main = Balancer::Create(policy);
    main->Update(hosts);
    for (uint64_t i = 0; i < 1000; ++i) {
      const PickInput input{.hash = i * 0x9E3779B97F4A7C15, .random = i};
      ASSERT_EQ(worker->Pick(input), main->Pick(input));
    }
  }
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
