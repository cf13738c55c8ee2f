// Ring hash and Maglev: where Envoy's own tests publish the outcome for given hosts
// (test/extensions/load_balancing_policies/{ring_hash,maglev}), ours is the same; beyond that, the
// properties that one uses consistent hashing for.
#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <set>

#include "src/balance/maglev.h"
#include "tests/cpp/balance/balance_test_util.h"

namespace metaprotocol {
namespace {

using Kind = BalancePolicy::Kind;

// 127.0.0.1:90, :91, ...
std::vector<HostInfo> LocalHosts(const std::vector<uint32_t>& weights) {
  std::vector<HostInfo> hosts = WeightedHosts(weights);
  for (size_t i = 0; i < hosts.size(); ++i)
    hosts[i].address = "127.0.0.1:" + std::to_string(90 + i);
  return hosts;
}

std::optional<uint32_t> PickFor(Balancer& balancer, uint64_t hash) {
  return balancer.Pick({.hash = hash, .random = 0});
}

std::vector<uint32_t> PicksFor(Balancer& balancer, uint64_t hashes) {
  std::vector<uint32_t> picks;
  for (uint64_t hash = 0; hash < hashes; ++hash) picks.push_back(*PickFor(balancer, hash));
  return picks;
}

TEST(RingHash, BuildsTheSameRingAsEnvoy) {
  BalancePolicy policy = PolicyOf(Kind::kRingHash);
  policy.minimum_ring_size = 12;
  const auto balancer = Balancer::Create(policy);
  balancer->Update(LocalHosts({1, 1, 1, 1, 1, 1}));
  const std::pair<uint64_t, uint32_t> ring[] = {
      {833437586790550860, 4},    {928266305478181108, 2},    {1033482794131418490, 0},
      {3551244743356806947, 5},   {3851675632748031481, 3},   {5583722120771150861, 1},
      {6311230543546372928, 1},   {7700377290971790572, 3},   {13144177310400110813U, 5},
      {13444792449719432967U, 2}, {15516499411664133160U, 4}, {16117243373044804889U, 0},
  };
  uint64_t previous = 0;
  for (const auto& [hash, host] : ring) {
    EXPECT_EQ(PickFor(*balancer, hash), host);
    EXPECT_EQ(PickFor(*balancer, previous + 1), host);
    previous = hash;
  }
  EXPECT_EQ(PickFor(*balancer, 0), 4U);
  EXPECT_EQ(PickFor(*balancer, previous + 1), 4U);
  EXPECT_EQ(PickFor(*balancer, std::numeric_limits<uint64_t>::max()), 4U);
  // Without a hash policy the random number takes the hash's place.
  EXPECT_EQ(balancer->Pick({.hash = {}, .random = 16117243373044804880U}), 0U);
}

TEST(RingHash, ChoosesThePriorityByTheHashToo) {
  std::vector<HostInfo> hosts;
  AddHosts(hosts, 2, 1, 0, 0);  // 70 %
  AddHosts(hosts, 1, 1, 0, 1);
  const auto balancer = Balancer::Create(PolicyOf(Kind::kRingHash));
  balancer->Update(hosts);
  EXPECT_EQ(PickFor(*balancer, 69), 0U);
  EXPECT_EQ(PickFor(*balancer, 70), 2U);
}

TEST(RingHash, MovesOnlyTheKeysOfTheHostThatLeavesWhilePointsPerHostStayTheSame) {
  BalancePolicy policy = PolicyOf(Kind::kRingHash);
  policy.minimum_ring_size = 1;  // one point per host, however many hosts there are
  auto hosts = WeightedHosts(std::vector<uint32_t>(50, 1));
  const auto before = Balancer::Create(policy);
  before->Update(hosts);
  hosts.pop_back();
  const auto after = Balancer::Create(policy);
  after->Update(hosts);
  RandomStream random(12);
  uint32_t moved = 0;
  for (int i = 0; i < 10000; ++i) {
    const uint64_t hash = random.Next();
    const auto host = PickFor(*before, hash);
    if (host == 49U) {
      ++moved;
    } else {
      ASSERT_EQ(PickFor(*after, hash), host);
    }
  }
  EXPECT_GT(moved, 0U);
}

TEST(RingHash, KeepsTheRingWithinItsBounds) {
  BalancePolicy policy = PolicyOf(Kind::kRingHash);
  policy.minimum_ring_size = 1;
  policy.maximum_ring_size = 3;
  const auto balancer = Balancer::Create(policy);
  balancer->Update(WeightedHosts({1, 1000000, 1, 1}));
  const auto counts = CountPicks(*balancer, 4, 10000);
  const auto used = std::count_if(counts.begin(), counts.end(), [](uint32_t c) { return c > 0; });
  EXPECT_LE(used, 3);
  EXPECT_GE(counts[1], 1U);
}

TEST(RingHash, FindsThePointThatAPlainSearchFinds) {
  // Brute force: the smallest point at or after the hash among all "address_i", or the smallest.
  BalancePolicy policy = PolicyOf(Kind::kRingHash);
  policy.minimum_ring_size = 1;
  for (uint32_t count = 1; count <= 40; ++count) {
    const auto hosts = WeightedHosts(std::vector<uint32_t>(count, 1));
    policy.minimum_ring_size = 5 * count;
    const auto balancer = Balancer::Create(policy);
    balancer->Update(hosts);
    std::map<uint64_t, uint32_t> ring;
    for (uint32_t host = 0; host < count; ++host) {
      for (int i = 0; i < 5; ++i) {
        ring.emplace(HashKey(hosts[host].address + "_" + std::to_string(i)), host);
      }
    }
    RandomStream random(count);
    for (int i = 0; i < 500; ++i) {
      const uint64_t hash = random.Next();
      auto point = ring.lower_bound(hash);
      if (point == ring.end()) point = ring.begin();
      ASSERT_EQ(PickFor(*balancer, hash), point->second);
    }
  }
}

TEST(Maglev, BuildsTheSameTablesAsEnvoy) {
  const struct {
    std::vector<HostInfo> hosts;
    std::vector<uint32_t> table;
  } cases[] = {
      {LocalHosts({1, 1, 1, 1, 1, 1}), {2, 4, 0, 1, 5, 0, 3}},
      {LocalHosts({1, 2}), {1, 0, 0, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 0, 1, 0, 1}},
  };
  for (const auto& c : cases) {
    BalancePolicy policy = PolicyOf(Kind::kMaglev);
    policy.maglev_table_size = static_cast<uint32_t>(c.table.size());
    const auto balancer = Balancer::Create(policy);
    balancer->Update(c.hosts);
    EXPECT_EQ(PicksFor(*balancer, c.table.size()), c.table);
  }
}

TEST(Maglev, WeighsLocalitiesAsEnvoyDoes) {
  std::vector<HostInfo> hosts = LocalHosts({1, 2, 3});
  hosts[0].zone = "a";
  hosts[0].locality_weight = 8;
  hosts[1].zone = "c";
  hosts[1].locality_weight = 2;
  hosts[2].zone = "b";
  BalancePolicy policy = PolicyOf(Kind::kMaglev);
  policy.maglev_table_size = 17;
  const auto balancer = Balancer::Create(policy);
  balancer->Update(hosts);
  EXPECT_EQ(PicksFor(*balancer, 17),
            (std::vector<uint32_t>{1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0}));
}

TEST(Maglev, WeighsLocalitiesInPanicToo) {
  std::vector<HostInfo> hosts = LocalHosts({1, 2});
  for (size_t i = 0; i < 2; ++i) {
    hosts[i].health = HostHealth::kUnhealthy;
    hosts[i].zone = i == 0 ? "a" : "b";
    hosts[i].locality_weight = 1;
  }
  BalancePolicy policy = PolicyOf(Kind::kMaglev);
  policy.maglev_table_size = 17;
  const auto balancer = Balancer::Create(policy);
  balancer->Update(hosts);
  EXPECT_EQ(PicksFor(*balancer, 17),
            (std::vector<uint32_t>{1, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0, 1}));
}

TEST(Maglev, GivesEveryHostAtLeastOneEntryHoweverLightItIs) {
  std::vector<HostInfo> hosts = LocalHosts(std::vector<uint32_t>(1024, 1));
  for (size_t i = 0; i < hosts.size(); ++i) {
    hosts[i].zone = i == 0 ? "a" : "b";
    hosts[i].locality_weight = i == 0 ? 127 : 1;
  }
  const auto balancer = Balancer::Create(PolicyOf(Kind::kMaglev));
  balancer->Update(hosts);
  std::vector<uint32_t> counts(hosts.size());
  for (const uint32_t host : PicksFor(*balancer, 65537)) ++counts[host];
  EXPECT_EQ(counts[0], 65537U - 1023U);
  for (size_t i = 1; i < counts.size(); ++i) ASSERT_EQ(counts[i], 1U);
}

TEST(Maglev, MakesTheTableSizeAPrime) {
  EXPECT_EQ(MaglevBalancer::TableSize(0), 3U);
  EXPECT_EQ(MaglevBalancer::TableSize(8), 11U);
  EXPECT_EQ(MaglevBalancer::TableSize(65537), 65537U);
  EXPECT_EQ(MaglevBalancer::TableSize(65536), 65537U);
  EXPECT_EQ(MaglevBalancer::TableSize(std::numeric_limits<uint32_t>::max()), 5000011U);
}

class HashPolicies : public testing::TestWithParam<Kind> {};
INSTANTIATE_TEST_SUITE_P(Both, HashPolicies, testing::Values(Kind::kRingHash, Kind::kMaglev),
                         [](const auto& info) {
                           return info.param == Kind::kRingHash ? "RingHash" : "Maglev";
                         });

// Which address each of many keys goes to.
std::vector<std::string> Addresses(Kind kind, const std::vector<HostInfo>& hosts) {
  BalancePolicy policy = PolicyOf(kind);
  policy.minimum_ring_size = 16384;
  const auto balancer = Balancer::Create(policy);
  balancer->Update(hosts);
  std::vector<std::string> addresses;
  for (int key = 0; key < 20000; ++key) {
    const uint64_t hash = HashKey("key-" + std::to_string(key));
    addresses.push_back(hosts[*PickFor(*balancer, hash)].address);
  }
  return addresses;
}

TEST_P(HashPolicies, SendTheSameKeyToTheSameHostWhateverTheRandomNumberAndTheOrderOfHosts) {
  auto hosts = WeightedHosts(std::vector<uint32_t>(20, 1));
  const auto before = Addresses(GetParam(), hosts);
  std::reverse(hosts.begin(), hosts.end());
  EXPECT_EQ(Addresses(GetParam(), hosts), before);

  const auto balancer = Balancer::Create(PolicyOf(GetParam()));
  balancer->Update(hosts);
  const auto host = balancer->Pick({.hash = 77, .random = 1});
  EXPECT_EQ(balancer->Pick({.hash = 77, .random = 2}), host);
}

TEST_P(HashPolicies, MoveLittleMoreThanTheKeysOfTheHostThatLeaves) {
  auto hosts = WeightedHosts(std::vector<uint32_t>(20, 1));
  const auto before = Addresses(GetParam(), hosts);
  const std::string gone = hosts[7].address;
  hosts.erase(hosts.begin() + 7);
  const auto after = Addresses(GetParam(), hosts);
  uint32_t moved_needlessly = 0;
  for (size_t i = 0; i < before.size(); ++i) {
    if (before[i] != gone && before[i] != after[i]) ++moved_needlessly;
  }
  // The ring because fewer hosts have more points each (a minimum size is kept), Maglev because
  // turns shift (the paper's section 5.3).
  EXPECT_LE(moved_needlessly, before.size() * 6 / 100);
}

TEST_P(HashPolicies, ShareTheKeysByWeight) {
  const auto hosts = WeightedHosts({1, 2, 3, 4});
  std::map<std::string, double> counts;
  const auto addresses = Addresses(GetParam(), hosts);
  for (const auto& address : addresses)
    counts[address] += 1.0 / static_cast<double>(addresses.size());
  // A ring of 16,384 points is uneven by about 1 / sqrt(points of the host).
  for (const auto& host : hosts) EXPECT_NEAR(counts[host.address], host.weight / 10.0, 0.02);
}

TEST_P(HashPolicies, ServeFromDegradedHostsWhenNoneIsHealthy) {
  std::vector<HostInfo> hosts;
  AddHosts(hosts, 4, 0, 2);
  const auto balancer = Balancer::Create(PolicyOf(GetParam()));
  balancer->Update(hosts);
  std::set<uint32_t> used;
  RandomStream random(8);
  for (int i = 0; i < 1000; ++i) used.insert(*PickFor(*balancer, random.Next()));
  EXPECT_EQ(used, (std::set<uint32_t>{0, 1}));
}

}  // namespace
}  // namespace metaprotocol
