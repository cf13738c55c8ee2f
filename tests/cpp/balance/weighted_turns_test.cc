#include "src/balance/weighted_turns.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "src/base/random_stream.h"

namespace metaprotocol {
namespace {

TEST(WeightedTurns, GivesEveryStretchOfOneCycleExactProportions) {
  RandomStream random(5);
  for (int round = 0; round < 200; ++round) {
    std::vector<uint32_t> weights;
    const uint64_t takers = 1 + random.Below(8);
    for (uint64_t i = 0; i < takers; ++i) {
      weights.push_back(static_cast<uint32_t>(1 + random.Below(9)));
    }
    const uint32_t cycle = std::accumulate(weights.begin(), weights.end(), 0U);
    WeightedTurns turns(weights);
    if (round % 2 == 1) turns.BeginAnywhere(random);
    std::vector<uint32_t> sequence;
    for (uint32_t i = 0; i < 3 * cycle; ++i) sequence.push_back(turns.Next());
    for (uint32_t begin = 0; begin <= 2 * cycle; ++begin) {
      std::vector<uint32_t> counts(weights.size());
      for (uint32_t i = 0; i < cycle; ++i) ++counts[sequence[begin + i]];
      ASSERT_EQ(counts, weights);
    }
  }
}

TEST(WeightedTurns, SpreadsTheTurnsOfAHeavyTakerEvenly) {
  const std::vector<uint32_t> weights = {5, 1, 1};
  WeightedTurns turns(weights);
  std::vector<uint32_t> sequence;
  for (int i = 0; i < 7; ++i) sequence.push_back(turns.Next());
  EXPECT_EQ(sequence, (std::vector<uint32_t>{0, 0, 0, 1, 2, 0, 0}));
}

TEST(WeightedTurns, StaysCloseToTheIdealShareAtEveryStep) {
  const std::vector<uint32_t> weights = {1, 2, 3, 10, 50, 17, 4, 1};
  const double sum = std::accumulate(weights.begin(), weights.end(), 0);
  WeightedTurns turns(weights);
  std::vector<double> counts(weights.size());
  for (int step = 1; step <= 2000; ++step) {
    counts[turns.Next()] += 1;
    for (size_t i = 0; i < weights.size(); ++i) {
      ASSERT_LT(std::abs(counts[i] - step * weights[i] / sum), 1.5) << "step " << step;
    }
  }
}

TEST(WeightedTurns, DoesNotDriftWithLargeCoprimeWeights) {
  const std::vector<uint32_t> weights = {1000003, 2000003};
  WeightedTurns turns(weights);
  std::vector<uint32_t> counts(2);
  for (uint32_t i = 0; i < 3000006; ++i) ++counts[turns.Next()];
  EXPECT_EQ(counts, weights);
}

}  // namespace
}  // namespace metaprotocol
