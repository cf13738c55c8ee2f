// That a comparison of costs can fail: quadratic work is told from linear.
#include "tests/cpp/support/cpu_time.h"

#include <gtest/gtest.h>

#include <cstddef>

namespace metaprotocol::test {
namespace {

void Count(size_t steps) {
  volatile size_t counter = 0;
  for (size_t i = 0; i < steps; ++i) counter = counter + 1;
}

TEST(CpuTime, GrowthOfUnitCostTellsLinearFromQuadratic) {
  EXPECT_LT(GrowthOfUnitCost(20000, [](size_t n) { return [n] { Count(n); }; }), kLinear);
  EXPECT_GT(GrowthOfUnitCost(200, [](size_t n) { return [n] { Count(n * n); }; }), kLinear);
}

}  // namespace
}  // namespace metaprotocol::test
