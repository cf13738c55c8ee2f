// Priorities, health, panic and localities, against the tables in Envoy's documentation
// (intro/arch_overview/upstream/load_balancing: priority, panic_threshold, degraded,
// locality_weight).
#include "src/balance/host_set.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "tests/cpp/balance/balance_test_util.h"

namespace metaprotocol {
namespace {

struct Health {
  uint32_t healthy = 0;  // percent
  uint32_t degraded = 0;
};

PriorityLoad LoadOf(const std::vector<Health>& health, const BalancePolicy& policy = {}) {
  PriorityLoad load;
  for (const Health& h : health) {
    load.levels.push_back({.hosts = 100, .healthy_hosts = h.healthy, .degraded_hosts = h.degraded});
  }
  load.Compute(policy);
  return load;
}

std::vector<uint32_t> HealthyPercent(const PriorityLoad& load) {
  std::vector<uint32_t> percent;
  for (const auto& level : load.levels) percent.push_back(level.healthy_percent);
  return percent;
}

std::vector<uint32_t> DegradedPercent(const PriorityLoad& load) {
  std::vector<uint32_t> percent;
  for (const auto& level : load.levels) percent.push_back(level.degraded_percent);
  return percent;
}

std::vector<bool> Panic(const PriorityLoad& load) {
  std::vector<bool> panic;
  for (const auto& level : load.levels) panic.push_back(level.panic);
  return panic;
}

using Percents = std::vector<uint32_t>;

TEST(PriorityLoad, SpillsOverToTheNextPriorityAsDocumented) {
  const struct {
    std::vector<Health> healthy;
    Percents expected;
  } rows[] = {
      {{{100}, {100}}, {100, 0}},
      {{{72}, {72}}, {100, 0}},
      {{{71}, {71}}, {99, 1}},
      {{{50}, {50}}, {70, 30}},
      {{{25}, {100}}, {35, 65}},
      {{{0}, {100}}, {0, 100}},
      {{{25}, {25}}, {50, 50}},
      {{{100}, {100}, {100}}, {100, 0, 0}},
      {{{71}, {71}, {100}}, {99, 1, 0}},
      {{{50}, {50}, {100}}, {70, 30, 0}},
      {{{25}, {100}, {100}}, {35, 65, 0}},
      {{{25}, {25}, {100}}, {35, 35, 30}},
  };
  for (const auto& row : rows) EXPECT_EQ(HealthyPercent(LoadOf(row.healthy)), row.expected);
}

TEST(PriorityLoad, ScalesUpWhenAllPrioritiesTogetherAreTooWeak) {
  // 25 %, 25 % and 20 % healthy are 35, 35 and 28 with the overprovisioning factor, 98 in all.
  BalancePolicy no_panic;
  no_panic.panic_threshold_percent = 0;
  EXPECT_EQ(HealthyPercent(LoadOf({{25}, {25}, {20}}, no_panic)), (Percents{37, 35, 28}));
}

TEST(PriorityLoad, GivesDegradedHostsWhatHealthyOnesCannotTake) {
  const struct {
    Health health;
    uint32_t to_healthy;
    uint32_t to_degraded;
  } rows[] = {
      {{100, 0}, 100, 0}, {{71, 0}, 100, 0}, {{71, 29}, 99, 1},
      {{25, 65}, 35, 65}, {{5, 0}, 100, 0},  {{0, 100}, 0, 100},
  };
  for (const auto& row : rows) {
    const PriorityLoad load = LoadOf({row.health});
    EXPECT_EQ(HealthyPercent(load), Percents{row.to_healthy});
    EXPECT_EQ(DegradedPercent(load), Percents{row.to_degraded});
  }
}

TEST(PriorityLoad, UsesHealthyHostsOfAllPrioritiesBeforeDegradedOnes) {
  BalancePolicy no_panic;
  no_panic.panic_threshold_percent = 0;
  const PriorityLoad load = LoadOf({{10, 20}, {20, 10}, {10, 0}}, no_panic);
  // 14+28+14 healthy and 28+14 degraded: 98, scaled to 100, the rest to the first priority.
  EXPECT_EQ(HealthyPercent(load), (Percents{16, 28, 14}));
  EXPECT_EQ(DegradedPercent(load), (Percents{28, 14, 0}));
}

TEST(PriorityLoad, PanicsOnlyWhereHealthIsLowAndAllPrioritiesTogetherAreTooWeak) {
  const struct {
    std::vector<Health> health;
    Percents expected;
    std::vector<bool> panic;
  } rows[] = {
      {{{72}, {100}}, {100, 0}, {false, false}}, {{{25}, {100}}, {35, 65}, {false, false}},
      {{{0}, {100}}, {0, 100}, {false, false}},  {{{50}, {60}}, {70, 30}, {false, false}},
      {{{25}, {25}}, {50, 50}, {true, true}},    {{{5}, {65}}, {7, 93}, {true, false}},
      {{{0}, {0}}, {50, 50}, {true, true}},
  };
  for (const auto& row : rows) {
    const PriorityLoad load = LoadOf(row.health);
    // Envoy gives what rounding leaves to the first priority with a healthy host: 5 % and 65 % are
    // 7 and 91, scaled 7 and 92, and 1 left over.
    const Percents expected = row.expected == Percents{7, 93} ? Percents{8, 92} : row.expected;
    EXPECT_EQ(HealthyPercent(load), expected);
    EXPECT_EQ(Panic(load), row.panic);
  }
}

TEST(PriorityLoad, CountsHostsNotHealthWhenEveryPriorityPanics) {
  PriorityLoad load;
  load.levels = {{.hosts = 6, .healthy_hosts = 1, .degraded_hosts = 0},
                 {.hosts = 0, .healthy_hosts = 0, .degraded_hosts = 0},
                 {.hosts = 3, .healthy_hosts = 0, .degraded_hosts = 0}};
  load.Compute({});
  EXPECT_EQ(HealthyPercent(load), (Percents{67, 0, 33}));
}

TEST(PriorityLoad, SendsEverythingToTheFirstPriorityWhenPanicIsOffAndNobodyIsHealthy) {
  BalancePolicy policy;
  policy.panic_threshold_percent = 0;
  const PriorityLoad load = LoadOf({{0}, {0}}, policy);
  EXPECT_EQ(HealthyPercent(load), (Percents{100, 0}));
  EXPECT_EQ(Panic(load), (std::vector<bool>{false, false}));
}

TEST(PriorityLoad, AlwaysAddsUpToAHundred) {
  RandomStream random(7);
  for (int round = 0; round < 20000; ++round) {
    PriorityLoad load;
    const uint64_t levels = 1 + random.Below(5);
    for (uint64_t i = 0; i < levels; ++i) {
      const auto hosts = static_cast<uint32_t>(random.Below(20));
      const auto healthy = static_cast<uint32_t>(random.Below(hosts + 1));
      const auto degraded = static_cast<uint32_t>(random.Below(hosts - healthy + 1));
      load.levels.push_back({.hosts = hosts, .healthy_hosts = healthy, .degraded_hosts = degraded});
    }
    BalancePolicy policy;
    policy.panic_threshold_percent = static_cast<double>(random.Below(101));
    policy.overprovisioning_percent = static_cast<uint32_t>(1 + random.Below(300));
    load.Compute(policy);
    uint32_t sum = 0;
    for (const auto& level : load.levels) sum += level.healthy_percent + level.degraded_percent;
    ASSERT_EQ(sum, 100U) << "round " << round;
  }
}

// How many of the 100 percentage points go to each host's source; kNobody for none.
std::vector<uint32_t> PointsByFirstHost(const std::vector<HostInfo>& hosts,
                                        const BalancePolicy& policy, uint32_t& nobody) {
  HostSet set(HostSet::Localities::kTurns);
  set.Update(hosts, policy);
  std::vector<uint32_t> points(hosts.size());
  nobody = 0;
  for (uint64_t i = 0; i < 100; ++i) {
    if (const auto source = set.Choose(i)) {
      ++points[set.sources()[*source].hosts.front()];
    } else {
      ++nobody;
    }
  }
  return points;
}

TEST(HostSet, LaysHealthyAndDegradedHostsOfEachPriorityOverTheRandomNumber) {
  std::vector<HostInfo> hosts;
  AddHosts(hosts, 4, 1, 1, 0);  // 35 % healthy, 35 % degraded
  AddHosts(hosts, 2, 0, 2, 7);  // priorities need not be dense; 100 % degraded
  uint32_t nobody = 0;
  EXPECT_EQ(PointsByFirstHost(hosts, {}, nobody), (Percents{35, 35, 0, 0, 30, 0}));
  EXPECT_EQ(nobody, 0U);
}

TEST(HostSet, HasNobodyWithoutHosts) {
  for (const auto localities : {HostSet::Localities::kTurns, HostSet::Localities::kFolded}) {
    HostSet set(localities);
    EXPECT_EQ(set.Choose(0), std::nullopt);
    set.Update({}, {});
    EXPECT_EQ(set.Choose(0), std::nullopt);
  }
}

TEST(HostSet, UsesAllHostsInPanic) {
  std::vector<HostInfo> hosts;
  AddHosts(hosts, 5, 1, 0);
  HostSet set(HostSet::Localities::kTurns);
  set.Update(hosts, {});
  ASSERT_EQ(set.Choose(3), 0U);
  EXPECT_EQ(set.sources()[0].hosts, (std::vector<uint32_t>{0, 1, 2, 3, 4}));
}

TEST(HostSet, FailsOnPanicIfAskedTo) {
  std::vector<HostInfo> hosts;
  AddHosts(hosts, 4, 1, 0, 0);   // panic, 35 of 84
  AddHosts(hosts, 20, 7, 0, 1);  // panic as well: 7 of 20 healthy
  BalancePolicy policy;
  policy.fail_on_panic = true;
  uint32_t nobody = 0;
  PointsByFirstHost(hosts, policy, nobody);
  EXPECT_EQ(nobody, 100U);
}

TEST(HostSet, HasNobodyWhenAllAreUnhealthyAndPanicIsOff) {
  std::vector<HostInfo> hosts;
  AddHosts(hosts, 3, 0);
  BalancePolicy policy;
  policy.panic_threshold_percent = 0;
  uint32_t nobody = 0;
  PointsByFirstHost(hosts, policy, nobody);
  EXPECT_EQ(nobody, 100U);
}

TEST(HostSet, GivesLocalitiesTheirWeightTimesAvailabilityAsDocumented) {
  // Locality X has weight 1 and the given health, Y has weight 2 and is healthy throughout.
  const struct {
    uint32_t healthy;
    double percent;
  } rows[] = {{100, 33.3}, {72, 33.3}, {69, 32.6}, {50, 25.9}, {25, 14.9}, {0, 0.0}};
  for (const auto& row : rows) {
    std::vector<HostInfo> hosts;
    AddHosts(hosts, 100, row.healthy, 0, 0, "x", 1);
    AddHosts(hosts, 100, 100, 0, 0, "y", 2);
    HostSet set(HostSet::Localities::kTurns);
    set.Update(hosts, {});
    uint32_t to_x = 0;
    RandomStream random(3);
    for (int i = 0; i < 10000; ++i) {
      const auto source = set.Choose(random.Next());
      ASSERT_TRUE(source);
      if (hosts[set.sources()[*source].hosts.front()].zone == "x") ++to_x;
    }
    EXPECT_NEAR(to_x / 100.0, row.percent, 0.06) << row.healthy;
  }
}

TEST(HostSet, SendsNothingToALocalityWithoutWeight) {
  std::vector<HostInfo> hosts;
  AddHosts(hosts, 2, 2, 0, 0, "x", 0);
  AddHosts(hosts, 2, 2, 0, 0, "y", 5);
  for (const auto localities : {HostSet::Localities::kTurns, HostSet::Localities::kFolded}) {
    HostSet set(localities);
    set.Update(hosts, {});
    for (uint64_t i = 0; i < 100; ++i) {
      const auto source = set.Choose(i);
      ASSERT_TRUE(source);
      EXPECT_EQ(set.sources()[*source].hosts, (std::vector<uint32_t>{2, 3}));
    }
  }
}

TEST(HostSet, FoldsLocalityAndHostWeightsIntoShares) {
  std::vector<HostInfo> hosts = WeightedHosts({1, 3, 5});
  hosts[0].zone = hosts[1].zone = "x";
  hosts[0].locality_weight = hosts[1].locality_weight = 1;
  hosts[2].zone = "y";
  hosts[2].locality_weight = 3;
  HostSet set(HostSet::Localities::kFolded);
  set.Update(hosts, {});
  ASSERT_EQ(set.sources().size(), 1U);
  const auto& shares = set.sources()[0].shares;
  ASSERT_EQ(shares.size(), 3U);
  EXPECT_DOUBLE_EQ(shares[0], 0.25 * 0.25);
  EXPECT_DOUBLE_EQ(shares[1], 0.75 * 0.25);
  EXPECT_DOUBLE_EQ(shares[2], 0.75);
}

TEST(HostSet, NeverChoosesAnUnusableHostUnlessInPanic) {
  RandomStream random(11);
  for (int round = 0; round < 2000; ++round) {
    std::vector<HostInfo> hosts;
    const uint64_t count = 1 + random.Below(12);
    for (uint64_t i = 0; i < count; ++i) {
      HostInfo host;
      host.address = TestAddress(static_cast<uint32_t>(i));
      host.weight = static_cast<uint32_t>(random.Below(4));
      host.health = static_cast<HostHealth>(random.Below(3));
      host.priority = static_cast<uint32_t>(random.Below(3));
      host.zone = std::string(1, static_cast<char>('a' + random.Below(3)));
      host.locality_weight = static_cast<uint32_t>(random.Below(3));
      hosts.push_back(host);
    }
    BalancePolicy policy;
    policy.panic_threshold_percent = 0;
    const bool any_usable = std::any_of(hosts.begin(), hosts.end(), [](const HostInfo& h) {
      return h.health != HostHealth::kUnhealthy;
    });
    for (const auto kind : kAllPolicies) {
      policy.kind = kind;
      policy.maglev_table_size = 31;
      const auto balancer = Balancer::Create(policy);
      balancer->Update(hosts);
      for (int i = 0; i < 20; ++i) {
        const auto host = balancer->Pick({.hash = {}, .random = random.Next()});
        ASSERT_EQ(host.has_value(), any_usable);
        if (host) {
          ASSERT_NE(hosts.at(*host).health, HostHealth::kUnhealthy);
        }
      }
    }
  }
}

}  // namespace
}  // namespace metaprotocol
