// What is tried on servers for a request, and tried once more.
#include <algorithm>
#include <cassert>
#include <utility>

#include "src/exchange/exchanges.h"
#include "src/filter/local_reply_text.h"

namespace metaprotocol {
namespace {

// As configurations call what requests are tried again for.
std::string_view AttemptFailure(AttemptResult::Cause cause) {
  switch (cause) {
    case AttemptResult::Cause::kNeverConnected:
      return "connect_failure";
    case AttemptResult::Cause::kNeverWritten:
      return "not_written";
    case AttemptResult::Cause::kTimedOut:
      return "timeout";
    default:
      return "lost";
  }
}

}  // namespace

Router::Sender Exchanges::SenderOf(const Exchange& exchange) {
  return {*exchange.origin_, *exchange.snapshot_, *exchange.route_};
}

uint64_t Exchanges::TimeoutUs(const Exchange& exchange, const RequestView& request) {
  return Router::TimeoutUs(*exchange.snapshot_->snapshot, *exchange.route_, request.message);
}

// For good: an exchange that waits, or is tried again, goes where it was meant to go. But clusters
// may have come and gone.
void Exchanges::ChooseTarget(Exchange& exchange, const Router::Sender& sender) {
  if (exchange.route_->is_direct_reply) return;
  if (exchange.target_ == nullptr) {
    exchange.target_ = &router_.ChooseTarget(sender);
  } else {
    router_.LookUp(sender, *exchange.target_);
  }
  UseSeries(exchange, *exchange.target_->series);
}

void Exchanges::Forward(Exchange& exchange, const RequestView& request) {
  // Keeps the request alive where it is the exchange's own.
  std::unique_ptr<HeldRequest> held = std::move(exchange.held_request_);
  const Router::Sender sender = SenderOf(exchange);
  ChooseTarget(exchange, sender);
  Series& series = *exchange.target_->series;
  CountRequest(exchange);
  const uint64_t timeout = TimeoutUs(exchange, request);
  const std::optional<AttemptResult> ended = StartAttempt(exchange, sender, request, timeout);
  if (ended && ended->cause == AttemptResult::Cause::kRefused) {
    Reply(exchange, ended->reply, ended->text);
    return;
  }
  series.Add(Counter::kRequestBytes, request.message.length);
  if (!exchange.route_->mirrors.empty()) router_.Mirror(sender, request, ChangesOf(exchange));
  if (ended) {
    series.Add(Counter::kOneWay);
    End(exchange, Outcome::Kind::kSent);
    return;
  }
  if (timeout != 0) context_.Arm(exchange.timer_, context_.now_us() + timeout);
  if (MayBeTriedAgain(exchange, request)) Keep(exchange, request, std::move(held));
}

void Exchanges::ForwardStream(Exchange& exchange, const RequestView& request) {
  // Keeps the request alive where it is the exchange's own.
  const std::unique_ptr<HeldRequest> held = std::move(exchange.held_request_);
  const Router::Sender sender = SenderOf(exchange);
  ChooseTarget(exchange, sender);
  CountRequest(exchange);
  // The client's own time limit stays in the message, since the route's does not hold for streams.
  const std::optional<AttemptResult> refused =
      StartAttempt(exchange, sender, request, request.message.timeout_us);
  if (refused) {
    Reply(exchange, refused->reply, refused->text);
    return;
  }
  exchange.series_->Add(Counter::kRequestBytes, request.message.length);
  if (!exchange.route_->mirrors.empty()) exchange.series_->Add(Counter::kMirrorSkipped);
  exchange.Become(Exchange::State::kStreaming);
  exchange.stream_->active_us = context_.now_us();
  StreamTimer(exchange);
}

// `left_us`: for all attempts that are still to come; 0: any time.
inline std::optional<AttemptResult> Exchanges::StartAttempt(Exchange& exchange,
                                                            const Router::Sender& sender,
                                                            const RequestView& request,
                                                            uint64_t left_us) {
  const Route& route = *exchange.route_;
  const bool limited =
      route.retry != nullptr && request.whole() && exchange.expects_reply_ && !exchange.is_stream();
  const uint64_t timeout_us = limited ? Router::TryTimeoutUs(route, left_us) : left_us;
  exchange.Become(Exchange::State::kTrying);
  exchange.attempt_.sink = this;
  std::optional<AttemptResult> ended = router_.Start(
      sender, *exchange.target_, exchange.attempt_, request, ChangesOf(exchange), timeout_us,
      exchange.attempts_ != 0 ? exchange.host_address_ : std::string_view());
  if (ended && ended->text.empty()) ended->text = LocalReplyText(ended->reply);
  if (!ended || ended->cause != AttemptResult::Cause::kRefused) {
    ++exchange.attempts_;
    if (exchange.record_ != nullptr) exchange.record_->sent_us = context_.now_us();
  }
  if (ended && ended->cause == AttemptResult::Cause::kSent) Remember(exchange, *ended);
  if (!ended && limited && route.retry->per_try_timeout_us != 0) {
    context_.Arm(exchange.step_timer_, context_.now_us() + route.retry->per_try_timeout_us);
  }
  return ended;
}

// --- once more

bool Exchanges::MayBeTriedAgain(const Exchange& exchange, const RequestView& request) const {
  // Who waits for a connection may get another host's, if this one cannot be had.
  const bool wanted = exchange.chain_->needs().replay || exchange.route_->retry != nullptr ||
                      (WorkerHub::WaitsForConnection(exchange.attempt_) &&
                       exchange.target_->cluster->host_count() > 1);
  return wanted && exchange.expects_reply_ && request.whole() &&
         request.message.length <= exchange.snapshot_->snapshot->limits.stream_message_bytes;
}

[[gnu::noinline]] void Exchanges::Keep(Exchange& exchange, const RequestView& request,
                                       std::unique_ptr<HeldRequest> held) {
  const size_t most = exchange.snapshot_->snapshot->limits.max_kept_bytes_per_worker;
  if (!router_.retries().Keep(request.message.length, most)) {
    exchange.series_->Add(Counter::kRetriesNotKept);
    return;
  }
  exchange.kept_bytes_ = request.message.length;
  exchange.held_request_ =
      held != nullptr ? std::move(held) : std::make_unique<HeldRequest>(request);
}

void Exchanges::ForgetHeldRequest(Exchange& exchange) {
  router_.retries().Forget(std::exchange(exchange.kept_bytes_, 0));
  exchange.held_request_.reset();
  exchange.retry_.Return();
}

// Whether there can be another attempt; if so, TryAgain is to follow, now or when the reply to the
// present one is complete. The first of the reasons against it is the one that counts.
bool Exchanges::PrepareRetry(Exchange& exchange) {
  if (exchange.held_request_ == nullptr || exchange.origin_ == nullptr) return false;
  const RetryPolicy& policy = Retries::PolicyOf(*exchange.route_);
  if (exchange.attempts_ > policy.retries) return false;
  exchange.pause_us_ = router_.retries().PauseUs(policy, exchange.attempts_ - 1);
  if (exchange.timer_.armed() &&
      exchange.timer_.deadline_us() <= context_.now_us() + exchange.pause_us_) {
    return false;
  }
  if (exchange.route_->retry == nullptr) return true;
  ChooseTarget(exchange, SenderOf(exchange));
  if (exchange.target_->cluster == nullptr) return false;
  exchange.retry_.Return();
  std::optional<RetryToken> token = exchange.target_->cluster->TakeRetry(exchange.route_->priority);
  if (!token) {
    exchange.series_->Add(Counter::kRetriesOverBudget);
    return false;
  }
  exchange.retry_ = std::move(*token);
  return true;
}

// A connection with a memory cannot be replaced by another once anything was said on it.
bool Exchanges::MayMove(const Exchange& exchange) {
  return exchange.snapshot_->snapshot->upstream_mode != UpstreamMode::kPerSession;
}

inline bool Exchanges::RetryInstead(Exchange& exchange, const Message& reply) {
  return exchange.held_request_ != nullptr && exchange.route_->retry != nullptr &&
         MayMove(exchange) && Retries::Wanted(*exchange.route_->retry, reply) &&
         PrepareRetry(exchange);
}

// What PrepareRetry has allowed. `why`: what was wrong with the attempt before; static.
[[gnu::noinline]] void Exchanges::TryAgain(Exchange& exchange, std::string_view why) {
  if (RequestRecord* const record = exchange.record_; record != nullptr && record->leaves_span()) {
    record->failed_attempts.push_back(
        {exchange.host_address_, record->sent_us, context_.now_us(), why});
  }
  if (exchange.pause_us_ == 0) {
    TryNow(exchange);
    return;
  }
  exchange.Become(Exchange::State::kBackingOff);
  context_.Arm(exchange.step_timer_, context_.now_us() + exchange.pause_us_);
}

void Exchanges::TryNow(Exchange& exchange) {
  const Router::Sender sender = SenderOf(exchange);
  ChooseTarget(exchange, sender);
  const RequestView request = exchange.held_request_->view();
  const uint64_t now = context_.now_us();
  uint64_t left = 0;
  if (exchange.timer_.armed()) left = std::max(exchange.timer_.deadline_us(), now + 1) - now;
  exchange.series_->Add(Counter::kRetries);
  const auto ended = StartAttempt(exchange, sender, request, left);
  if (ended) Reply(exchange, ended->reply, ended->text);
}

void Exchanges::TryTimedOut(Exchange& exchange) {
  AttemptResult result = Abandon(exchange, AttemptResult::Cause::kTimedOut);
  result.reply = LocalReply::kTimeout;
  result.text = "no reply within the time of one attempt";
  TryFailed(exchange, result);
}

[[gnu::noinline]] void Exchanges::TryFailed(Exchange& exchange, const AttemptResult& result) {
  exchange.step_timer_.Cancel();
  const bool may = result.cause == AttemptResult::Cause::kNeverConnected || MayMove(exchange);
  if (may && Retries::Wanted(Retries::PolicyOf(*exchange.route_), result) &&
      PrepareRetry(exchange)) {
    TryAgain(exchange, AttemptFailure(result.cause));
    return;
  }
  Reply(exchange, result.reply, result.text);
}

// --- replies

// To the client; from here on there is no other reply, unless it cannot be written.
inline Passed Exchanges::PassOn(Exchange& exchange, const Codec& codec, Message& message,
                                Bytes bytes) {
  ForgetRequest(exchange);
  codec.CarryOver(exchange.client_, message);
  exchange.status_ = message.status;
  exchange.response_bytes_ = message.length;
  if (exchange.record_ != nullptr) exchange.record_->first_byte_us = context_.now_us();
  exchange.series_->Add(Counter::kResponseBytes, message.length);
  if (exchange.attempts_ > 1) exchange.series_->Add(Counter::kRetrySuccesses);
  RecordTime(exchange);
  exchange.Become(Exchange::State::kReplying);
  return client_->OnReply(exchange, codec, message, bytes);
}

inline void Exchanges::EndReply(Exchange& exchange) {
  exchange.series_->Add(CounterFor(exchange.status_));
  exchange.timer_.Cancel();
  exchange.Become(Exchange::State::kReplied);
  client_->OnReplyEnd(exchange);
}

// A whole reply, about which nobody has anything more to say.
inline void Exchanges::PassOnWhole(Exchange& exchange, const Codec& codec, Message& message,
                                   Bytes bytes) {
  switch (PassOn(exchange, codec, message, bytes)) {
    case Passed::kDelivered:
      exchange.series_->Add(CounterFor(exchange.status_));
      exchange.Become(Exchange::State::kReplied);
      exchange.origin_ = nullptr;  // which it has left
      End(exchange, Outcome::Kind::kReplied);
      return;
    case Passed::kGiven:
      EndReply(exchange);
      return;
    case Passed::kNot:
      Reply(exchange, LocalReply::kBadResponse, LocalReplyText(LocalReply::kBadResponse));
  }
}

// What becomes of a whole reply, of which the filters have said `verdict`.
void Exchanges::Conclude(Exchange& exchange, ResponseVerdict verdict, const Codec& codec,
                         Message& message, Bytes bytes) {
  if (verdict == ResponseVerdict::kContinue && RetryInstead(exchange, message)) {
    verdict = ResponseVerdict::kRetry;
  }
  switch (verdict) {
    case ResponseVerdict::kContinue:
      PassOnWhole(exchange, codec, message, bytes);
      return;
    case ResponseVerdict::kStop:
      HoldReply(exchange, message, bytes);
      return;
    case ResponseVerdict::kReplace:
      Reply(exchange, exchange.answer_, exchange.answer_text_);
      return;
    case ResponseVerdict::kRetry:
      TryAgain(exchange, ReplyStatusText(message.status));
      return;
  }
}

void Exchanges::OnWholeReply(Attempt& attempt, const UpstreamHost& host, const Codec& codec,
                             Message& message, Bytes bytes) {
  Exchange& exchange = static_cast<ExchangeAttempt&>(attempt).exchange;
  Remember(exchange, &host, true);
  exchange.step_timer_.Cancel();
  // Nearly always there is nobody to ask, and nothing that could be tried again.
  if (!exchange.chain_->needs().response && exchange.held_request_ == nullptr) {
    PassOnWhole(exchange, codec, message, bytes);
    return;
  }
  ResponseVerdict verdict = ResponseVerdict::kContinue;
  if (exchange.chain_->needs().response) {
    exchange.position_ = exchange.chain_->size();
    verdict = AskAboutResponse(exchange, message);
  }
  Conclude(exchange, verdict, codec, message, bytes);
}

Handled Exchanges::OnReply(Attempt& attempt, const Codec& codec, Message& message, Bytes bytes) {
  Exchange& exchange = static_cast<ExchangeAttempt&>(attempt).exchange;
  if (!exchange.reply_changes().empty() && !codec.traits().mutation_in_head) {
    return Handled::kWantedWhole;
  }
  const FilterNeeds& needs = exchange.chain_->needs();
  if (needs.whole_response) return Handled::kWantedWhole;
  exchange.step_timer_.Cancel();
  ResponseVerdict verdict = ResponseVerdict::kContinue;
  if (needs.response) {
    exchange.position_ = exchange.chain_->size();
    verdict = AskAboutResponse(exchange, message);
  }
  if (verdict == ResponseVerdict::kContinue && RetryInstead(exchange, message)) {
    verdict = ResponseVerdict::kRetry;
  }
  switch (verdict) {
    case ResponseVerdict::kContinue:
      if (PassOn(exchange, codec, message, bytes) != Passed::kNot) break;
      [[fallthrough]];
    case ResponseVerdict::kStop:  // no filter may, of what is not whole
      Abandon(exchange, AttemptResult::Cause::kGivenUp);
      Reply(exchange, LocalReply::kBadResponse, LocalReplyText(LocalReply::kBadResponse));
      break;
    case ResponseVerdict::kReplace:
      Abandon(exchange, AttemptResult::Cause::kGivenUp);
      Reply(exchange, exchange.answer_, exchange.answer_text_);
      break;
    case ResponseVerdict::kRetry:
      Abandon(exchange, AttemptResult::Cause::kGivenUp);
      TryAgain(exchange, ReplyStatusText(message.status));
      break;
  }
  return Handled::kDone;
}

void Exchanges::OnReplyBody(Attempt& attempt, Bytes bytes) {
  client_->OnReplyBody(static_cast<ExchangeAttempt&>(attempt).exchange, bytes);
}

void Exchanges::OnAttemptEnd(Attempt& attempt, const AttemptResult& result) {
  Exchange& exchange = static_cast<ExchangeAttempt&>(attempt).exchange;
  Remember(exchange, result);
  switch (result.cause) {
    case AttemptResult::Cause::kReplied:
      EndReply(exchange);
      return;
    case AttemptResult::Cause::kSent:
      exchange.series_->Add(Counter::kOneWay);
      End(exchange, Outcome::Kind::kSent);
      return;
    default:
      TryFailed(exchange, result);
  }
}

// Rare, and not inlined, as others below: so the ways that every request goes save no registers for
// what they do not do.
[[gnu::noinline]] void Exchanges::RememberHost(Exchange& exchange, const UpstreamHost* host,
                                               bool connected) {
  exchange.host_address_.assign(host != nullptr ? std::string_view(host->address) : "");
  exchange.has_rest_ = true;
  if (exchange.record_ == nullptr) return;
  if (connected) exchange.record_->connected = true;
  exchange.record_->host_workload.assign(host != nullptr ? std::string_view(host->workload) : "");
}

AttemptResult Exchanges::Abandon(Exchange& exchange, AttemptResult::Cause why) {
  if (!exchange.attempt_.started()) return {};
  assert(!exchange.is_stream() && "its server is told why: WorkerHub::ResetStream");
  const AttemptResult result = hub_.Abandon(exchange.attempt_, why);
  Remember(exchange, result);
  return result;
}

}  // namespace metaprotocol
