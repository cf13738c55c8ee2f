#include "src/filter/global_rate_limit/global_rate_limit.h"

#include <algorithm>
#include <utility>

#include "src/filter/limit_entries.h"
#include "src/limit/rate_limit_service.h"

namespace metaprotocol {
namespace {

// Metadata may be as long as a message; what is counted by is not.
constexpr size_t kMaxValue = 4096;

// Adds a source's descriptors, unless it has keys and the request none of them.
bool AddDescriptors(const std::vector<GlobalRateLimit::Descriptor>& descriptors,
                    const MatchInput& request, RateLimitRequestWriter& writer) {
  const auto told = [&](const GlobalRateLimit::Entry& entry) {
    return !entry.key || entry.key->Find(request).has_value();
  };
  const bool any = std::ranges::any_of(descriptors, [&](const GlobalRateLimit::Descriptor& each) {
    return std::ranges::any_of(each, told);
  });
  if (!any) return false;
  for (const GlobalRateLimit::Descriptor& descriptor : descriptors) {
    writer.BeginDescriptor();
    for (const GlobalRateLimit::Entry& entry : descriptor) {
      const std::string_view value =
          entry.key ? entry.key->Find(request).value_or("") : std::string_view(entry.value);
      writer.AddEntry(entry.descriptor_key, value.substr(0, kMaxValue));
    }
  }
  return true;
}

}  // namespace

std::string GlobalRateLimit::Question(const MatchInput& request) const {
  // A request that may meet a rule is asked about.
  if (all.match->Match(request).route == nullptr) return {};
  RateLimitRequestWriter writer;
  bool any = AddDescriptors(all.descriptors, request, writer);
  for (const Source& source : further) {
    if (source.match->Match(request).route == nullptr) continue;
    any = AddDescriptors(source.descriptors, request, writer) || any;
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
