// Hosts and counts for the balancers' tests.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "src/balance/balancer.h"
#include "src/base/random_stream.h"

namespace metaprotocol {

inline std::string TestAddress(uint32_t i) {
  return "10.0." + std::to_string(i / 256) + "." + std::to_string(i % 256) + ":20880";
}

// `count` hosts of one priority, the first `healthy` of them healthy, the next `degraded` degraded.
inline void AddHosts(std::vector<HostInfo>& hosts, uint32_t count, uint32_t healthy,
                     uint32_t degraded = 0, uint32_t priority = 0, const std::string& zone = "",
                     uint32_t locality_weight = 0) {
  for (uint32_t i = 0; i < count; ++i) {
    HostInfo host;
    host.address = TestAddress(static_cast<uint32_t>(hosts.size()));
    host.health = i < healthy              ? HostHealth::kHealthy
                  : i < healthy + degraded ? HostHealth::kDegraded
                                           : HostHealth::kUnhealthy;
    host.priority = priority;
    host.zone = zone;
    host.locality_weight = locality_weight;
    hosts.push_back(host);
  }
}

inline std::vector<HostInfo> WeightedHosts(const std::vector<uint32_t>& weights) {
  std::vector<HostInfo> hosts;
  AddHosts(hosts, static_cast<uint32_t>(weights.size()), static_cast<uint32_t>(weights.size()));
  for (size_t i = 0; i < weights.size(); ++i) hosts[i].weight = weights[i];
  return hosts;
}

inline BalancePolicy PolicyOf(BalancePolicy::Kind kind) {
  BalancePolicy policy;
  policy.kind = kind;
  return policy;
}

inline constexpr BalancePolicy::Kind kAllPolicies[] = {
    BalancePolicy::Kind::kRoundRobin, BalancePolicy::Kind::kLeastRequest,
    BalancePolicy::Kind::kRandom, BalancePolicy::Kind::kRingHash, BalancePolicy::Kind::kMaglev};

// How often each host is picked in `picks` picks with fresh random numbers and no hash.
inline std::vector<uint32_t> CountPicks(Balancer& balancer, size_t hosts, uint32_t picks,
                                        uint64_t seed = 1) {
  std::vector<uint32_t> counts(hosts);
  RandomStream random(seed);
  for (uint32_t i = 0; i < picks; ++i) {
    const std::optional<uint32_t> host = balancer.Pick({.hash = {}, .random = random.Next()});
    if (host) ++counts.at(*host);
  }
  return counts;
}

// Pearson's statistic of the counts against the expected shares.
inline double ChiSquare(const std::vector<uint32_t>& counts, const std::vector<double>& shares) {
  double total = 0;
  for (const uint32_t count : counts) total += count;
  double sum = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    const double expected = shares[i] * total;
    sum += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  return sum;
}

}  // namespace metaprotocol
