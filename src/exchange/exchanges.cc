#include "src/exchange/exchanges.h"

#include <cassert>
#include <utility>

#include "src/filter/local_reply_text.h"

namespace metaprotocol {
namespace {

// Of one request, if nothing of it has reached a server, or a filter wants it.
constexpr uint32_t kMaxAttempts = 3;

}  // namespace

// --- the beginning

bool Exchanges::WantsWhole(const SnapshotUse& use, const Route& route, const Message& message,
                           const MatchInput& head) {
  const Snapshot& snapshot = *use.snapshot;
  const bool changed = !route.request_mutation.empty() ||
                       Router::TimeoutUs(snapshot, route, message) < message.timeout_us;
  const bool must_mutate =
      !route.is_direct_reply && changed && !snapshot.codec->traits().mutation_in_head;
  return must_mutate || use.snapshot->ChainOf(route).WantsWhole(head);
}

Exchange& Exchanges::New(const ExchangeOrigin& origin, SnapshotUse& use, const Route* route,
                         const Message& message) {
  static const FilterChain kNoFilters;
  Exchange& exchange = pool_.Acquire(*this);
  exchange.Become(Exchange::State::kFiltering);
  exchange.origin_ = &origin;
  exchange.connection_ = &origin.connection;
  exchange.expects_reply_ = message.kind == MessageKind::kRequest;
  exchange.client_.id = message.id;
  exchange.client_.tag = message.tag;
  exchange.client_.name.assign(message.reply_name);
  exchange.snapshot_ = &use;
  ++use.users;
  exchange.route_ = route;
  exchange.chain_ = route != nullptr ? &use.snapshot->ChainOf(*route) : &kNoFilters;
  exchange.position_ = 0;
  exchange.target_ = nullptr;
  exchange.started_us_ = context_.now_us();
  exchange.bytes_ = message.length;
  exchange.response_bytes_ = 0;
  exchange.attempts_ = 0;
  exchange.status_ = ReplyStatus::kOk;
  exchange.counted_ = false;
  exchange.answered_locally_ = false;
  ++count_;
  return exchange;
}

void Exchanges::Run(Exchange& exchange, const RequestView& request) {
  if (exchange.chain_->empty()) {
    Forward(exchange, request);
  } else {
    RunFilters(exchange, request);
  }
}

// --- filters

void Exchanges::RunFilters(Exchange& exchange, const RequestView& request) {
  exchange.request_ = &request;
  while (exchange.position_ < exchange.chain_->size()) {
    const Filter& filter = exchange.chain_->at(exchange.position_);
    if (!Proceed(exchange, filter.OnRequest(exchange), request)) return;
  }
  exchange.request_ = nullptr;
  if (exchange.is_stream()) {
    ForwardStream(exchange, request);
  } else {
    Forward(exchange, request);
  }
}

// False: the exchange waits, or has ended.
bool Exchanges::Proceed(Exchange& exchange, RequestVerdict verdict, const RequestView& request) {
  switch (verdict) {
    case RequestVerdict::kContinue:
      ++exchange.position_;
      return true;
    case RequestVerdict::kStop:
      Hold(exchange, request);
      return false;
    case RequestVerdict::kAnswered:
      break;
  }
  exchange.request_ = nullptr;
  Reply(exchange, exchange.answer_, exchange.answer_text_);
  return false;
}

void Exchanges::Hold(Exchange& exchange, const RequestView& request) {
  assert(request.whole() && "a filter that may stop wants requests whole");
  assert((exchange.call_ != 0 || exchange.timer_.armed()) && "a filter stops for something");
  exchange.request_ = nullptr;
  exchange.Become(Exchange::State::kHeld);
  SeriesOf(exchange);  // it is there
  if (exchange.held_request_ == nullptr) {
    exchange.held_request_ = std::make_unique<HeldRequest>(request);
  }
  client_->OnHeld(exchange, true);
}

void Exchanges::CallDone(CallId call, std::optional<Bytes> message) {
  const auto it = calls_.find(call);
  if (it != calls_.end()) Resume(*it->second, true, message);
}

void Exchanges::ExchangeTimer(Exchange& exchange) {
  if (exchange.state_ == Exchange::State::kHeld) {
    Resume(exchange, exchange.call_ != 0, std::nullopt);
    return;
  }
  if (exchange.is_stream()) {
    StreamTimer(exchange);
    return;
  }
  AnswerLocally(exchange, LocalReply::kTimeout, LocalReplyText(LocalReply::kTimeout));
}

void Exchanges::Resume(Exchange& exchange, bool call_done, std::optional<Bytes> reply) {
  StopWaiting(exchange);
  const RequestView request = exchange.held_request_->view();
  exchange.request_ = &request;
  const Filter& filter = exchange.chain_->at(exchange.position_);
  const RequestVerdict verdict =
      call_done ? filter.OnCallDone(exchange, reply) : filter.OnTimer(exchange);
  if (Proceed(exchange, verdict, request)) RunFilters(exchange, request);
}

void Exchanges::StopWaiting(Exchange& exchange) {
  if (exchange.call_ != 0) calls_.erase(exchange.call_);
  exchange.call_ = 0;
  exchange.timer_.Cancel();
  exchange.Become(Exchange::State::kFiltering);
  client_->OnHeld(exchange, false);
}

ResponseVerdict Exchanges::AskAboutResponse(Exchange& exchange, const Message& message) {
  const ResponseHead head{message.status, message.metadata, message.length};
  for (size_t i = exchange.chain_->size(); i != 0; --i) {
    const ResponseVerdict verdict = exchange.chain_->at(i - 1).OnResponse(exchange, head);
    if (verdict == ResponseVerdict::kReplace) return verdict;
    if (verdict == ResponseVerdict::kRetry && exchange.held_request_ != nullptr) return verdict;
  }
  return ResponseVerdict::kContinue;
}

// --- attempts

Router::Sender Exchanges::SenderOf(const Exchange& exchange) {
  const ExchangeOrigin& origin = *exchange.origin_;
  return {origin.protocol,   *exchange.snapshot_, *exchange.route_,
          origin.connection, origin.leases,       origin.mirror_leases};
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
  const std::optional<AttemptResult> ended = StartAttempt(exchange, sender, request, timeout, {});
  if (ended && ended->cause == AttemptResult::Cause::kRefused) {
    Reply(exchange, ended->reply, ended->text);
    return;
  }
  series.Add(Counter::kRequestBytes, request.message.length);
  router_.Mirror(sender, request);
  if (ended) {
    series.Add(Counter::kOneWay);
    End(exchange, Outcome::Kind::kSent);
    return;
  }
  if (timeout != 0) context_.Arm(exchange.timer_, context_.now_us() + timeout);
  if (MayBeTriedAgain(exchange, request)) {
    exchange.held_request_ =
        held != nullptr ? std::move(held) : std::make_unique<HeldRequest>(request);
  }
}

std::optional<AttemptResult> Exchanges::StartAttempt(Exchange& exchange,
                                                     const Router::Sender& sender,
                                                     const RequestView& request,
                                                     uint64_t timeout_us, std::string_view avoid) {
  const Mutation* mutation = &exchange.route_->request_mutation;
  if (!exchange.changes_.empty()) {
    all_changes_ = *mutation;
    all_changes_.insert(all_changes_.end(), exchange.changes_.begin(), exchange.changes_.end());
    mutation = &all_changes_;
  }
  exchange.Become(Exchange::State::kTrying);
  exchange.attempt_.sink = this;
  const std::optional<AttemptResult> ended = router_.Start(
      sender, *exchange.target_, exchange.attempt_, request, *mutation, timeout_us, avoid);
  if (!ended || ended->cause != AttemptResult::Cause::kRefused) ++exchange.attempts_;
  return ended;
}

// Who waits for a connection may get another host's, if this one cannot be had.
bool Exchanges::MayBeTriedAgain(const Exchange& exchange, const RequestView& request) const {
  if (!exchange.expects_reply_ || !request.whole()) return false;
  if (request.message.length > exchange.snapshot_->snapshot->limits.stream_message_bytes) {
    return false;
  }
  return exchange.chain_->needs().replay || (exchange.target_->cluster->host_count() > 1 &&
                                             WorkerHub::WaitsForConnection(exchange.attempt_));
}

bool Exchanges::TryAgain(Exchange& exchange, const AttemptResult& before) {
  if (exchange.held_request_ == nullptr || exchange.origin_ == nullptr) return false;
  if (exchange.attempts_ >= kMaxAttempts) return false;
  const RequestView request = exchange.held_request_->view();
  const Router::Sender sender = SenderOf(exchange);
  ChooseTarget(exchange, sender);
  const std::optional<AttemptResult> ended =
      StartAttempt(exchange, sender, request, TimeoutUs(exchange, request), before.host_address);
  if (ended) Reply(exchange, ended->reply, ended->text);
  return true;
}

Handled Exchanges::OnReply(Attempt& attempt, const Codec& codec, Message& message, Bytes bytes) {
  Exchange& exchange = static_cast<ExchangeAttempt&>(attempt).exchange;
  const bool whole = bytes.size() == message.length;
  if (!whole && !exchange.route_->response_mutation.empty() && !codec.traits().mutation_in_head) {
    return Handled::kWantedWhole;
  }
  if (exchange.chain_->needs().response) {
    switch (AskAboutResponse(exchange, message)) {
      case ResponseVerdict::kContinue:
        break;
      case ResponseVerdict::kReplace:
        Abandon(exchange, AttemptResult::Cause::kGivenUp);
        Reply(exchange, exchange.answer_, exchange.answer_text_);
        return Handled::kDone;
      case ResponseVerdict::kRetry:
        if (exchange.attempts_ >= kMaxAttempts) break;
        TryAgain(exchange, Abandon(exchange, AttemptResult::Cause::kGivenUp));
        return Handled::kDone;
    }
  }
  exchange.held_request_.reset();
  codec.CarryOver(exchange.client_, message);
  exchange.status_ = message.status;
  exchange.response_bytes_ = message.length;
  exchange.series_->Add(Counter::kResponseBytes, message.length);
  RecordTime(exchange);
  exchange.Become(Exchange::State::kReplying);
  client_->OnReply(exchange, codec, message, bytes);
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
      exchange.series_->Add(CounterFor(exchange.status_));
      exchange.timer_.Cancel();
      exchange.Become(Exchange::State::kReplied);
      client_->OnReplyEnd(exchange);
      return;
    case AttemptResult::Cause::kSent:
      exchange.series_->Add(Counter::kOneWay);
      End(exchange, Outcome::Kind::kSent);
      return;
    case AttemptResult::Cause::kNeverConnected:
    case AttemptResult::Cause::kNeverWritten:
      if (TryAgain(exchange, result)) return;
      break;
    default:
      break;
  }
  Reply(exchange, result.reply, result.text);
}

