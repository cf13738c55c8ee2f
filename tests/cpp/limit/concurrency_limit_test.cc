#include "src/limit/concurrency_limit.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <map>
#include <random>
#include <string_view>
#include <thread>
#include <vector>

#include "tests/cpp/support/units.h"

namespace metaprotocol {
namespace {

TEST(TimeHistogram, TellsPercentilesToAnEighth) {
  TimeHistogram times;
  EXPECT_EQ(times.Percentile(50), 0u);
  for (uint64_t us = 1; us <= 100000; ++us) times.Add(us);
  for (const uint32_t percent : {1u, 10u, 50u, 90u, 100u}) {
    const auto exact = static_cast<double>(percent) * 1000;
    const auto told = static_cast<double>(times.Percentile(percent));
    EXPECT_LE(told, exact * 1.001) << percent;
    EXPECT_GE(told, exact * 7 / 8 - 1) << percent;
  }
  times.Clear();
  times.Add(~uint64_t{0});
  times.Add(0);
  EXPECT_EQ(times.Percentile(50), 0u);
  EXPECT_GE(times.Percentile(100), uint64_t{1} << 63);
}

TEST(ConcurrencyLimit, NeverMoreThanTheNumberWhateverTheThreads) {
  ConcurrencyLimit limit({.max_requests = 7, .gradient = {}});
  std::atomic<uint32_t> inside{0};
  std::atomic<uint32_t> most{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      std::mt19937 random(static_cast<uint32_t>(i));
      uint32_t mine = 0;
      for (int step = 0; step < 5000; ++step) {
        if (random() % 2 == 0 && limit.Enter()) {
          ++mine;
          const uint32_t now = ++inside;
          uint32_t before = most;
          while (before < now && !most.compare_exchange_weak(before, now)) {
          }
        } else if (mine != 0) {
          --mine;
          --inside;
          limit.Leave();
        }
      }
      for (; mine != 0; --mine) {
        --inside;
        limit.Leave();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(most, 7u);
  EXPECT_EQ(limit.under_way(), 0u);
}

TEST(ConcurrencyTable, EachValueHasTheNumberAndNoneIsKeptThatIsNotUnderWay) {
  ConcurrencyTable table(2);
  const std::vector<std::string_view> one = {"a", "bc"};
  const std::vector<std::string_view> other = {"ab", "c"};
  const auto first = table.Enter(one);
  const auto second = table.Enter(one);
  ASSERT_TRUE(first && second);
  EXPECT_FALSE(table.Enter(one));
  EXPECT_TRUE(table.Enter(other)) << "a value of its own";
  table.Leave(*first);
  EXPECT_TRUE(table.Enter(one));
  EXPECT_EQ(table.size(), 2u);
  table.Leave(*first);
  table.Leave(*second);
  EXPECT_EQ(table.size(), 1u);
}

// A server that works on `capacity` requests at a time, each for `work_us`; more stand in line.
// Clients send as many as they are let, at most `demand` at a time.
class Server {
 public:
  Server(ConcurrencyLimit& limit, uint32_t capacity, uint64_t work_us)
      : limit_(limit), capacity_(capacity), work_us_(work_us) {}

  uint32_t capacity() const { return capacity_; }
  void SetCapacity(uint32_t capacity) { capacity_ = capacity; }
  uint64_t done() const { return done_; }
  uint32_t most() const { return most_; }
  void Forget() { done_ = most_ = 0; }

  void RunFor(uint64_t duration_us, uint32_t demand) {
    const uint64_t end = now_ + duration_us;
    while (now_ < end) {
      while (under_way_ < demand && limit_.Enter()) {
        EXPECT_LT(under_way_, limit_.settings().max_requests);
        ++under_way_;
        most_ = std::max(most_, under_way_);
        line_.push_back(now_);
      }
      while (ends_.size() < capacity_ && taken_ < line_.size()) {
        ends_.emplace(now_ + work_us_ + random_() % (work_us_ / 10), line_[taken_++]);
      }
      if (ends_.empty()) {
        now_ += kMs;
        continue;
      }
      const auto next = ends_.begin();
      now_ = std::max(now_, next->first);
      limit_.Took(next->second, now_);
      limit_.Leave();
      --under_way_;
      ++done_;
      ends_.erase(next);
    }
  }

 private:
  ConcurrencyLimit& limit_;
  uint32_t capacity_;
  const uint64_t work_us_;
  uint64_t now_ = 1;
  uint64_t done_ = 0;
  uint32_t under_way_ = 0;
  uint32_t most_ = 0;
  std::vector<uint64_t> line_;  // when they were sent
  size_t taken_ = 0;
  std::multimap<uint64_t, uint64_t> ends_;  // end and beginning
  std::mt19937 random_{7};
};

// The laws of the limit that follows: an overloaded server is kept at work with a line that is
// bounded by a few times what it works on, whatever the demand; and a server that gets faster is
// given more.
TEST(ConcurrencyLimit, FollowsWhatAServerCanDo) {
  GradientSettings gradient;
  gradient.min_time_interval_us = 10 * kSecond;
  for (const uint32_t capacity : {8u, 30u}) {
    ConcurrencyLimit limit({.max_requests = 2000, .gradient = gradient});
    Server server(limit, capacity, 10 * kMs);
    server.RunFor(3 * kSecond, 2000);
    server.Forget();
    server.RunFor(5 * kSecond, 2000);
    const double possible = 5.0 * capacity / 0.0105;
    EXPECT_GT(static_cast<double>(server.done()), 0.8 * possible) << "it is kept at work";
    EXPECT_LT(server.most(), 4 * capacity + 16) << "and nobody waits for long";
    server.SetCapacity(4 * capacity);
    server.RunFor(15 * kSecond, 2000);
    server.Forget();
    server.RunFor(5 * kSecond, 2000);
    EXPECT_GT(static_cast<double>(server.done()), 2.5 * possible) << "it is given more";
  }
}

TEST(ConcurrencyLimit, FewRequestsAreUnderWayWhileTheShortestTimeIsMeasured) {
  GradientSettings gradient;
  gradient.min_requests = 2;
  ConcurrencyLimit limit({.max_requests = 100, .gradient = gradient});
  EXPECT_EQ(limit.limit(), 2u);
  Server server(limit, 50, 10 * kMs);
  server.RunFor(100 * kMs, 1000);
  EXPECT_LE(server.most(), 2u);
  server.RunFor(10 * kSecond, 1000);
  EXPECT_GT(limit.limit(), 10u);
  EXPECT_LE(server.most(), 100u);
}

}  // namespace
}  // namespace metaprotocol
