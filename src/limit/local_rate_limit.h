// The local rate limit of one route table: which bucket a request takes its token from.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "src/limit/token_bucket.h"
#include "src/route/route_table.h"

namespace metaprotocol {

class LocalRateLimit {
 public:
  // A request takes its token from the bucket of the first rule that it meets; Route::index in
  // `rules` is its place in `buckets`. If it meets none it takes the default bucket's; if there is
  // no such bucket (null) it passes.
  LocalRateLimit(std::unique_ptr<const RouteTable> rules,
                 std::vector<std::shared_ptr<TokenBucket>> buckets,
                 std::shared_ptr<TokenBucket> default_bucket)
      : rules_(std::move(rules)),
        buckets_(std::move(buckets)),
        default_bucket_(std::move(default_bucket)) {}

  // Whether the request may pass; takes its token. Any thread. One of which the bucket cannot be
  // told may not.
  bool Admit(const MatchInput& request, uint64_t now_us) const {
    const RouteMatch rule = rules_->Match(request);
    if (rule.undecided) return false;
    TokenBucket* bucket =
        rule.route != nullptr ? buckets_[rule.route->index].get() : default_bucket_.get();
    return bucket == nullptr || bucket->Take(now_us);
  }

  // Goes on with the buckets of the configuration before, where one stands in the same place with
  // the same settings: a change of routes refills none. Before other threads know of this.
  void ContinueWith(const LocalRateLimit& before) {
    const auto adopt = [](std::shared_ptr<TokenBucket>& bucket,
                          const std::shared_ptr<TokenBucket>& old) {
      if (bucket == nullptr || old == nullptr) return;
      if (bucket->settings() == old->settings()) bucket = old;
    };
    adopt(default_bucket_, before.default_bucket_);
    for (size_t i = 0; i < std::min(buckets_.size(), before.buckets_.size()); ++i) {
      adopt(buckets_[i], before.buckets_[i]);
    }
  }

 private:
  std::unique_ptr<const RouteTable> rules_;
  std::vector<std::shared_ptr<TokenBucket>> buckets_;
  std::shared_ptr<TokenBucket> default_bucket_;
};

}  // namespace metaprotocol
