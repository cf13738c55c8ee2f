// Buckets for values: what each gets, whatever others do, and what they cost.
#include "src/limit/token_bucket_table.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>
#include <string_view>

#include "tests/cpp/support/units.h"

namespace metaprotocol {
namespace {

using Taken = TokenBucketTable::Taken;

TokenBucketTable::Settings Settings(TokenBucketSettings bucket, uint32_t max_buckets) {
  return {bucket, max_buckets, {"user"}};
}

Taken Take(TokenBucketTable& table, std::string_view value, uint64_t now_us) {
  return table.Take({&value, 1}, now_us);
}

uint32_t TakeAll(TokenBucketTable& table, std::string_view value, uint64_t now_us) {
  uint32_t taken = 0;
  while (taken < 1000 && Take(table, value, now_us).passes) ++taken;
  return taken;
}

// What one value may get at most: a bucket of its own, full when the table was made, which is
// filled when the table's are.
class OwnBucket {
 public:
  OwnBucket(const TokenBucketSettings& settings, uint64_t begin_us)
      : settings_(settings), begin_us_(begin_us), level_(settings.max_tokens) {}

  bool Take(uint64_t now_us) {
    const uint64_t fills = (now_us - begin_us_) / settings_.fill_interval_us;
    const uint64_t added = (fills - fills_) * settings_.tokens_per_fill;
    level_ = std::min<uint64_t>(settings_.max_tokens, level_ + added);
    fills_ = fills;
    if (level_ == 0) return false;
    --level_;
    return true;
  }

 private:
  TokenBucketSettings settings_;
  uint64_t begin_us_;
  uint64_t level_;
  uint64_t fills_ = 0;
};

TEST(TokenBucketTable, EachValueHasItsOwnTokens) {
  TokenBucketTable table(Settings({3, 1, kSecond}, 10));
  EXPECT_EQ(TakeAll(table, "a", 5 * kSecond), 3u);
  EXPECT_EQ(TakeAll(table, "b", 5 * kSecond), 3u);
  EXPECT_EQ(TakeAll(table, "", 5 * kSecond), 3u);
  EXPECT_EQ(TakeAll(table, "a", 6 * kSecond), 1u);
  EXPECT_EQ(TakeAll(table, "a", 60 * kSecond), 3u);
  EXPECT_EQ(table.size(), 3u);
}

TEST(TokenBucketTable, ValuesOfSeveralKeysAreNotRunTogether) {
  TokenBucketTable table({{1, 1, kSecond}, 10, {"a", "b"}});
  for (const auto& values :
       {std::array<std::string_view, 2>{"ab", "c"}, {"a", "bc"}, {"abc", ""}}) {
    EXPECT_TRUE(table.Take(values, 0).passes);
    EXPECT_FALSE(table.Take(values, 0).passes);
  }
}

TEST(TokenBucketTable, WithRoomForAllOfThemEachIsLikeABucketOfItsOwn) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 100; ++round) {
    const TokenBucketSettings settings{static_cast<uint32_t>(1 + random() % 6),
                                       static_cast<uint32_t>(1 + random() % 7),
                                       1000 * (1 + random() % 50)};
    TokenBucketTable table(Settings(settings, 5));
    std::map<std::string, OwnBucket> own;
    uint64_t now = random() % 1000000000;
    const uint64_t begin = now;
    for (int i = 0; i < 500; ++i) {
      if (i != 0 && random() % 4 == 0) now += random() % settings.fill_interval_us;
      const std::string value(1, static_cast<char>('a' + random() % 5));
      OwnBucket& bucket = own.try_emplace(value, settings, begin).first->second;
      const Taken taken = Take(table, value, now);
      ASSERT_EQ(taken.passes, bucket.Take(now));
      ASSERT_FALSE(taken.shared);
    }
  }
}

