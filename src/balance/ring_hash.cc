#include "src/balance/ring_hash.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>

namespace metaprotocol {

std::optional<uint32_t> RingHashBalancer::HostFor(uint32_t source, uint64_t hash) const {
  const Ring* const found = rings_[source].get();
  if (found == nullptr) return std::nullopt;
  const Ring& ring = *found;
  const size_t count = ring.points.size();
  size_t i = ring.arcs[hash >> ring.arc_shift];
  while (i < count && ring.points[i].hash < hash) ++i;
  return ring.points[i < count ? i : 0].host;
}

void RingHashBalancer::Rebuild(std::span<const HostInfo> hosts,
                               std::span<const HostSet::Source> sources) {
  // The former ones are dropped last: nothing may have changed.
  auto rings =
      TablesFor<Ring>(hosts, sources, policy().minimum_ring_size, policy().maximum_ring_size,
                      [&](const HostSet::Source& source) { return MakeRing(hosts, source); });
  rings_.swap(rings);
}

// Scaled so that the host of least weight has a whole number of points; the others may not, which
// running sums over all hosts even out.
double RingHashBalancer::ScaleFor(const HostSet::Source& source) const {
  const double least = *std::min_element(source.shares.begin(), source.shares.end());
  return std::max(1.0,
                  std::min(std::ceil(least * policy().minimum_ring_size) / least,
                           static_cast<double>(std::max<uint32_t>(policy().maximum_ring_size, 1))));
}

RingHashBalancer::Ring RingHashBalancer::MakeRing(std::span<const HostInfo> hosts,
                                                  const HostSet::Source& source) const {
  const double scale = ScaleFor(source);
  std::vector<Point> points;
  points.reserve(static_cast<size_t>(std::ceil(scale)));
  double wanted = 0.0;
  std::string key;
  for (size_t i = 0; i < source.hosts.size(); ++i) {
    wanted += scale * source.shares[i];
    key = hosts[source.hosts[i]].address;
    key += '_';
    const size_t prefix = key.size();
    for (uint32_t n = 0; static_cast<double>(points.size()) < wanted; ++n) {
      char digits[10];
      const auto end = std::to_chars(digits, digits + sizeof digits, n).ptr;
      key.resize(prefix);
      key.append(digits, end);
      points.push_back({HashKey(key), source.hosts[i]});
    }
  }
  return SortIntoArcs(points);
}

// Points of one arc that happen to coincide stay in the order of the hosts.
RingHashBalancer::Ring RingHashBalancer::SortIntoArcs(std::span<const Point> points) {
  Ring ring;
  const int bits = std::max(1, static_cast<int>(std::bit_width(points.size())));
  ring.arc_shift = 64 - bits;
  ring.arcs.resize((size_t{1} << bits) + 1);
  for (const Point& point : points) ++ring.arcs[(point.hash >> ring.arc_shift) + 1];
  std::partial_sum(ring.arcs.begin(), ring.arcs.end(), ring.arcs.begin());
  ring.arcs.pop_back();

  ring.points.resize(points.size());
  std::vector<uint32_t> filled = ring.arcs;
  for (const Point& point : points) {
    const uint64_t arc = point.hash >> ring.arc_shift;
    // There is about one point in an arc.
    size_t at = filled[arc]++;
    for (; at > ring.arcs[arc] && point.hash < ring.points[at - 1].hash; --at) {
      ring.points[at] = ring.points[at - 1];
    }
    ring.points[at] = point;
  }
  return ring;
}

}  // namespace metaprotocol
