// Whose turn is it, when each of n takers shall have turns in exact proportion to its weight and as
// evenly spread as can be: the core of weighted round robin.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "src/base/random_stream.h"

namespace metaprotocol {

// Earliest deadline first. The k-th turn (k = 1, 2, ...) of a taker with weight w is due at
// (k - 1/2) / w; the next turn is the one due first. In every stretch of sum(w) turns, wherever it
// begins, each taker has exactly w. Deadlines are kept as fractions and compared by multiplication,
// so nothing drifts. O(log n) a turn, O(n) to build.
class WeightedTurns {
 public:
  // Empty: nobody.
  WeightedTurns() = default;

  // Weights of 0 count as 1; they are at most 2^31 - 1. A taker's number is its place in `weights`.
  explicit WeightedTurns(std::span<const uint32_t> weights);

  bool empty() const { return heap_.empty(); }

  // Lets the turns begin somewhere else in the cycle, so that workers that start together do not
  // all begin with the same takers. O(n).
  void BeginAnywhere(RandomStream& random);

  // The taker whose turn it is. Not to be called when empty.
  uint32_t Next();

 private:
  struct Taker {
    uint64_t round;  // whole cycles done
    uint64_t turn;   // 2k - 1 for the k-th turn of this round
    uint64_t weight;
    uint32_t taker;
  };

  static bool Before(const Taker& a, const Taker& b);
  void SiftDown(size_t at);
  void Heapify();

  std::vector<Taker> heap_;  // a binary min-heap by deadline
};

}  // namespace metaprotocol
