#include "src/exchange/exchanges.h"

#include <cassert>
#include <utility>

#include "src/filter/local_reply_text.h"

namespace metaprotocol {

// --- the beginning

const FilterChain& Exchanges::NoFilters() {
  static const FilterChain kNone;
  return kNone;
}

bool Exchanges::WantsWhole(const SnapshotUse& use, const Route& route, const Message& message,
                           const MatchInput& head) {
  const Snapshot& snapshot = *use.snapshot;
  const bool changed =
      !route.request_mutation.empty() || snapshot.telemetry.tracing != nullptr ||
      Router::TryTimeoutUs(route, Router::TimeoutUs(snapshot, route, message)) < message.timeout_us;
  const bool must_mutate =
      !route.is_direct_reply && changed && !snapshot.codec->traits().mutation_in_head;
  return must_mutate || use.snapshot->ChainOf(route).WantsWhole(head);
}

[[gnu::noinline]] void Exchanges::BeginFilters(Exchange& exchange) {
  exchange.position_ = 0;
  if (!exchange.chain_->needs().state) return;
  exchange.states_.resize(exchange.chain_->size());
  exchange.has_rest_ = true;
}

[[gnu::noinline]] void Exchanges::BeginRecord(Exchange& exchange, const Message& message) {
  Mutation& changes = exchange.changes_;
  exchange.record_ = logger_.Begin(*exchange.snapshot_, *exchange.origin_, message, changes);
  if (changes.empty()) return;
  exchange.has_rest_ = true;
  if (exchange.route_ == nullptr) return;
  const Mutation& of_route = exchange.route_->request_mutation;
  changes.insert(changes.begin(), of_route.begin(), of_route.end());
}

// --- filters

void Exchanges::RunFilters(Exchange& exchange, const RequestView& request) {
  exchange.request_ = &request;
  while (exchange.position_ < exchange.chain_->size()) {
    if (!exchange.chain_->needs_of(exchange.position_).request) {
      ++exchange.position_;
      continue;
    }
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
  if (exchange.record_ != nullptr) exchange.record_->by_filter = true;
  Reply(exchange, exchange.answer_, exchange.answer_text_);
  return false;
}

void Exchanges::Hold(Exchange& exchange, const RequestView& request) {
  assert(request.whole() && "a filter that may stop wants requests whole");
  assert((exchange.call_ != 0 || exchange.step_timer_.armed()) && "a filter stops for something");
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
  if (it == calls_.end()) {
    logger_.CallDone(call, message);
    return;
  }
  Exchange& exchange = *it->second;
  if (exchange.state_ == Exchange::State::kReplyHeld) {
    ResumeReply(exchange, message);
  } else {
    Resume(exchange, true, message);
  }
}

void Exchanges::ExchangeTimer(Exchange& exchange) {
  if (exchange.is_stream()) {
    StreamTimer(exchange);
    return;
  }
  AnswerLocally(exchange, LocalReply::kTimeout, LocalReplyText(LocalReply::kTimeout));
}

void Exchanges::StepTimer(Exchange& exchange) {
  switch (exchange.state_) {
    case Exchange::State::kHeld:
      Resume(exchange, exchange.call_ != 0, std::nullopt);
      return;
    case Exchange::State::kTrying:
      TryTimedOut(exchange);
      return;
    case Exchange::State::kBackingOff:
      TryNow(exchange);
      return;
    case Exchange::State::kReplyHeld:
      ResumeReply(exchange, std::nullopt);
      return;
    default:
      assert(false && "nothing has a time limit of its own then");
  }
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
  ForgetWait(exchange);
  exchange.Become(Exchange::State::kFiltering);
  client_->OnHeld(exchange, false);
}

void Exchanges::ForgetWait(Exchange& exchange) {
  if (exchange.call_ != 0) calls_.erase(exchange.call_);
  exchange.call_ = 0;
  exchange.step_timer_.Cancel();
}

// --- filters, on the way back

// Those from the one before `position_` on.
ResponseVerdict Exchanges::AskAboutResponse(Exchange& exchange, const Message& message) {
  const ResponseHead head{message.status, message.status_code, message.metadata, message.length};
  while (exchange.position_ != 0) {
    --exchange.position_;
    if (!exchange.chain_->needs_of(exchange.position_).response) continue;
    const Filter& filter = exchange.chain_->at(exchange.position_);
    const ResponseVerdict verdict = Judged(exchange, filter.OnResponse(exchange, head));
    if (verdict != ResponseVerdict::kContinue) return verdict;
  }
  return ResponseVerdict::kContinue;
}

// What becomes of a filter's verdict where it asks for what cannot be.
ResponseVerdict Exchanges::Judged(Exchange& exchange, ResponseVerdict verdict) {
  if (verdict != ResponseVerdict::kRetry) return verdict;
  return PrepareRetry(exchange) ? verdict : ResponseVerdict::kContinue;
}

void Exchanges::HoldReply(Exchange& exchange, Message& message, Bytes bytes) {
  assert(exchange.chain_->needs_of(exchange.position_).whole_response &&
         "a filter that stops replies says so in its needs");
  assert((exchange.call_ != 0 || exchange.step_timer_.armed()) && "a filter stops for something");
  exchange.Become(Exchange::State::kReplyHeld);
  exchange.has_rest_ = true;
  if (exchange.held_reply_ == nullptr) {
    exchange.held_reply_ = std::make_unique<HeldMessage>(message, bytes);
  }
}

// What a filter has stopped a reply for is over. The attempt has long ended.
void Exchanges::ResumeReply(Exchange& exchange, std::optional<Bytes> reply) {
  ForgetWait(exchange);
  // Out of the exchange, since the next attempt may have another one.
  const std::unique_ptr<HeldMessage> held = std::move(exchange.held_reply_);
  Message& message = held->message();
  const ResponseHead head{message.status, message.status_code, message.metadata, message.length};
  const Filter& filter = exchange.chain_->at(exchange.position_);
  ResponseVerdict verdict = Judged(exchange, filter.OnResponseResumed(exchange, head, reply));
  if (verdict == ResponseVerdict::kContinue) verdict = AskAboutResponse(exchange, message);
  Conclude(exchange, verdict, *exchange.snapshot_->upstream->codec, message, held->bytes());
}

// --- the end

void Exchanges::AnswerLocally(Exchange& exchange, LocalReply reply, std::string_view text) {
  if (exchange.state_ == Exchange::State::kHeld) StopWaiting(exchange);
  if (exchange.state_ == Exchange::State::kReplyHeld) ForgetWait(exchange);
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
  exchange.step_timer_.Cancel();
  CountRequest(exchange);
  SeriesOf(exchange).Add(LocalReplyCounter(reply));
  if (exchange.attempts_ != 0 && exchange.response_bytes_ == 0) RecordTime(exchange);
  exchange.answer_ = reply;
  exchange.answered_locally_ = true;
  if (exchange.record_ != nullptr) exchange.record_->SetReason(text);
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
  if (exchange.state_ == Exchange::State::kReplyHeld) ForgetWait(exchange);
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
  exchange.step_timer_.Cancel();
  if (exchange.chain_->needs().outcome) TellFilters(exchange, kind);
  if (exchange.record_ != nullptr) Log(exchange, kind);
  if (exchange.origin_ != nullptr) client_->OnLeave(exchange);
  if (exchange.series_ != nullptr) exchange.series_->Add(Gauge::kExchangesActive, -1);
  exchange.series_ = nullptr;
  exchange.origin_ = nullptr;
  ForgetRequest(exchange);
  if (exchange.has_rest_) ForgetRest(exchange);
  --exchange.snapshot_->users;
  --count_;
  exchange.Become(Exchange::State::kFree);
  pool_.Release(exchange);
}

[[gnu::noinline]] void Exchanges::ForgetRest(Exchange& exchange) {
  exchange.held_reply_.reset();
  exchange.states_.clear();
  exchange.changes_.clear();
  exchange.reply_changes_.clear();
  exchange.host_address_.clear();
  exchange.has_rest_ = false;
}

[[gnu::noinline]] void Exchanges::TellFilters(Exchange& exchange, Outcome::Kind kind) {
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
    exchange.position_ = i;
    if (exchange.chain_->needs_of(i).outcome) exchange.chain_->at(i).OnEnd(exchange, outcome);
  }
}

[[gnu::noinline]] void Exchanges::Log(Exchange& exchange, Outcome::Kind kind) {
  RequestRecord& record = *std::exchange(exchange.record_, nullptr);
  EndedRequest ended{.record = record};
  if (const Route* route = exchange.route_) {
    ended.route = route->name;
    if (exchange.target_ != nullptr) {
      const auto& targets = exchange.snapshot_->routes[route->index].targets;
      ended.cluster = route->clusters[static_cast<size_t>(exchange.target_ - targets.data())].name;
    }
  }
  ended.host = exchange.host_address_;
  ended.replied = kind == Outcome::Kind::kReplied;
  ended.answered = kind == Outcome::Kind::kAnswered || kind == Outcome::Kind::kDropped;
  ended.client_gone = kind == Outcome::Kind::kClientGone;
  ended.status = exchange.status_;
  ended.reply = exchange.answer_;
  ended.request_bytes = exchange.bytes_;
  ended.response_bytes = exchange.response_bytes_;
  ended.started_us = exchange.started_us_;
  ended.attempts = exchange.attempts_;
  logger_.End(*exchange.snapshot_, record, ended);
}

// --- counting

Series& Exchanges::FilterSeriesOf(SnapshotUse& use, uint32_t metric) {
  const FilterMetrics& metrics = use.snapshot->filter_metrics;
  if (use.filter_series.empty()) use.filter_series.resize(metrics.size());
  Series*& series = use.filter_series[metric];
  if (series == nullptr) {
    series =
        &context_.metrics.Get(use.snapshot->name, metrics[metric].filter, metrics[metric].name);
  }
  return *series;
}

void Exchanges::UseOwnSeries(Exchange& exchange) {
  UseSeries(exchange, SeriesFor(exchange.origin_->protocol, *exchange.snapshot_, exchange.route_));
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
