// How many requests may be under way at a time: a fixed number, or one that follows how long they
// take. No I/O and no clock; all workers of the process share one.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>
#include <unordered_map>

#include "src/base/secret_hash.h"

namespace metaprotocol {

// The limit that follows the time requests take, by the rules of Envoy's adaptive concurrency
// filter: the shortest time is measured now and then with few requests under way; what the present
// time is longer than that, the limit goes down, and up by its square root where it is not.
struct GradientSettings {
  uint32_t min_requests = 3;  // the limit is never less, and is this while the shortest is measured
  uint64_t interval_us = 100 * 1000;                 // after so long the limit is computed anew
  uint64_t min_time_interval_us = 60 * 1000 * 1000;  // and the shortest time is measured anew
  uint32_t min_time_requests = 50;                   // by so many requests
  uint32_t buffer_percent = 25;                      // of the shortest time, that does not count
  uint32_t percentile = 50;                          // of the requests' times, that stands for all

  bool operator==(const GradientSettings&) const = default;
};

// The times of some requests. What is told of them is at most an eighth too much.
class TimeHistogram {
 public:
  void Add(uint64_t us);
  // Nothing has been added: 0.
  uint64_t Percentile(uint32_t percent) const;
  uint32_t count() const { return count_; }
  void Clear();

 private:
  static constexpr size_t kSteps = 8;  // of each power of two
  static size_t IndexOf(uint64_t us);

  std::array<uint32_t, 64 * kSteps> counts_{};
  uint32_t count_ = 0;
};

// Its law: never more requests are under way than `max_requests`, nor than the limit at the time
// when the last one came.
class ConcurrencyLimit {
 public:
  struct Settings {
    uint32_t max_requests = 1;
    std::optional<GradientSettings> gradient = {};

    bool operator==(const Settings&) const = default;
  };

  explicit ConcurrencyLimit(Settings settings)
      : settings_(settings),
        limit_(settings.gradient ? settings.gradient->min_requests : settings.max_requests) {}

  // One more is under way; false: it must not be. Any thread, as all others.
  bool Enter() {
    uint32_t under_way = under_way_.load(std::memory_order_relaxed);
    do {
      if (under_way >= limit()) return false;
    } while (
        !under_way_.compare_exchange_weak(under_way, under_way + 1, std::memory_order_relaxed));
    return true;
  }
  void Leave() { under_way_.fetch_sub(1, std::memory_order_relaxed); }
  // A request that had begun then has been answered now.
  void Took(uint64_t started_us, uint64_t now_us);

  const Settings& settings() const { return settings_; }
  uint32_t limit() const { return limit_.load(std::memory_order_relaxed); }
  uint32_t under_way() const { return under_way_.load(std::memory_order_relaxed); }

 private:
  void Measure(uint64_t started_us, uint64_t now_us);
  void Follow(uint64_t now_us);
  void SetLimit(double limit);

  const Settings settings_;
  std::atomic<uint32_t> limit_;
  std::atomic<uint32_t> under_way_{0};

  std::mutex mutex_;  // of all that follows; held for a moment
  bool measuring_ = true;
  uint64_t measuring_since_us_ = 0;  // requests that began before say nothing of the shortest time
  uint64_t shortest_us_ = 0;
  uint32_t limit_before_ = 0;  // the measurement
  uint64_t measure_again_us_ = 0;
  uint64_t interval_ends_us_ = 0;
  uint32_t least_in_a_row_ = 0;  // intervals with the least limit
  TimeHistogram times_;
};

// A fixed number for each value of something that requests come with. There are as many counts as
// values under way, so memory is bounded by what bounds those.
class ConcurrencyTable {
 public:
  explicit ConcurrencyTable(uint32_t max_requests, SecretHash hash = {})
      : max_requests_(max_requests), hash_(hash) {}

  // What Leave wants to have back; nothing: there are too many of these values.
  std::optional<uint64_t> Enter(std::span<const std::string_view> values);
  void Leave(uint64_t value);

  uint32_t max_requests() const { return max_requests_; }
  size_t size() const;

 private:
  const uint32_t max_requests_;
  const SecretHash hash_;
  mutable std::mutex mutex_;
  std::unordered_map<uint64_t, uint32_t> under_way_;
};

}  // namespace metaprotocol
