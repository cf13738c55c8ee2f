// One bucket for all threads: together they get what is in it, and no more.
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "src/limit/token_bucket.h"
#include "src/limit/token_bucket_table.h"

namespace metaprotocol {
namespace {

TEST(TokenBucketThreads, ShareWhatIsThere) {
  constexpr uint32_t kTokens = 20000;
  TokenBucket bucket({kTokens, 100, 1000});
  std::atomic<uint64_t> now{0};
  std::atomic<uint64_t> taken{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 20000; ++n) {
        if (bucket.Take(now.fetch_add(1, std::memory_order_relaxed))) {
          taken.fetch_add(1, std::memory_order_relaxed);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  // 80,000 us have passed, with a fill of 100 after each thousand from some thread's first use.
  EXPECT_EQ(taken.load(), kTokens + 79 * 100);
}

TEST(TokenBucketThreads, ShareTheBucketsOfValues) {
  TokenBucketTable table({{100, 100, 1000 * 1000}, 10, {"user"}});
  std::atomic<uint64_t> taken{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 20000; ++n) {
        const std::string value = std::to_string(n % 50);
        const std::string_view view = value;
        if (table.Take({&view, 1}, 1).passes) taken.fetch_add(1, std::memory_order_relaxed);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(taken.load(), 10 * 100 + 100)
      << "those that there is room for, and the one of the rest";
}

}  // namespace
}  // namespace metaprotocol
