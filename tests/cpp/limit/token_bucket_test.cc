// Token buckets: how many requests pass, and when.
#include "src/limit/token_bucket.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "tests/cpp/support/units.h"

namespace metaprotocol {
namespace {

uint32_t TakeAll(TokenBucket& bucket, uint64_t now_us, uint32_t most = 1000) {
  uint32_t taken = 0;
  while (taken < most && bucket.Take(now_us)) ++taken;
  return taken;
}

TEST(TokenBucket, BeginsFullAndIsFilledAtEachInterval) {
  TokenBucket bucket({10, 3, kSecond});
  EXPECT_EQ(TakeAll(bucket, 100 * kSecond), 10u);
  EXPECT_EQ(TakeAll(bucket, 101 * kSecond - 1), 0u);
  EXPECT_EQ(TakeAll(bucket, 101 * kSecond), 3u);
  EXPECT_EQ(TakeAll(bucket, 103 * kSecond), 6u);
}

TEST(TokenBucket, HoldsNoMoreThanItsMaximum) {
  TokenBucket bucket({10, 3, kSecond});
  EXPECT_TRUE(bucket.Take(kSecond));
  EXPECT_EQ(TakeAll(bucket, 3600 * kSecond), 10u);
  TokenBucket more_than_fits({2, 50, kSecond});
  EXPECT_EQ(TakeAll(more_than_fits, 0), 2u);
  EXPECT_EQ(TakeAll(more_than_fits, kSecond), 2u);
}

TEST(TokenBucket, AClockThatLagsBehindAnothersGetsNothingThatIsNotThere) {
  TokenBucket bucket({5, 5, kSecond});
  EXPECT_EQ(TakeAll(bucket, 10 * kSecond), 5u);
  EXPECT_EQ(TakeAll(bucket, 9 * kSecond), 0u);
  EXPECT_EQ(TakeAll(bucket, 11 * kSecond), 5u);
}

TEST(TokenBucket, CountsAsASimpleOneDoes) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 200; ++round) {
    const TokenBucketSettings settings{static_cast<uint32_t>(1 + random() % 20),
                                       static_cast<uint32_t>(1 + random() % 25),
                                       1000 * (1 + random() % 50)};
    TokenBucket bucket(settings);
    uint64_t now = random() % 1000000000;
    uint64_t level = settings.max_tokens;
    uint64_t next_fill = now + settings.fill_interval_us;
    for (int i = 0; i < 300; ++i) {
      if (i != 0 && random() % 2 == 0) now += random() % (3 * settings.fill_interval_us);
      for (; next_fill <= now; next_fill += settings.fill_interval_us) {
        level = std::min<uint64_t>(settings.max_tokens, level + settings.tokens_per_fill);
      }
      ASSERT_EQ(bucket.Take(now), level != 0);
      if (level != 0) --level;
    }
  }
}

TEST(TokenBucket, TheLargestNumbersDoNotOverflow) {
  const uint32_t most = std::numeric_limits<uint32_t>::max();
  TokenBucket bucket({most, most, 1000});
  const uint64_t a_century = uint64_t{100} * 366 * 86400 * kSecond;
  for (const uint64_t now : {uint64_t{0}, kSecond, a_century}) {
    EXPECT_EQ(TakeAll(bucket, now), 1000u);
  }
  TokenBucket one({1, most, 1000});
  EXPECT_EQ(TakeAll(one, a_century), 1u);
  EXPECT_EQ(TakeAll(one, a_century + 1000), 1u);
}

}  // namespace
}  // namespace metaprotocol
