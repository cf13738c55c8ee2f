#include "src/filter/global_rate_limit/global_rate_limit.h"

#include <algorithm>
#include <utility>

#include "src/filter/limit_entries.h"
#include "src/limit/rate_limit_service.h"

namespace metaprotocol {
namespace {

// Metadata may be as long as a message; what is counted by is not.
constexpr size_t kMaxValue = 4096;

}  // namespace

std::string GlobalRateLimit::Question(const MatchInput& request) const {
  // A request that may meet the rule is asked about.
  if (match->Match(request).route == nullptr) return {};
  RateLimitRequestWriter writer;
  bool any = false;
  for (const Descriptor& descriptor : descriptors) {
    const auto value = descriptor.key.Find(request);
    any = any || value.has_value();
    writer.AddDescriptor(descriptor.descriptor_key, value.value_or("").substr(0, kMaxValue));
  }
  return any ? writer.Finish(domain) : std::string();
}

RequestVerdict GlobalRateLimit::OnRequest(FilterContext& context) const {
  const std::string question = Question(context.input());
  if (question.empty()) return RequestVerdict::kContinue;
  context.StartCall(cluster, kShouldRateLimit, question, timeout_us);
  context.Count(Counter::kRateLimitCalls);
  return RequestVerdict::kStop;
}

RequestVerdict GlobalRateLimit::OnCallDone(FilterContext& context,
                                           std::optional<Bytes> reply) const {
  const RateLimitVerdict verdict = reply ? ReadRateLimitResponse(*reply) : RateLimitVerdict::kNone;
  if (verdict == RateLimitVerdict::kNone) context.Count(Counter::kRateLimitFailures);
  if (tells_clients && verdict != RateLimitVerdict::kNone) {
    RateLimitState state = ReadRateLimitState(*reply);
    if (!state.limit.empty()) {
      TellLimit(context, std::move(state.limit), state.remaining, state.reset_seconds);
    }
    for (const MutationOp& entry : state.entries) context.ChangeReply(entry);
  }
  const bool denied = verdict == RateLimitVerdict::kOverLimit ||
                      (verdict == RateLimitVerdict::kNone && deny_on_fail);
  if (!denied) return RequestVerdict::kContinue;
  context.Count(Counter::kGlobalRateLimited);
  context.Answer(LocalReply::kOverLimit, "over the global rate limit");
  return RequestVerdict::kAnswered;
}

}  // namespace metaprotocol
