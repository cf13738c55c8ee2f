#include "src/balance/weighted_turns.h"

#include <algorithm>
#include <utility>

namespace metaprotocol {
namespace {

constexpr uint32_t kMaxWeight = 0x7fffffff;

}  // namespace

WeightedTurns::WeightedTurns(std::span<const uint32_t> weights) {
  heap_.reserve(weights.size());
  for (uint32_t i = 0; i < weights.size(); ++i) {
    heap_.push_back({0, 1, std::clamp<uint32_t>(weights[i], 1, kMaxWeight), i});
  }
  Heapify();
}

void WeightedTurns::BeginAnywhere(RandomStream& random) {
  // At the time t / 2^32 of the first round everybody's next turn is the first one that is due then
  // or later: (2k - 1) / 2w >= t / 2^32.
  const uint64_t t = random.Below(uint64_t{1} << 32);
  for (Taker& taker : heap_) {
    const uint64_t least = (taker.weight * t + 0x7fffffff) >> 31;
    taker.round = 0;
    taker.turn = least | 1;
    if (taker.turn > 2 * taker.weight) {
      taker.turn = 1;
      taker.round = 1;
    }
  }
  Heapify();
}

uint32_t WeightedTurns::Next() {
  Taker& first = heap_.front();
  const uint32_t taker = first.taker;
  first.turn += 2;
  if (first.turn > 2 * first.weight) {
    first.turn = 1;
    ++first.round;
  }
  SiftDown(0);
  return taker;
}

bool WeightedTurns::Before(const Taker& a, const Taker& b) {
  if (a.round != b.round) return a.round < b.round;
  // turn <= 2 * weight < 2^32, so that the products fit.
  const uint64_t due_a = a.turn * b.weight;
  const uint64_t due_b = b.turn * a.weight;
  return due_a != due_b ? due_a < due_b : a.taker < b.taker;
}

void WeightedTurns::SiftDown(size_t at) {
  const Taker moving = heap_[at];
  for (size_t child = 2 * at + 1; child < heap_.size(); child = 2 * at + 1) {
    if (child + 1 < heap_.size() && Before(heap_[child + 1], heap_[child])) ++child;
    if (!Before(heap_[child], moving)) break;
    heap_[at] = heap_[child];
    at = child;
  }
  heap_[at] = moving;
}

void WeightedTurns::Heapify() {
  for (size_t i = heap_.size() / 2; i > 0; --i) SiftDown(i - 1);
}

}  // namespace metaprotocol
