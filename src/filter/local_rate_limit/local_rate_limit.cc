#include "src/filter/local_rate_limit/local_rate_limit.h"

#include <algorithm>

namespace metaprotocol {

void LocalRateLimit::ContinueWith(const Filter& filter) const {
  const auto* const before = dynamic_cast<const LocalRateLimit*>(&filter);
  if (before == nullptr) return;
  const auto adopt = [](std::shared_ptr<TokenBucket>& bucket,
                        const std::shared_ptr<TokenBucket>& old) {
    if (bucket == nullptr || old == nullptr) return;
    if (bucket->settings() == old->settings()) bucket = old;
  };
  adopt(default_bucket_, before->default_bucket_);
  for (size_t i = 0; i < std::min(buckets_.size(), before->buckets_.size()); ++i) {
    adopt(buckets_[i], before->buckets_[i]);
  }
}

RequestVerdict LocalRateLimit::OnRequest(FilterContext& context) const {
  if (Admit(context.input(), context.now_us())) return RequestVerdict::kContinue;
  context.Count(Counter::kLocalRateLimited);
  context.Answer(LocalReply::kOverLimit, "over the local rate limit");
  return RequestVerdict::kAnswered;
}

}  // namespace metaprotocol
