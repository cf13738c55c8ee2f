#include "src/router/retries.h"

#include <algorithm>

namespace metaprotocol {

const RetryPolicy& Retries::PolicyOf(const Route& route) {
  static const RetryPolicy kOtherHost;
  return route.retry != nullptr ? *route.retry : kOtherHost;
}

bool Retries::Wanted(const RetryPolicy& policy, const AttemptResult& failed) {
  switch (failed.cause) {
    case AttemptResult::Cause::kNeverConnected:
      return policy.Has(RetryPolicy::kConnectFailure);
    case AttemptResult::Cause::kNeverWritten:
      return policy.Has(RetryPolicy::kNotWritten);
    case AttemptResult::Cause::kLostBeforeHead:
      // A reply that is too large would be no smaller the next time.
      return policy.Has(RetryPolicy::kLost) && failed.reply == LocalReply::kUpstreamLost;
    case AttemptResult::Cause::kTimedOut:
      return policy.Has(RetryPolicy::kTimeout);
    case AttemptResult::Cause::kReplied:
    case AttemptResult::Cause::kSent:
    case AttemptResult::Cause::kRefused:
    case AttemptResult::Cause::kLostAfterHead:
    case AttemptResult::Cause::kGivenUp:
      break;
  }
  return false;
}

bool Retries::Wanted(const RetryPolicy& policy, const Message& reply) {
  if (policy.HasStatus(reply.status_code)) return true;
  // By name, since the reply may have been read by the words of another configuration.
  const auto has = [&](const std::string& key) { return reply.metadata.Find(key).has_value(); };
  if (std::any_of(policy.reply_keys.begin(), policy.reply_keys.end(), has)) return true;
  switch (reply.status) {
    case ReplyStatus::kOk:
      break;
    case ReplyStatus::kException:
      return policy.Has(RetryPolicy::kException);
    case ReplyStatus::kError:
      return policy.Has(RetryPolicy::kError);
  }
  return false;
}

uint64_t Retries::PauseUs(const RetryPolicy& policy, uint32_t number) {
  if (policy.backoff_us == 0) return 0;
  // 2^20 times the base is beyond any maximum.
  const uint64_t longest =
      std::min(policy.backoff_us << std::min(number, uint32_t{20}), policy.max_backoff_us);
  return context_.Random() % (longest + 1);
}

}  // namespace metaprotocol