void Exchanges::Remember(Exchange& exchange, const AttemptResult& result) {
  if (exchange.chain_->needs().outcome) exchange.host_address_.assign(result.host_address);
}

AttemptResult Exchanges::Abandon(Exchange& exchange, AttemptResult::Cause why) {
  if (!exchange.attempt_.started()) return {};
  assert(!exchange.is_stream() && "its server is told why: WorkerHub::ResetStream");
  const AttemptResult result = hub_.Abandon(exchange.attempt_, why);
  Remember(exchange, result);
  return result;
}

// --- the end

void Exchanges::AnswerLocally(Exchange& exchange, LocalReply reply, std::string_view text) {
  if (exchange.state_ == Exchange::State::kHeld) StopWaiting(exchange);
  if (exchange.is_stream()) {
    ResetOnServer(exchange, reply, text);
    Reply(exchange, reply, text);
    return;
  }
  Abandon(exchange, reply == LocalReply::kTimeout ? AttemptResult::Cause::kTimedOut
                                                  : AttemptResult::Cause::kGivenUp);
  Reply(exchange, reply, text);
}

// Nothing is under way for it any more.
void Exchanges::Reply(Exchange& exchange, LocalReply reply, std::string_view text) {
  exchange.timer_.Cancel();
  CountRequest(exchange);
  SeriesOf(exchange).Add(LocalReplyCounter(reply));
  if (exchange.attempts_ != 0 && exchange.response_bytes_ == 0) RecordTime(exchange);
  exchange.answer_ = reply;
  exchange.answered_locally_ = true;
  if (exchange.is_stream()) {
    client_->OnStreamReset(exchange, reply, text);
    EndStream(exchange, Outcome::Kind::kAnswered);
    return;
  }
  if (!exchange.expects_reply_) {
    End(exchange, Outcome::Kind::kDropped);
    return;
  }
  exchange.Become(Exchange::State::kReplied);
  client_->OnLocalReply(exchange, reply, text);
}

