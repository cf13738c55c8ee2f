// Correlation ids: never given twice, found in one step, and used up at some time.
#include "src/upstream/id_table.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <vector>

#include "src/upstream/attempt.h"

namespace metaprotocol {
namespace {

class IdTableTest : public testing::Test {
 protected:
  Attempt attempts_[8];
};

TEST_F(IdTableTest, FindsWhoWaitsUnderAnId) {
  IdTable table(64, 1);
  const uint64_t one = table.Insert(&attempts_[1]);
  const uint64_t two = table.Insert(&attempts_[2]);
  EXPECT_NE(one, 0u);
  EXPECT_NE(one, two);
  EXPECT_EQ(table.Find(one), &attempts_[1]);
  EXPECT_EQ(table.Find(two), &attempts_[2]);
  EXPECT_EQ(table.Find(0), nullptr);
  EXPECT_EQ(table.Find(two + 1), nullptr);
  EXPECT_EQ(table.Find(~uint64_t{0}), nullptr);
  table.Erase(one);
  EXPECT_EQ(table.Find(one), nullptr);
  EXPECT_EQ(table.Find(two), &attempts_[2]);
  table.Erase(one);  // again, which is nothing
  EXPECT_EQ(table.Find(two), &attempts_[2]);
}

TEST_F(IdTableTest, KnowsWhichIdsItHasGiven) {
  IdTable table(64, 1);
  const uint64_t id = table.Insert(&attempts_[0]);
  EXPECT_TRUE(table.Issued(id));
  table.Erase(id);
  EXPECT_TRUE(table.Issued(id));
  EXPECT_FALSE(table.Issued(id + 1));
  EXPECT_FALSE(table.Issued(0));
  IdTable later(64, 100);
  later.Insert(&attempts_[0]);
  EXPECT_FALSE(later.Issued(99));
  EXPECT_TRUE(later.Issued(100));
}

TEST_F(IdTableTest, ALateReplyIsKnownOnceAndOnlyToWhatWasGivenUp) {
  IdTable table(64, 1);
  const uint64_t given_up = table.Insert(&attempts_[0]);
  const uint64_t waiting = table.Insert(&attempts_[1]);
  const uint64_t answered = table.Insert(&attempts_[2]);
  table.Erase(answered);
  table.GiveUp(given_up);
  table.GiveUp(given_up);  // again, which is nothing
  table.GiveUp(answered);  // likewise
  EXPECT_EQ(table.given_up(), 1u);
  EXPECT_EQ(table.Find(given_up), nullptr);
  EXPECT_FALSE(table.CameLate(waiting));
  EXPECT_FALSE(table.CameLate(answered));
  EXPECT_FALSE(table.CameLate(waiting + 100));
  EXPECT_FALSE(table.CameLate(0));
  EXPECT_TRUE(table.CameLate(given_up));
  EXPECT_FALSE(table.CameLate(given_up)) << "a second reply is none";
  EXPECT_EQ(table.given_up(), 0u);
  EXPECT_EQ(table.Find(waiting), &attempts_[1]);
}

TEST_F(IdTableTest, AnIdThatWasGivenUpKeepsItsSlotUntilItsReplyComes) {
  IdTable table(64, 1);
  std::vector<uint64_t> ids;
  for (int i = 0; i < 1000; ++i) {
    ids.push_back(table.Insert(&attempts_[0]));
    table.GiveUp(ids.back());
  }
  for (int i = 0; i < 1000; ++i) table.Erase(table.Insert(&attempts_[1]));
  EXPECT_EQ(table.given_up(), 1000u);
  for (const uint64_t id : ids) EXPECT_TRUE(table.CameLate(id));
}

TEST_F(IdTableTest, NeverGivesAnIdTwiceAndFindsWhatAMapFinds) {
  std::mt19937_64 random(3);
  for (int run = 0; run < 20; ++run) {
    IdTable table = IdTable::BeginningAnywhere(run % 2 == 0 ? 32 : 64, random());
    std::map<uint64_t, Attempt*> model;
    uint64_t last = 0;
    const uint64_t most = 1 + random() % 3000;
    for (int step = 0; step < 20000; ++step) {
      if (model.size() < most && random() % 2 == 0) {
        Attempt* attempt = &attempts_[random() % 8];
        const uint64_t id = table.Insert(attempt);
        ASSERT_GT(id, last);
        last = id;
        model.emplace(id, attempt);
      } else if (!model.empty()) {
        // The oldest often stays: a slow request must not stop the others.
        auto it = random() % 4 == 0 ? model.begin() : std::prev(model.end());
        ASSERT_EQ(table.Find(it->first), it->second);
        table.Erase(it->first);
        ASSERT_EQ(table.Find(it->first), nullptr);
        model.erase(it);
      }
    }
    for (const auto& [id, attempt] : model) EXPECT_EQ(table.Find(id), attempt);
  }
}

TEST_F(IdTableTest, OneSlowRequestDoesNotMakeItGrowForEver) {
  IdTable table(64, 1);
  const uint64_t slow = table.Insert(&attempts_[0]);
  uint64_t last = 0;
  for (int i = 0; i < 1000000; ++i) {
    last = table.Insert(&attempts_[1]);
    table.Erase(last);
  }
  EXPECT_EQ(table.Find(slow), &attempts_[0]);
  // Ids are left out only where the slow one's slot comes round, once per round of 64.
  EXPECT_LT(last, 1000000u + 1000000u / 32);
}

TEST_F(IdTableTest, BeginsWhereManyIdsAreLeft) {
  for (const uint64_t random : {uint64_t{0}, uint64_t{1} << 40, ~uint64_t{0}}) {
    for (const int bits : {32, 64}) {
      IdTable table = IdTable::BeginningAnywhere(bits, random);
      const uint64_t id = table.Insert(&attempts_[0]);
      EXPECT_GT(id, 0u);
      EXPECT_LE(id, (bits == 32 ? IdTable::kMax32 : uint64_t{1} << 62) / 2 + 1);
      EXPECT_FALSE(table.NearlyExhausted());
    }
  }
}

TEST_F(IdTableTest, SaysInTimeThatIdsOf32BitsAreRunningOut) {
  IdTable table(32, IdTable::kMax32 - (IdTable::kMax32 >> 8) - 2);
  EXPECT_FALSE(table.NearlyExhausted());
  for (int i = 0; i < 4; ++i) table.Erase(table.Insert(&attempts_[0]));
  EXPECT_TRUE(table.NearlyExhausted());
}

TEST_F(IdTableTest, GivesNoIdBeyondTheLast) {
  IdTable table(32, IdTable::kMax32 - 1);
  EXPECT_EQ(table.Insert(&attempts_[0]), IdTable::kMax32 - 1);
  EXPECT_EQ(table.Insert(&attempts_[0]), IdTable::kMax32);
  EXPECT_EQ(table.Insert(&attempts_[0]), 0u);
  EXPECT_EQ(table.Insert(&attempts_[0]), 0u);
  EXPECT_EQ(table.Find(IdTable::kMax32), &attempts_[0]);
  // Positive where ids are signed.
  EXPECT_LE(IdTable::kMax32, uint64_t{0x7fffffff});
}

}  // namespace
}  // namespace metaprotocol
