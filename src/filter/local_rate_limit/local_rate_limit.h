// The local rate limit: how many requests this process lets pass.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "src/filter/filter.h"
#include "src/limit/token_bucket.h"
#include "src/limit/token_bucket_table.h"

namespace metaprotocol {

class LocalRateLimit final : public Filter {
 public:
  static constexpr size_t kMostKeys = 8;

  // Where requests take their tokens from.
  struct Source {
    std::shared_ptr<TokenBucket> bucket;        // all from this one, or...
    std::shared_ptr<TokenBucketTable> buckets;  // ...each from that of its values...
    std::vector<KeyRef> keys = {};              // ...of these, at most kMostKeys
  };

  // A request takes its token from the source of the first rule that it meets; Route::index in
  // `rules` is its place in `sources`. If it meets none it takes the default bucket's; if there is
  // no such bucket (null) it passes.
  LocalRateLimit(std::unique_ptr<const RouteTable> rules, std::vector<Source> sources,
                 std::shared_ptr<TokenBucket> default_bucket, bool tells_clients = false)
      : rules_(std::move(rules)),
        sources_(std::move(sources)),
        default_bucket_(std::move(default_bucket)),
        tells_clients_(tells_clients) {}

  // Whether the request may pass; takes its token. Any thread. One of which the bucket cannot be
  // told may not. `level`: what the bucket has left, for who wants to know.
  TokenBucketTable::Taken Admit(const MatchInput& request, uint64_t now_us,
                                BucketLevel* level = nullptr) const;

  std::string_view name() const override { return "local_rate_limit"; }
  // A bucket with the same settings in the same place is handed on: a change of routes refills
  // none.
  void ContinueWith(const Filter& before) const override;
  RequestVerdict OnRequest(FilterContext& context) const override;

 private:
  std::unique_ptr<const RouteTable> rules_;
  // Changed by ContinueWith, before any other thread knows of this.
  mutable std::vector<Source> sources_;
  mutable std::shared_ptr<TokenBucket> default_bucket_;
  const bool tells_clients_;  // what is left, in the entries of replies
};

}  // namespace metaprotocol
