// The local rate limit: how many requests this process lets pass.
#pragma once

#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "src/filter/filter.h"
#include "src/limit/token_bucket.h"

namespace metaprotocol {

class LocalRateLimit final : public Filter {
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

  std::string_view name() const override { return "local_rate_limit"; }
  // A bucket with the same settings in the same place is handed on: a change of routes refills
  // none.
  void ContinueWith(const Filter& before) const override;
  RequestVerdict OnRequest(FilterContext& context) const override;

 private:
  std::unique_ptr<const RouteTable> rules_;
  // Changed by ContinueWith, before any other thread knows of this.
  mutable std::vector<std::shared_ptr<TokenBucket>> buckets_;
  mutable std::shared_ptr<TokenBucket> default_bucket_;
};

}  // namespace metaprotocol
