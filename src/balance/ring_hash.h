// Ring hash (ketama) as in Envoy: every host stands at many points of a ring of hashes, as many as
// its weight asks for, and a request goes to the host of the first point at or after its hash. A
// host that leaves takes only its own points with it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "src/balance/hash_policy.h"

namespace metaprotocol {

class RingHashBalancer final : public HashBalancer {
 public:
  explicit RingHashBalancer(const BalancePolicy& policy) : HashBalancer(policy) {}

 private:
  struct Point {
    uint64_t hash;
    uint32_t host;
  };
  struct Ring {
    std::vector<Point> points;  // by hash
    // The first point of each of 2^k equal arcs, about one arc per point: hashes are uniform, so a
    // search that begins there takes a step or two instead of log2(points).
    std::vector<uint32_t> arcs;
    int arc_shift = 63;
  };

  void Rebuild(std::span<const HostInfo> hosts, std::span<const HostSet::Source> sources) override;
  std::optional<uint32_t> HostFor(uint32_t source, uint64_t hash) const override;
  size_t EntriesFor(const HostSet::Source& source) const override {
    return static_cast<size_t>(ScaleFor(source));
  }
  // How many points the ring has, about.
  double ScaleFor(const HostSet::Source& source) const;
  Ring MakeRing(std::span<const HostInfo> hosts, const HostSet::Source& source) const;
  static Ring SortIntoArcs(std::span<const Point> points);

  std::vector<TableCache<Ring>::Handle> rings_;  // by source
};

}  // namespace metaprotocol
