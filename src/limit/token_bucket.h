// A token bucket that all workers of the process share.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>

namespace metaprotocol {

struct TokenBucketSettings {
  uint32_t max_tokens = 1;
  uint32_t tokens_per_fill = 1;
  uint64_t fill_interval_us = 1000 * 1000;

  bool operator==(const TokenBucketSettings&) const = default;
};

// A thousand million a second limit nothing, and more would overflow the sums some day.
inline uint64_t PerFill(const TokenBucketSettings& settings) {
  return std::min<uint64_t>(settings.tokens_per_fill, settings.fill_interval_us * 1000);
}

// What a bucket has left after a request has asked it for a token.
struct BucketLevel {
  uint32_t most = 0;  // tokens; 0: there was no bucket
  uint32_t remaining = 0;
  uint64_t fill_in_us = 0;  // until the next fill
};

// Of a bucket that was asked for the token after `spent` when `filled` had been filled in.
inline BucketLevel LevelOf(const TokenBucketSettings& settings, uint64_t spent, uint64_t filled,
                           uint64_t passed_us) {
  const uint64_t missing = std::min<uint64_t>(settings.max_tokens, spent - filled);
  return {.most = settings.max_tokens,
          .remaining = settings.max_tokens - static_cast<uint32_t>(missing),
          .fill_in_us = settings.fill_interval_us - passed_us % settings.fill_interval_us};
}

// Begins full; fills come at multiples of the interval from its first use on. So how much has been
// filled in follows from the time alone, and one word is the whole state: how many tokens have been
// spent, those that overflowed among them.
class TokenBucket {
 public:
  explicit TokenBucket(const TokenBucketSettings& settings)
      : settings_(settings), per_fill_(PerFill(settings)) {}

  // Takes a token; false if there is none. Any thread; `now_us` is monotonic, and may lag behind
  // that of other threads a little. `level`: what is left, for who wants to know.
  bool Take(uint64_t now_us, BucketLevel* level = nullptr) {
    uint64_t begin = begin_us_.load(std::memory_order_relaxed);
    if (begin == kUnused &&
        begin_us_.compare_exchange_strong(begin, now_us, std::memory_order_relaxed)) {
      begin = now_us;
    }
    const uint64_t passed = now_us > begin ? now_us - begin : 0;
    const uint64_t filled = passed / settings_.fill_interval_us * per_fill_;
    uint64_t spent = spent_.load(std::memory_order_relaxed);
    while (true) {
      const uint64_t before = std::max(spent, filled);
      const bool passes = before - filled < settings_.max_tokens;
      const uint64_t after = before + (passes ? 1 : 0);
      if (passes && !spent_.compare_exchange_weak(spent, after, std::memory_order_relaxed)) {
        continue;
      }
      if (level != nullptr) *level = LevelOf(settings_, after, filled, passed);
      return passes;
    }
  }

  const TokenBucketSettings& settings() const { return settings_; }

 private:
  static constexpr uint64_t kUnused = std::numeric_limits<uint64_t>::max();

  const TokenBucketSettings settings_;
  const uint64_t per_fill_;
  std::atomic<uint64_t> begin_us_{kUnused};
  std::atomic<uint64_t> spent_{0};
};

}  // namespace metaprotocol