void Exchanges::Delivered(Exchange& exchange) {
  End(exchange, exchange.answered_locally_ ? Outcome::Kind::kAnswered : Outcome::Kind::kReplied);
}

void Exchanges::ClientGone(Exchange& exchange) {
  if (!exchange.expects_reply_ && exchange.waits_for_connection()) {
    client_->OnLeave(exchange);
    exchange.origin_ = nullptr;
    exchange.connection_ = nullptr;
    return;  // it is sent without its client as well
  }
  if (exchange.state_ == Exchange::State::kHeld) {
    StopWaiting(exchange);
    if (!exchange.expects_reply_) exchange.series_->Add(Counter::kDropped);
  }
  if (exchange.state_ == Exchange::State::kReplied) {
    Delivered(exchange);
    return;
  }
  CountRequest(exchange);
  if (exchange.expects_reply_) SeriesOf(exchange).Add(Counter::kClientGone);
  if (exchange.is_stream()) {
    ResetOnServer(exchange, LocalReply::kUpstreamLost, "the client has gone");
    EndStream(exchange, Outcome::Kind::kClientGone);
    return;
  }
  Abandon(exchange, AttemptResult::Cause::kGivenUp);
  End(exchange, Outcome::Kind::kClientGone);
}

void Exchanges::End(Exchange& exchange, Outcome::Kind kind) {
  exchange.timer_.Cancel();
  if (exchange.chain_->needs().outcome) {
    Outcome outcome;
    outcome.kind = kind;
    outcome.status = exchange.status_;
    outcome.reply = exchange.answer_;
    outcome.host_address = exchange.host_address_;
    outcome.request_bytes = exchange.bytes_;
    outcome.response_bytes = exchange.response_bytes_;
    outcome.started_us = exchange.started_us_;
    outcome.ended_us = context_.now_us();
    outcome.attempts = exchange.attempts_;
    for (size_t i = 0; i < exchange.chain_->size(); ++i) {
      exchange.chain_->at(i).OnEnd(exchange, outcome);
    }
    exchange.host_address_.clear();
  }
  if (exchange.origin_ != nullptr) client_->OnLeave(exchange);
  if (exchange.series_ != nullptr) exchange.series_->Add(Gauge::kExchangesActive, -1);
  exchange.series_ = nullptr;
  exchange.origin_ = nullptr;
  exchange.held_request_.reset();
  exchange.changes_.clear();
  --exchange.snapshot_->users;
  --count_;
  exchange.Become(Exchange::State::kFree);
  pool_.Release(exchange);
}

