#include "src/balance/ring_hash.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <string>

namespace metaprotocol {

uint32_t RingHashBalancer::HostFor(uint32_t source, uint64_t hash) const {
  const Ring& ring = rings_[source];
  const size_t count = ring.points.size();
  size_t i = ring.arcs[hash >> ring.arc_shift];
  while (i < count && ring.points[i].hash < hash) ++i;
  return ring.points[i < count ? i : 0].host;
}

void RingHashBalancer::Rebuild(std::span<const HostInfo> hosts,
                               std::span<const HostSet::Source> sources) {
  rings_.clear();
  for (const HostSet::Source& source : sources) rings_.push_back(MakeRing(hosts, source));
}

RingHashBalancer::Ring RingHashBalancer::MakeRing(std::span<const HostInfo> hosts,
                                                  const HostSet::Source& source) const {
  // The ring is scaled so that the host of least weight has a whole number of points; the others
  // may not, which running sums over all hosts even out.
  const double least = *std::min_element(source.shares.begin(), source.shares.end());
  const double scale = std::max(
      1.0, std::min(std::ceil(least * policy().minimum_ring_size) / least,
                    static_cast<double>(std::max<uint32_t>(policy().maximum_ring_size, 1))));

  Ring ring;
  ring.points.reserve(static_cast<size_t>(std::ceil(scale)));
  double wanted = 0.0;
  std::string key;
  for (size_t i = 0; i < source.hosts.size(); ++i) {
    wanted += scale * source.shares[i];
    key = hosts[source.hosts[i]].address;
    key += '_';
    const size_t prefix = key.size();
    for (uint32_t n = 0; static_cast<double>(ring.points.size()) < wanted; ++n) {
      key.resize(prefix);
      key += std::to_string(n);
      ring.points.push_back({HashKey(key), source.hosts[i]});
    }
  }
  // Points that happen to coincide are put in the order of the hosts.
  std::stable_sort(ring.points.begin(), ring.points.end(),
                   [](const Point& a, const Point& b) { return a.hash < b.hash; });
  IndexArcs(ring);
  return ring;
}

void RingHashBalancer::IndexArcs(Ring& ring) {
  const int bits = std::max(1, static_cast<int>(std::bit_width(ring.points.size())));
  ring.arc_shift = 64 - bits;
  ring.arcs.resize(size_t{1} << bits);
  size_t point = 0;
  for (size_t arc = 0; arc < ring.arcs.size(); ++arc) {
    while (point < ring.points.size() && ring.points[point].hash >> ring.arc_shift < arc) ++point;
    ring.arcs[arc] = static_cast<uint32_t>(point);
  }
}

}  // namespace metaprotocol
