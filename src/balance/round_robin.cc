#include "src/balance/round_robin.h"

#include <numeric>

namespace metaprotocol {

std::optional<uint32_t> RoundRobinBalancer::Pick(const PickInput& input) {
  const std::optional<uint32_t> source = host_set().Choose(input.random);
  if (!source) return std::nullopt;
  Rotation& rotation = rotations_[*source];
  if (!rotation.started) {
    // Workers that learn of the same hosts at the same time must not all begin with the first.
    RandomStream random(input.random);
    if (rotation.schedule.empty()) {
      rotation.turns.BeginAnywhere(random);
    } else {
      rotation.next = random.Below(rotation.schedule.size());
    }
    rotation.started = true;
  }
  if (rotation.schedule.empty()) {
    return host_set().sources()[*source].hosts[rotation.turns.Next()];
  }
  const uint32_t host = rotation.schedule[rotation.next];
  if (++rotation.next == rotation.schedule.size()) rotation.next = 0;
  return host;
}

void RoundRobinBalancer::Rebuild(std::span<const HostInfo>,
                                 std::span<const HostSet::Source> sources) {
  rotations_.clear();
  for (const HostSet::Source& source : sources) rotations_.push_back(MakeRotation(source));
}

RoundRobinBalancer::Rotation RoundRobinBalancer::MakeRotation(const HostSet::Source& source) {
  uint32_t divisor = 0;
  uint64_t cycle = 0;
  for (const uint32_t weight : source.weights) {
    divisor = std::gcd(divisor, weight);
    cycle += weight;
  }
  if (divisor == 0) return {};  // no hosts: there are no such sources
  cycle /= divisor;

  Rotation rotation;
  if (cycle == source.hosts.size()) {  // equal weights
    rotation.schedule = source.hosts;
    return rotation;
  }
  std::vector<uint32_t> weights;
  for (const uint32_t weight : source.weights) weights.push_back(weight / divisor);
  rotation.turns = WeightedTurns(weights);
  if (cycle > kMaxSchedule) return rotation;
  for (uint64_t i = 0; i < cycle; ++i) {
    rotation.schedule.push_back(source.hosts[rotation.turns.Next()]);
  }
  rotation.turns = {};
  return rotation;
}

}  // namespace metaprotocol
