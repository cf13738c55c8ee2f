// Load balancing per request: which host of a cluster gets the next one.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace metaprotocol {

enum class HostHealth : uint8_t { kHealthy, kDegraded, kUnhealthy };

// One host as the cluster's owner (Envoy) sees it.
struct HostInfo {
  std::string address;  // "10.0.0.1:20880", unique within the cluster
  uint32_t weight = 1;
  HostHealth health = HostHealth::kHealthy;
  uint32_t priority = 0;         // 0 is tried first
  std::string zone = {};         // locality: hosts of one locality share the string
  uint32_t locality_weight = 0;  // 0: locality weighting is off
  std::string workload = {};     // as Istio writes it down, see RequestMetrics; "": not known
};

struct BalancePolicy {
  enum class Kind : uint8_t { kRoundRobin, kLeastRequest, kRandom, kRingHash, kMaglev };
  Kind kind = Kind::kRoundRobin;
  // Least request: how many hosts are compared (power of N choices).
  uint32_t choice_count = 2;
  // Ring hash: bounds of the ring's size in points. Maglev: table size, a prime.
  uint32_t minimum_ring_size = 1024;
  uint32_t maximum_ring_size = uint32_t{8} << 20;
  uint32_t maglev_table_size = 65537;
  // Large tables are made by another thread's balancer for the same hosts, without this one being
  // told that; until then requests are spread by their hash and the hosts' shares alone.
  bool large_tables_made_elsewhere = false;
  // Below this share of usable hosts (percent), health is ignored and all hosts are used. 0: never.
  double panic_threshold_percent = 50.0;
  // In panic, send nothing at all instead.
  bool fail_on_panic = false;
  // How much spare capacity a priority is taken to have before it spills over to the next (Envoy's
  // overprovisioning factor, percent).
  uint32_t overprovisioning_percent = 140;
};

// What a pick may look at besides the hosts.
struct PickInput {
  // Of the route's hash policy; hash policies without one pick at random.
  std::optional<uint64_t> hash = {};
  // A fresh 64-bit random number.
  uint64_t random = 0;
  // Open exchanges per host, by host index: the engine's own count.
  std::span<const uint32_t> active = {};
};

// Belongs to one worker; not thread-safe.
class Balancer {
 public:
  virtual ~Balancer() = default;

  // The whole host set; an index into `hosts` is what Pick returns until the next Update.
  virtual void Update(std::span<const HostInfo> hosts) = 0;

  // Nothing if no host may be used.
  virtual std::optional<uint32_t> Pick(const PickInput& input) = 0;

  static std::unique_ptr<Balancer> Create(const BalancePolicy& policy);
};

// The hash that ring hash and Maglev use for hosts, and routes for keys (xxHash64, as in Envoy).
uint64_t HashKey(std::string_view key, uint64_t seed = 0);

}  // namespace metaprotocol
