#include "src/limit/concurrency_limit.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace metaprotocol {
namespace {

// Bounds of one step, so that a single odd interval does not throw it over.
constexpr double kLeastGradient = 0.5;
constexpr double kMostGradient = 2.0;
// With the least limit for so many intervals in a row, the shortest time is not what it was.
constexpr uint32_t kMostLeastInARow = 5;

}  // namespace

size_t TimeHistogram::IndexOf(uint64_t us) {
  if (us < kSteps) return us;
  const auto power = static_cast<size_t>(std::bit_width(us) - 1);  // at least 3
  const size_t step = us >> (power - 3) & (kSteps - 1);
  return (power - 2) * kSteps + step;
}

void TimeHistogram::Add(uint64_t us) {
  ++counts_[IndexOf(us)];
  ++count_;
}

uint64_t TimeHistogram::Percentile(uint32_t percent) const {
  if (count_ == 0) return 0;
  const uint64_t wanted = std::max<uint64_t>(1, uint64_t{count_} * percent / 100);
  uint64_t seen = 0;
  size_t index = 0;
  for (; index < counts_.size(); ++index) {
    seen += counts_[index];
    if (seen >= wanted) break;
  }
  if (index < kSteps) return index;
  const size_t power = index / kSteps + 2;
  return (kSteps + index % kSteps) << (power - 3);
}

void TimeHistogram::Clear() {
  counts_.fill(0);
  count_ = 0;
}

void ConcurrencyLimit::Took(uint64_t started_us, uint64_t now_us) {
  if (!settings_.gradient) return;
  const std::lock_guard lock(mutex_);
  if (measuring_) {
    Measure(started_us, now_us);
    return;
  }
  times_.Add(now_us > started_us ? now_us - started_us : 0);
  if (now_us >= interval_ends_us_) Follow(now_us);
}

// With few requests under way the times are those of a server that has nothing else to do.
void ConcurrencyLimit::Measure(uint64_t started_us, uint64_t now_us) {
  if (started_us < measuring_since_us_) return;
  times_.Add(now_us > started_us ? now_us - started_us : 0);
  if (times_.count() < settings_.gradient->min_time_requests) return;
  shortest_us_ = std::max<uint64_t>(1, times_.Percentile(settings_.gradient->percentile));
  times_.Clear();
  measuring_ = false;
  measure_again_us_ = now_us + settings_.gradient->min_time_interval_us;
  interval_ends_us_ = now_us + settings_.gradient->interval_us;
  least_in_a_row_ = 0;
  SetLimit(std::max(limit_before_, settings_.gradient->min_requests));
}

void ConcurrencyLimit::Follow(uint64_t now_us) {
  const GradientSettings& gradient = *settings_.gradient;
  const auto present =
      static_cast<double>(std::max<uint64_t>(1, times_.Percentile(gradient.percentile)));
  times_.Clear();
  interval_ends_us_ = now_us + gradient.interval_us;
  const double allowed = static_cast<double>(shortest_us_) * (100 + gradient.buffer_percent) / 100;
  const double step = std::clamp(allowed / present, kLeastGradient, kMostGradient);
  const double scaled = limit() * step;
  SetLimit(scaled + std::sqrt(scaled));
  least_in_a_row_ = limit() <= gradient.min_requests ? least_in_a_row_ + 1 : 0;
  if (now_us < measure_again_us_ && least_in_a_row_ < kMostLeastInARow) return;
  measuring_ = true;
  measuring_since_us_ = now_us;
  limit_before_ = limit();
  SetLimit(gradient.min_requests);
}

void ConcurrencyLimit::SetLimit(double limit) {
  const double most = settings_.max_requests;
  const double least = std::min<double>(settings_.gradient->min_requests, most);
  limit_.store(static_cast<uint32_t>(std::clamp(limit, least, most)), std::memory_order_relaxed);
}

std::optional<uint64_t> ConcurrencyTable::Enter(std::span<const std::string_view> values) {
  const uint64_t value = hash_.OfAll(values);
  const std::lock_guard lock(mutex_);
  uint32_t& under_way = under_way_[value];
  if (under_way >= max_requests_) return {};
  ++under_way;
  return value;
}

void ConcurrencyTable::Leave(uint64_t value) {
  const std::lock_guard lock(mutex_);
  const auto found = under_way_.find(value);
  if (--found->second == 0) under_way_.erase(found);
}

size_t ConcurrencyTable::size() const {
  const std::lock_guard lock(mutex_);
  return under_way_.size();
}

}  // namespace metaprotocol