// The law, with more values than there is room for, of which some come often and some once.
TEST(TokenBucketTable, NoValueGetsMoreThanABucketLetsThroughHoweverManyThereAre) {
  std::mt19937_64 random(2);
  uint64_t shared = 0;
  for (int round = 0; round < 300; ++round) {
    const TokenBucketSettings settings{static_cast<uint32_t>(1 + random() % 6),
                                       static_cast<uint32_t>(1 + random() % 7),
                                       1000 * (1 + random() % 50)};
    TokenBucketTable table(Settings(settings, static_cast<uint32_t>(1 + random() % 8)));
    std::map<uint64_t, OwnBucket> own;
    uint64_t now = random() % 1000000000;
    const uint64_t begin = now;
    for (int i = 0; i < 1000; ++i) {
      if (i != 0 && random() % 6 == 0) now += random() % (2 * settings.fill_interval_us);
      const uint64_t value = random() % (random() % 2 == 0 ? 4 : 30);
      OwnBucket& bucket = own.try_emplace(value, settings, begin).first->second;
      const Taken taken = Take(table, std::to_string(value), now);
      shared += taken.shared ? 1 : 0;
      if (taken.passes) {
        ASSERT_TRUE(bucket.Take(now)) << round << ' ' << i;
      }
      ASSERT_LE(table.size(), table.settings().max_buckets);
    }
  }
  EXPECT_GT(shared, 10000u) << "not what this is about";
}

TEST(TokenBucketTable, AMillionValuesOfAnAttackerChangeNothingForThoseWhoAreThere) {
  constexpr uint32_t kBuckets = 1000;
  TokenBucketTable table(Settings({5, 5, 60 * kSecond}, kBuckets));
  EXPECT_EQ(TakeAll(table, "spent", 0), 5u);
  EXPECT_TRUE(Take(table, "used", 0).passes);
  uint64_t passed = 0;
  for (int i = 0; i < 1000000; ++i) passed += Take(table, std::to_string(i), 1).passes ? 1 : 0;
  EXPECT_EQ(passed, kBuckets - 2 + 5);
  EXPECT_EQ(table.size(), kBuckets);
  EXPECT_EQ(TakeAll(table, "spent", 2), 0u) << "no fresh bucket";
  EXPECT_EQ(TakeAll(table, "used", 2), 4u) << "and no tokens lost";
  EXPECT_FALSE(Take(table, "new", 2).passes);
  // An interval later there is room for new values, and those who are there go on as before.
  const uint64_t later = 60 * kSecond;
  EXPECT_EQ(TakeAll(table, "spent", later), 5u);
  EXPECT_EQ(TakeAll(table, "new", later), 5u);
  EXPECT_EQ(table.size(), kBuckets);
}

TEST(TokenBucketTable, AValueThatFindsRoomAfterAllBringsNoNewTokens) {
  TokenBucketTable table(Settings({4, 1, kSecond}, 1));
  EXPECT_TRUE(Take(table, "first", 0).passes);
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(Take(table, "second", 0).passes);
  EXPECT_FALSE(Take(table, "second", 0).passes);
  const Taken taken = Take(table, "second", kSecond);  // the first one's is full again
  EXPECT_TRUE(taken.passes) << "one was filled in";
  EXPECT_FALSE(taken.shared);
  EXPECT_FALSE(Take(table, "second", kSecond).passes);
}

TEST(TokenBucketTable, LooksAtEachBucketOnceBetweenTwoFills) {
  // Slowly filled buckets that are all in use: a value more is told at once that there is no room.
  constexpr uint32_t kBuckets = 100000;
  TokenBucketTable table(Settings({1000, 1, 3600 * kSecond}, kBuckets));
  for (uint32_t i = 0; i < kBuckets; ++i) Take(table, std::to_string(i), 0);
  for (uint32_t i = 0; i < 1000000; ++i)
    ASSERT_TRUE(Take(table, "x" + std::to_string(i), 1).shared);
}

TEST(TokenBucketTable, AClockThatLagsBehindAnothersGetsNothingThatIsNotThere) {
  TokenBucketTable table(Settings({5, 5, kSecond}, 2));
  EXPECT_EQ(TakeAll(table, "a", 10 * kSecond), 5u);
  EXPECT_EQ(TakeAll(table, "a", 9 * kSecond), 0u);
  EXPECT_EQ(TakeAll(table, "a", 11 * kSecond), 5u);
  EXPECT_EQ(TakeAll(table, "a", 10 * kSecond), 0u);
}

}  // namespace
}  // namespace metaprotocol