// --- counting

Counter Exchanges::CounterFor(ReplyStatus status) {
  switch (status) {
    case ReplyStatus::kOk:
      return Counter::kResponsesOk;
    case ReplyStatus::kException:
      return Counter::kResponsesException;
    case ReplyStatus::kError:
      break;
  }
  return Counter::kResponsesError;
}

void Exchanges::RecordTime(const Exchange& exchange) {
  exchange.series_->Record(Histogram::kRequestTimeUs, context_.now_us() - exchange.started_us_);
}

void Exchanges::CountRequest(Exchange& exchange) {
  if (exchange.counted_ || !exchange.expects_reply_) return;
  exchange.counted_ = true;
  SeriesOf(exchange).Add(Counter::kRequests);
}

Series& Exchanges::SeriesOf(Exchange& exchange) {
  if (exchange.series_ == nullptr) {
    UseSeries(exchange,
              SeriesFor(exchange.origin_->protocol, *exchange.snapshot_, exchange.route_));
  }
  return *exchange.series_;
}

void Exchanges::UseSeries(Exchange& exchange, Series& series) {
  if (exchange.series_ == &series) return;
  if (exchange.series_ != nullptr) exchange.series_->Add(Gauge::kExchangesActive, -1);
  series.Add(Gauge::kExchangesActive, 1);
  exchange.series_ = &series;
}

Series& Exchanges::SeriesFor(const ProtocolState& protocol, SnapshotUse& use, const Route* route) {
  Series*& series = route == nullptr ? use.no_route_series : use.routes[route->index].own_series;
  if (series == nullptr) {
    series = &context_.metrics.Get(protocol.name,
                                   route == nullptr ? std::string_view("-") : route->name, "-");
  }
  return *series;
}

}  // namespace metaprotocol
