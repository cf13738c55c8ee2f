#include "src/limit/token_bucket_table.h"

#include <algorithm>
#include <utility>

namespace metaprotocol {

TokenBucketTable::TokenBucketTable(Settings settings, SecretHash hash)
    : settings_(std::move(settings)), hash_(hash), per_fill_(PerFill(settings_.bucket)) {}

TokenBucketTable::Taken TokenBucketTable::Take(std::span<const std::string_view> values,
                                               uint64_t now_us, BucketLevel* level) {
  const uint64_t value = hash_.OfAll(values);
  const std::lock_guard lock(mutex_);
  Fill(now_us);
  const auto known = places_.find(value);
  const size_t place = known != places_.end() ? known->second : RoomFor(value);
  if (place == kNoRoom) return {TakeFrom(rest_spent_, now_us, level), true};
  return {TakeFrom(buckets_[place].spent, now_us, level), false};
}

size_t TokenBucketTable::size() const {
  const std::lock_guard lock(mutex_);
  return buckets_.size();
}

void TokenBucketTable::Fill(uint64_t now_us) {
  if (!std::exchange(used_, true)) begin_us_ = now_us;
  const uint64_t passed = now_us > begin_us_ ? now_us - begin_us_ : 0;
  const uint64_t filled = passed / settings_.bucket.fill_interval_us * per_fill_;
  if (filled <= filled_) return;
  filled_ = filled;
  looked_at_ = 0;
}

// A bucket for a value that has none.
size_t TokenBucketTable::RoomFor(uint64_t value) {
  const Bucket bucket{value, std::max(rest_spent_, filled_)};
  if (buckets_.size() < settings_.max_buckets) {
    places_.emplace(value, buckets_.size());
    buckets_.push_back(bucket);
    return buckets_.size() - 1;
  }
  while (looked_at_ < buckets_.size()) {
    ++looked_at_;
    const size_t place = hand_;
    hand_ = (hand_ + 1) % buckets_.size();
    if (buckets_[place].spent > filled_) continue;
    auto node = places_.extract(buckets_[place].value);
    node.key() = value;
    places_.insert(std::move(node));
    buckets_[place] = bucket;
    return place;
  }
  return kNoRoom;
}

bool TokenBucketTable::TakeFrom(uint64_t& spent, uint64_t now_us, BucketLevel* level) const {
  const uint64_t before = std::max(spent, filled_);
  const bool passes = before - filled_ < settings_.bucket.max_tokens;
  if (passes) spent = before + 1;
  if (level != nullptr) {
    const uint64_t passed = now_us > begin_us_ ? now_us - begin_us_ : 0;
    *level = LevelOf(settings_.bucket, before + (passes ? 1 : 0), filled_, passed);
  }
  return passes;
}

}  // namespace metaprotocol
