#include "src/route/weighted_schedule.h"

#include <functional>
#include <numeric>
#include <queue>
#include <tuple>

namespace metaprotocol {
namespace {

struct Turn {
  uint64_t time;      // when it may be taken (waiting), or must be (ready)
  uint64_t position;  // how many of the same index came before
  uint16_t index;
  bool operator>(const Turn& other) const {
    return std::tie(time, index) > std::tie(other.time, other.index);
  }
};
using TurnQueue = std::priority_queue<Turn, std::vector<Turn>, std::greater<>>;

uint64_t CommonDivisor(std::span<const uint32_t> weights) {
  uint64_t divisor = 0;
  for (const uint32_t weight : weights) divisor = std::gcd(divisor, uint64_t{weight});
  return divisor;
}

}  // namespace

uint64_t ScheduleLength(std::span<const uint32_t> weights) {
  const uint64_t divisor = CommonDivisor(weights);
  const uint64_t sum = std::accumulate(weights.begin(), weights.end(), uint64_t{0});
  return divisor == 0 ? 0 : sum / divisor;
}

// With share = weight / length, the n-th turn (from 0) of an index may be taken from n / share on,
// rounded down, and must be before (n + 1) / share, rounded up: within these windows its count
// never strays from its exact share by a whole turn. Always taking the one that must be taken first
// meets every window, because the shares add up to one (as in proportionate-fair scheduling: Baruah
// et al., "Proportionate progress", 1996).
std::vector<uint16_t> WeightedSchedule(std::span<const uint32_t> weights) {
  const uint64_t divisor = CommonDivisor(weights);
  const uint64_t length = ScheduleLength(weights);
  const auto share = [&](uint16_t index) { return weights[index] / divisor; };

  TurnQueue waiting;
  TurnQueue ready;
  for (size_t index = 0; index < weights.size(); ++index) {
    if (weights[index] != 0) waiting.push({0, 0, static_cast<uint16_t>(index)});
  }
  std::vector<uint16_t> schedule;
  schedule.reserve(length);
  for (uint64_t now = 0; now < length; ++now) {
    while (!waiting.empty() && waiting.top().time <= now) {
      Turn turn = waiting.top();
      waiting.pop();
      turn.time = ((turn.position + 1) * length + share(turn.index) - 1) / share(turn.index);
      ready.push(turn);
    }
    const Turn turn = ready.top();
    ready.pop();
    schedule.push_back(turn.index);
    const uint64_t next = turn.position + 1;
    waiting.push({next * length / share(turn.index), next, turn.index});
  }
  return schedule;
}

}  // namespace metaprotocol
