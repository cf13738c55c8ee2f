#include "src/filter/local_rate_limit/local_rate_limit.h"

#include <algorithm>
#include <array>
#include <string>

#include "src/filter/limit_entries.h"

namespace metaprotocol {

void LocalRateLimit::ContinueWith(const Filter& filter) const {
  const auto* const before = dynamic_cast<const LocalRateLimit*>(&filter);
  if (before == nullptr) return;
  const auto adopt = [](auto& bucket, const auto& old) {
    if (bucket == nullptr || old == nullptr) return;
    if (bucket->settings() == old->settings()) bucket = old;
  };
  adopt(default_bucket_, before->default_bucket_);
  for (size_t i = 0; i < std::min(sources_.size(), before->sources_.size()); ++i) {
    adopt(sources_[i].bucket, before->sources_[i].bucket);
    adopt(sources_[i].buckets, before->sources_[i].buckets);
  }
}

TokenBucketTable::Taken LocalRateLimit::Admit(const MatchInput& request, uint64_t now_us,
                                              BucketLevel* level) const {
  const RouteMatch rule = rules_->Match(request);
  if (rule.undecided) return {.passes = false};
  if (rule.route == nullptr) {
    return {.passes = default_bucket_ == nullptr || default_bucket_->Take(now_us, level)};
  }
  const Source& source = sources_[rule.route->index];
  if (source.bucket != nullptr) return {.passes = source.bucket->Take(now_us, level)};
  std::array<std::string_view, kMostKeys> values;
  for (size_t i = 0; i < source.keys.size(); ++i) {
    values[i] = source.keys[i].Find(request).value_or("");
  }
  return source.buckets->Take({values.data(), source.keys.size()}, now_us, level);
}

RequestVerdict LocalRateLimit::OnRequest(FilterContext& context) const {
  BucketLevel level;
  const TokenBucketTable::Taken taken =
      Admit(context.input(), context.now_us(), tells_clients_ ? &level : nullptr);
  if (level.most != 0) {
    constexpr uint64_t kSecond = 1000 * 1000;
    TellLimit(context, std::to_string(level.most), level.remaining,
              (level.fill_in_us + kSecond - 1) / kSecond);
  }
  if (taken.shared) context.Count(Counter::kLocalRateLimitShared);
  if (taken.passes) return RequestVerdict::kContinue;
  context.Count(Counter::kLocalRateLimited);
  context.Answer(LocalReply::kOverLimit, "over the local rate limit");
  return RequestVerdict::kAnswered;
}

}  // namespace metaprotocol
