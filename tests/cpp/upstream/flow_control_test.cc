#include "src/upstream/flow_control.h"

#include <gtest/gtest.h>

namespace metaprotocol {
namespace {

constexpr size_t kKiB = 1024;
constexpr size_t kMiB = 1024 * kKiB;

TEST(FlowControl, NothingWrittenIsNothingOwed) {
  const FlowControl flow(16 * kMiB);
  EXPECT_EQ(flow.Owed(0), 0u);
  EXPECT_FALSE(flow.WantsProbe(0));
}

TEST(FlowControl, FewBytesAreNeitherOwedNorAskedAbout) {
  const FlowControl flow(16 * kMiB);
  constexpr uint64_t kFew = FlowControl::kMostUnprobed;
  EXPECT_EQ(flow.Owed(kFew - 1), 0u);
  EXPECT_FALSE(flow.WantsProbe(kFew - 1));
  EXPECT_EQ(flow.Owed(kFew), kFew);
  EXPECT_TRUE(flow.WantsProbe(kFew));
}

TEST(FlowControl, OnlyOneProbeIsUnderWay) {
  FlowControl flow(16 * kMiB);
  flow.Probed(kMiB);
  EXPECT_FALSE(flow.WantsProbe(2 * kMiB));
  EXPECT_EQ(flow.Owed(2 * kMiB), 2 * kMiB);
}

TEST(FlowControl, AnAnswerProvesWhatWasWrittenBeforeTheQuestionOnly) {
  FlowControl flow(16 * kMiB);
  flow.Probed(kMiB);
  flow.Drained();
  EXPECT_EQ(flow.Owed(3 * kMiB), 2 * kMiB);
  EXPECT_TRUE(flow.WantsProbe(3 * kMiB));
  flow.Probed(3 * kMiB);
  flow.Drained();
  EXPECT_EQ(flow.Owed(3 * kMiB), 0u);
}

TEST(FlowControl, AnAnswerToNoQuestionProvesNothing) {
  FlowControl flow(16 * kMiB);
  flow.Drained();
  EXPECT_EQ(flow.Owed(kMiB), kMiB);
  flow.Probed(kMiB);
  flow.Drained();
  flow.Drained();
  EXPECT_EQ(flow.Owed(2 * kMiB), kMiB);
}

TEST(FlowControl, SmallBoundsAreAskedAboutInProportion) {
  const FlowControl flow(8 * kKiB);
  EXPECT_TRUE(flow.WantsProbe(kKiB));
  EXPECT_EQ(flow.Owed(kKiB), kKiB);
  const FlowControl tiny(1);
  EXPECT_TRUE(tiny.WantsProbe(1));
}

}  // namespace
}  // namespace metaprotocol
