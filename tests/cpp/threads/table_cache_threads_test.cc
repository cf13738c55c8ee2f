// Workers that learn of the same hosts at the same time make one table between them.
#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <thread>
#include <vector>

#include "src/balance/table_cache.h"
#include "tests/cpp/balance/balance_test_util.h"

namespace metaprotocol {
namespace {

TEST(TableCacheThreads, ATableIsMadeOnceByWhoeverComesFirst) {
  struct Table {
    std::vector<int> entries;
  };
  TableCache<Table> cache;
  std::atomic<int> made{0};
  for (int round = 0; round < 50; ++round) {
    std::vector<std::optional<TableCache<Table>::Handle>> found(8);
    std::vector<std::thread> workers;
    for (auto& table : found) {
      workers.emplace_back([&] {
        const std::vector<HostInfo> hosts = WeightedHosts({1});
        HostSet::Source source;
        source.hosts = {0};
        source.shares = {1.0};
        table = cache.Find({static_cast<uint64_t>(round), 0, hosts, source}, [&] {
          ++made;
          return Table{std::vector<int>(1000, round)};
        });
        EXPECT_EQ(table->get()->entries.at(999), round);
      });
    }
    for (std::thread& worker : workers) worker.join();
    for (const auto& table : found) EXPECT_TRUE(table == found[0]);
    EXPECT_EQ(made, round + 1);
  }
}

TEST(TableCacheThreads, BalancersOfManyWorkersComeAndGo) {
  std::vector<std::thread> workers;
  for (int worker = 0; worker < 4; ++worker) {
    workers.emplace_back([] {
      BalancePolicy policy = PolicyOf(BalancePolicy::Kind::kMaglev);
      policy.maglev_table_size = 101;
      const auto balancer = Balancer::Create(policy);
      for (uint32_t i = 0; i < 200; ++i) {
        balancer->Update(WeightedHosts(std::vector<uint32_t>(1 + i % 5, 1)));
        EXPECT_TRUE(balancer->Pick({.hash = i, .random = 0}).has_value());
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
}

}  // namespace
}  // namespace metaprotocol
