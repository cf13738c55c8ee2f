#include "src/route/weighted_schedule.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

namespace metaprotocol {
namespace {

// Any run of one period's length has the exact counts (the schedule repeats), and each beginning of
// a period has each index's exact share, rounded down or up.
void ExpectExact(const std::vector<uint32_t>& weights) {
  const std::vector<uint16_t> schedule = WeightedSchedule(weights);
  const uint64_t sum = std::accumulate(weights.begin(), weights.end(), uint64_t{0});
  ASSERT_EQ(schedule.size(), ScheduleLength(weights));
  std::vector<uint64_t> counts(weights.size());
  for (size_t taken = 1; taken <= schedule.size(); ++taken) {
    ASSERT_LT(schedule[taken - 1], weights.size());
    ++counts[schedule[taken - 1]];
    for (size_t i = 0; i < weights.size(); ++i) {
      const uint64_t low = taken * weights[i] / sum;
      const uint64_t high = (taken * weights[i] + sum - 1) / sum;
      ASSERT_GE(counts[i], low) << "index " << i << " after " << taken;
      ASSERT_LE(counts[i], high) << "index " << i << " after " << taken;
    }
  }
}

TEST(WeightedSchedule, InterleavesInsteadOfTakingBlocks) {
  EXPECT_EQ(WeightedSchedule(std::vector<uint32_t>{1, 1}), (std::vector<uint16_t>{0, 1}));
  EXPECT_EQ(WeightedSchedule(std::vector<uint32_t>{2, 1, 1}).size(), 4u);
  ExpectExact({2, 1, 1});
}

TEST(WeightedSchedule, IsAsShortAsTheWeightsAllow) {
  EXPECT_EQ(ScheduleLength(std::vector<uint32_t>{90, 10}), 10u);
  EXPECT_EQ(ScheduleLength(std::vector<uint32_t>{1000000, 1000000}), 2u);
  EXPECT_EQ(ScheduleLength(std::vector<uint32_t>{0, 7}), 1u);
  EXPECT_EQ(ScheduleLength(std::vector<uint32_t>{0, 0}), 0u);
  EXPECT_EQ(ScheduleLength(std::vector<uint32_t>{UINT32_MAX, UINT32_MAX - 1}),
            uint64_t{UINT32_MAX} * 2 - 1);
}

TEST(WeightedSchedule, LeavesOutWeightlessOnes) {
  EXPECT_EQ(WeightedSchedule(std::vector<uint32_t>{0, 7, 0}), (std::vector<uint16_t>{1}));
  ExpectExact({3, 0, 2});
}

TEST(WeightedSchedule, EveryRunOfAHundredIsExactForPercentages) {
  const std::vector<uint32_t> weights = {89, 10, 1};
  const std::vector<uint16_t> schedule = WeightedSchedule(weights);
  for (size_t start = 0; start < 100; ++start) {
    std::vector<uint32_t> counts(3);
    for (size_t i = 0; i < 100; ++i) ++counts[schedule[(start + i) % schedule.size()]];
    EXPECT_EQ(counts, weights);
  }
}

TEST(WeightedSchedule, KeepsWithinATurnOfTheExactShareForRandomWeights) {
  std::mt19937 random(1);
  for (int i = 0; i < 300; ++i) {
    std::vector<uint32_t> weights(1 + random() % 8);
    for (uint32_t& weight : weights) weight = random() % 60;
    if (ScheduleLength(weights) != 0) ExpectExact(weights);
    if (HasFatalFailure()) return;
  }
}

TEST(WeightedSchedule, ReachesItsGreatestLength) {
  ExpectExact({9999, 1});
  std::vector<uint32_t> many(128, 77);
  many[0] = 10000 - 77 * 127;
  EXPECT_EQ(ScheduleLength(many), kMaxScheduleLength);
  ExpectExact(many);
}

}  // namespace
}  // namespace metaprotocol
