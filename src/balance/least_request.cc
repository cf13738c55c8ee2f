#include "src/balance/least_request.h"

#include <algorithm>

namespace metaprotocol {
namespace {

// Moves the turn at `at` to its place in the heap below it. Half the work of std::pop_heap and
// std::push_heap when the first element only changes its key.
template <typename Turn>
void SiftDown(std::vector<Turn>& heap, size_t at) {
  const auto before = [](const Turn& a, const Turn& b) {
    return a.due != b.due ? a.due < b.due : a.host < b.host;
  };
  const Turn moving = heap[at];
  for (size_t child = 2 * at + 1; child < heap.size(); child = 2 * at + 1) {
    if (child + 1 < heap.size() && before(heap[child + 1], heap[child])) ++child;
    if (!before(heap[child], moving)) break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = moving;
}

uint32_t Active(const PickInput& input, uint32_t host) {
  return host < input.active.size() ? input.active[host] : 0;
}

}  // namespace

std::optional<uint32_t> LeastRequestBalancer::Pick(const PickInput& input) {
  const std::optional<uint32_t> source = host_set().Choose(input.random);
  if (!source) return std::nullopt;
  Group& group = groups_[*source];
  if (group.turns.empty()) return LeastOfSome(group, input);
  return NextTurn(group, input);
}

void LeastRequestBalancer::Rebuild(std::span<const HostInfo>,
                                   std::span<const HostSet::Source> sources) {
  groups_.clear();
  for (const HostSet::Source& source : sources) {
    Group& group = groups_.emplace_back();
    group.hosts = source.hosts;
    const bool equal = std::all_of(source.weights.begin(), source.weights.end(),
                                   [&](uint32_t w) { return w == source.weights.front(); });
    if (equal) continue;
    for (size_t i = 0; i < source.hosts.size(); ++i) {
      group.turns.push_back({0.0, static_cast<double>(source.weights[i]), source.hosts[i]});
    }
  }
}

uint32_t LeastRequestBalancer::LeastOfSome(const Group& group, const PickInput& input) const {
  const size_t count = group.hosts.size();
  if (count == 1) return group.hosts[0];
  RandomStream random(input.random);
  uint32_t best = group.hosts[random.Below(count)];
  uint32_t best_active = Active(input, best);
  for (uint32_t i = 1; i < policy().choice_count; ++i) {
    const uint32_t host = group.hosts[random.Below(count)];
    const uint32_t active = Active(input, host);
    if (active < best_active) {
      best = host;
      best_active = active;
    }
  }
  return best;
}

uint32_t LeastRequestBalancer::NextTurn(Group& group, const PickInput& input) {
  std::vector<Turn>& turns = group.turns;
  if (!group.started) {
    RandomStream random(input.random);
    for (Turn& turn : turns) turn.due = random.Unit() / turn.weight;
    for (size_t i = turns.size() / 2; i > 0; --i) SiftDown(turns, i - 1);
    group.started = true;
  }
  Turn& turn = turns.front();
  const uint32_t host = turn.host;
  turn.due += (Active(input, host) + 1.0) / turn.weight;
  SiftDown(turns, 0);
  return host;
}

}  // namespace metaprotocol
