// Token buckets that are made as they are needed: one for each value that requests come with, in
// bounded memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "src/base/secret_hash.h"
#include "src/limit/token_bucket.h"

namespace metaprotocol {

// Its law: of one value no more requests pass than one bucket lets through, whatever comes of other
// values and however many these are. So a bucket is given up only while it is full, when it says no
// more than one that nobody has used. Values that find no room share one bucket, the rest's; one
// that finds room later goes on with as few tokens as the rest has then, since that is how many it
// could have spent itself. All buckets are filled at the same times, so that nothing is won by
// moving.
//
// Thus an attacker with a million values leaves the buckets of others as they are, and gets as much
// as one value does once the table is full of theirs; new values of others share that with them.
class TokenBucketTable {
 public:
  struct Settings {
    TokenBucketSettings bucket;  // of each
    uint32_t max_buckets = 1;
    std::vector<std::string> keys;  // what the values are of: others are other buckets

    bool operator==(const Settings&) const = default;
  };

  struct Taken {
    bool passes = false;
    bool shared = false;  // from the rest's bucket
  };

  explicit TokenBucketTable(Settings settings, SecretHash hash = {});

  // Takes a token of the bucket of `values`, which are as many as there are keys. Any thread;
  // `now_us` and `level` as for TokenBucket.
  Taken Take(std::span<const std::string_view> values, uint64_t now_us,
             BucketLevel* level = nullptr);

  const Settings& settings() const { return settings_; }
  size_t size() const;

 private:
  struct Bucket {
    uint64_t value = 0;
    uint64_t spent = 0;  // since the first request, those that overflowed among them
  };
  static constexpr size_t kNoRoom = static_cast<size_t>(-1);

  void Fill(uint64_t now_us);
  size_t RoomFor(uint64_t value);
  bool TakeFrom(uint64_t& spent, uint64_t now_us, BucketLevel* level) const;

  const Settings settings_;
  const SecretHash hash_;
  const uint64_t per_fill_;

  mutable std::mutex mutex_;  // of all that follows; held for a moment
  bool used_ = false;
  uint64_t begin_us_ = 0;
  uint64_t filled_ = 0;  // into each bucket since then
  uint64_t rest_spent_ = 0;
  std::vector<Bucket> buckets_;
  std::unordered_map<uint64_t, size_t> places_;  // in `buckets_`, by value
  // A bucket that is not full is not before the next fill: until then each is looked at once.
  size_t hand_ = 0;
  size_t looked_at_ = 0;
};

}  // namespace metaprotocol
