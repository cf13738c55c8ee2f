// All exchanges of one worker: leads each request through its filters to a server, and the reply
// back to its client.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "src/base/object_pool.h"
#include "src/engine_context.h"
#include "src/exchange/exchange.h"
#include "src/exchange/request_logger.h"
#include "src/router/router.h"
#include "src/upstream/worker_hub.h"

namespace metaprotocol {

// What has become of a reply that a client was to be given.
enum class Passed : uint8_t {
  kNot,        // the codec cannot write it, and nothing of it was given; OnLocalReply follows
  kGiven,      // OnReplyBody or OnReplyEnd follows
  kDelivered,  // it was whole, nobody else has to be looked after, and the request has left its
               // client: neither OnReplyEnd nor OnLeave follows. So it is with nearly all replies,
               // which then end their request without being asked after again
};

// The client's side of exchanges. Called from within entry points of the engine only. May call
// back, but for what is said otherwise.
class ExchangeClient {
 public:
  virtual ~ExchangeClient() = default;

  // The server's reply has come, or its head: `bytes` is what is there of it. If bytes.size() <
  // message.length, OnReplyBody follows. Views are valid during the call.
  virtual Passed OnReply(Exchange& exchange, const Codec& codec, const Message& message,
                         Bytes bytes) = 0;
  virtual void OnReplyBody(Exchange& exchange, Bytes bytes) = 0;
  // All of it was given. To be followed by Exchanges::Delivered, now or later.
  virtual void OnReplyEnd(Exchange& exchange) = 0;
  // The reply is one of ours, in place of the server's or of what has come of that. As OnReplyEnd.
  virtual void OnLocalReply(Exchange& exchange, LocalReply reply, std::string_view text) = 0;
  // The request leaves its client: it needed no reply and has ended, or was delivered. Does not
  // call back.
  virtual void OnLeave(Exchange& exchange) = 0;
  // The request waits for a filter, or does so no longer. Does not call back.
  virtual void OnHeld(Exchange& exchange, bool held) = 0;

  // --- streams. None of these calls back
  // A message of the server's, whole. Why it is not passed on, and the stream is going to be reset:
  // kOverLimit, so much waits for the client already that nothing more is kept for it; or
  // kBadResponse, the codec cannot write it.
  virtual std::optional<LocalReply> OnStreamMessage(Exchange& exchange, const Codec& codec,
                                                    const Message& message, Bytes bytes) = 0;
  // The client may send that much more.
  virtual void OnStreamWindow(Exchange& exchange, uint64_t bytes) = 0;
  // The stream is over, for a reason of ours.
  virtual void OnStreamReset(Exchange& exchange, LocalReply reply, std::string_view text) = 0;
  // As OnLeave.
  virtual void OnStreamLeave(Exchange& exchange) = 0;
  // The client does not take what it is sent. Exchanges::ClientTakesMore when it does again.
  virtual bool Stalls(const Exchange& exchange) = 0;
  // The server takes more of the stream, or of the request that is being passed on, after
  // StreamMessage or SendBody has said that it does not.
  virtual void OnRoom(Exchange& exchange) = 0;
};

class Exchanges final : public AttemptSink {
 public:
  Exchanges(EngineContext& context, WorkerHub& hub, Router& router)
      : context_(context), hub_(hub), router_(router), logger_(context) {}
  ~Exchanges() override = default;
  // Both need each other; called once, before anything else.
  void SetClient(ExchangeClient& client) { client_ = &client; }

  // --- for the client's side
  // Whether the request has to be there as a whole before it can be run. `use` is what it is routed
  // by.
  static bool WantsWhole(const SnapshotUse& use, const Route& route, const Message& message,
                         const MatchInput& head);
  // A new exchange; `route` null: only to be answered.
  Exchange& New(const ExchangeOrigin& origin, SnapshotUse& use, const Route* route,
                const Message& message);
  // Through the filters, to a server. It may have ended when this returns.
  void Run(Exchange& exchange, const RequestView& request) {
    if (exchange.chain_->empty()) {
      Forward(exchange, request);
    } else {
      RunFilters(exchange, request);
    }
  }
  // A request that was refused before it became an exchange: for those who are told of ended ones.
  void Refused(const ExchangeOrigin& origin, SnapshotUse& use, const Message& message,
               LocalReply reply, std::string_view text) {
    if (use.is_told) logger_.Refused(use, origin, message, reply, text);
  }
  // More of a request that was not whole; see Exchange::wants_body. Once its server has answered it
  // goes nowhere. False: the server takes so little of it that no more should be read until OnRoom.
  bool SendBody(Exchange& exchange, Bytes bytes, bool last) {
    if (!exchange.wants_body()) return true;
    hub_.SendBody(exchange.attempt_, bytes, last);
    return last || !exchange.wants_body() || hub_.HasRoom(exchange.attempt_);
  }
  // The client does not take its reply at present, or does again: the server is asked to wait.
  void PauseReply(Exchange& exchange, bool paused) {
    if (exchange.attempt_.started()) hub_.PauseReply(exchange.attempt_, paused);
  }
  // Ends whatever is under way for it with a reply of ours.
  void AnswerLocally(Exchange& exchange, LocalReply reply, std::string_view text);
  // Its reply has been written. The exchange is free after this.
  void Delivered(Exchange& exchange);
  // Its client is gone, and its session. What needs no reply may live on.
  void ClientGone(Exchange& exchange);

  // --- streams, for the client's side
  // As New and Run, for the kStreamOpen of a stream. It ends with OnStreamLeave, perhaps before
  // this returns.
  void OpenStream(Exchange& exchange, const RequestView& request);
  Exchange& NewStream(const ExchangeOrigin& origin, SnapshotUse& use, const Route* route,
                      const Message& message);
  // The client's next message of that stream, whole. False: not now, but when OnHeld or OnRoom says
  // so, again. The stream may have ended when this returns.
  bool StreamMessage(Exchange& exchange, const RequestView& message);
  // After ExchangeClient::Stalls.
  void ClientTakesMore(Exchange& exchange);

  // --- events
  // As in Engine.
  void CallDone(CallId call, std::optional<Bytes> message);
  void ExchangeTimer(Exchange& exchange);
  void StepTimer(Exchange& exchange);

  // What is told of ended requests goes out. To be called about once a second.
  void SendRecords() { logger_.SendRecords(); }
  // It waits to go out, or to have arrived.
  bool has_records() const { return logger_.has_records(); }

  size_t count() const { return count_; }
  // Labels without a cluster: for what happens before one is chosen. `route` may be null.
  Series& SeriesFor(const ProtocolState& protocol, SnapshotUse& use, const Route* route);

 private:
  friend class Exchange;

  // AttemptSink
  void OnWholeReply(Attempt& attempt, const UpstreamHost& host, const Codec& codec,
                    Message& message, Bytes bytes) override;
  Handled OnReply(Attempt& attempt, const Codec& codec, Message& message, Bytes bytes) override;
  void OnReplyBody(Attempt& attempt, Bytes bytes) override;
  void OnAttemptEnd(Attempt& attempt, const AttemptResult& result) override;
  void OnStreamMessage(Attempt& attempt, const Codec& codec, Message& message,
                       Bytes bytes) override;
  void OnStreamBroken(Attempt& attempt, LocalReply why, std::string_view text) override;
  void OnRoom(Attempt& attempt) override;

  void ForwardStream(Exchange& exchange, const RequestView& request);
  void GrantToServer(Exchange& exchange, uint64_t bytes);
  void GrantToClient(Exchange& exchange, uint64_t bytes);
  bool SendOnStream(Exchange& exchange, const RequestView& view);
  void FinishStream(Exchange& exchange, Outcome::Kind kind);
  void EndStream(Exchange& exchange, Outcome::Kind kind);
  void ResetOnServer(Exchange& exchange, LocalReply why, std::string_view text);
  void StreamTimer(Exchange& exchange);

  static const FilterChain& NoFilters();
  static void BeginFilters(Exchange& exchange);
  void BeginRecord(Exchange& exchange, const Message& message);
  void RunFilters(Exchange& exchange, const RequestView& request);
  bool Proceed(Exchange& exchange, RequestVerdict verdict, const RequestView& request);
  void Hold(Exchange& exchange, const RequestView& request);
  void Resume(Exchange& exchange, bool call_done, std::optional<Bytes> reply);
  void StopWaiting(Exchange& exchange);
  void ForgetWait(Exchange& exchange);
  void ChooseTarget(Exchange& exchange, const Router::Sender& sender);
  static Router::Sender SenderOf(const Exchange& exchange);
  static uint64_t TimeoutUs(const Exchange& exchange, const RequestView& request);
  void Forward(Exchange& exchange, const RequestView& request);
  static const Mutation& ChangesOf(const Exchange& exchange) {
    return exchange.changes_.empty() ? exchange.route_->request_mutation : exchange.changes_;
  }
  std::optional<AttemptResult> StartAttempt(Exchange& exchange, const Router::Sender& sender,
                                            const RequestView& request, uint64_t left_us);
  bool MayBeTriedAgain(const Exchange& exchange, const RequestView& request) const;
  void Keep(Exchange& exchange, const RequestView& request, std::unique_ptr<HeldRequest> held);
  void ForgetRequest(Exchange& exchange);
  void ForgetHeldRequest(Exchange& exchange);
  bool PrepareRetry(Exchange& exchange);
  static bool MayMove(const Exchange& exchange);
  bool RetryInstead(Exchange& exchange, const Message& reply);
  void TryAgain(Exchange& exchange, std::string_view why);
  void TryNow(Exchange& exchange);
  void TryTimedOut(Exchange& exchange);
  void TryFailed(Exchange& exchange, const AttemptResult& result);
  ResponseVerdict AskAboutResponse(Exchange& exchange, const Message& message);
  ResponseVerdict Judged(Exchange& exchange, ResponseVerdict verdict);
  void HoldReply(Exchange& exchange, Message& message, Bytes bytes);
  void Conclude(Exchange& exchange, ResponseVerdict verdict, const Codec& codec, Message& message,
                Bytes bytes);
  void ResumeReply(Exchange& exchange, std::optional<Bytes> reply);
  Passed PassOn(Exchange& exchange, const Codec& codec, Message& message, Bytes bytes);
  void PassOnWhole(Exchange& exchange, const Codec& codec, Message& message, Bytes bytes);
  void EndReply(Exchange& exchange);
  void Reply(Exchange& exchange, LocalReply reply, std::string_view text);
  static Counter CounterFor(ReplyStatus status) {
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
  void CountRequest(Exchange& exchange);
  void RecordTime(const Exchange& exchange);
  Series& SeriesOf(Exchange& exchange);
  Series& FilterSeriesOf(SnapshotUse& use, uint32_t metric);
  void UseOwnSeries(Exchange& exchange);
  static void UseSeries(Exchange& exchange, Series& series);
  static void Remember(Exchange& exchange, const AttemptResult& result) {
    Remember(exchange, result.host, result.bytes_written != 0);
  }
  static void Remember(Exchange& exchange, const UpstreamHost* host, bool connected);
  static void RememberHost(Exchange& exchange, const UpstreamHost* host, bool connected);
  AttemptResult Abandon(Exchange& exchange, AttemptResult::Cause why);
  void End(Exchange& exchange, Outcome::Kind kind);
  // Rare parts of the end.
  void TellFilters(Exchange& exchange, Outcome::Kind kind);
  void Log(Exchange& exchange, Outcome::Kind kind);
  static void ForgetRest(Exchange& exchange);

  EngineContext& context_;
  WorkerHub& hub_;
  Router& router_;
  RequestLogger logger_;
  ExchangeClient* client_ = nullptr;
  ObjectPool<Exchange> pool_;
  size_t count_ = 0;
  std::unordered_map<CallId, Exchange*> calls_;  // who waits for which answer
};

// Inline: a few instructions each, of every request.

inline Exchange& Exchanges::New(const ExchangeOrigin& origin, SnapshotUse& use, const Route* route,
                                const Message& message) {
  Exchange& exchange = pool_.Acquire(*this);
  exchange.Become(Exchange::State::kFiltering);
  exchange.origin_ = &origin;
  exchange.connection_ = &origin.connection;
  exchange.expects_reply_ = message.kind == MessageKind::kRequest;
  exchange.client_.id = message.id;
  exchange.client_.tag = message.tag;
  if (!message.reply_name.empty() || !exchange.client_.name.empty()) {
    exchange.client_.name.assign(message.reply_name);
  }
  exchange.snapshot_ = &use;
  ++use.users;
  exchange.route_ = route;
  exchange.chain_ = route != nullptr ? &use.snapshot->ChainOf(*route) : &NoFilters();
  if (!exchange.chain_->empty()) BeginFilters(exchange);
  exchange.target_ = nullptr;
  exchange.started_us_ = context_.now_us();
  exchange.bytes_ = message.length;
  exchange.response_bytes_ = 0;
  exchange.attempts_ = 0;
  exchange.status_ = ReplyStatus::kOk;
  exchange.counted_ = false;
  exchange.answered_locally_ = false;
  if (use.is_told) BeginRecord(exchange, message);
  ++count_;
  return exchange;
}

inline void Exchanges::RecordTime(const Exchange& exchange) {
  exchange.series_->Record(Histogram::kRequestTimeUs, context_.now_us() - exchange.started_us_);
}

inline void Exchanges::UseSeries(Exchange& exchange, Series& series) {
  if (exchange.series_ == &series) return;
  if (exchange.series_ != nullptr) exchange.series_->Add(Gauge::kExchangesActive, -1);
  series.Add(Gauge::kExchangesActive, 1);
  exchange.series_ = &series;
}

inline Series& Exchanges::SeriesOf(Exchange& exchange) {
  if (exchange.series_ == nullptr) UseOwnSeries(exchange);
  return *exchange.series_;
}

inline void Exchanges::CountRequest(Exchange& exchange) {
  if (exchange.counted_ || !exchange.expects_reply_) return;
  exchange.counted_ = true;
  SeriesOf(exchange).Add(Counter::kRequests);
}

// Nearly always nothing is kept. The right to a retry is only taken while the request is.
inline void Exchanges::ForgetRequest(Exchange& exchange) {
  if (exchange.held_request_ != nullptr) ForgetHeldRequest(exchange);
}

// Which host was tried: for who wants the outcome, and so that a retry prefers another one.
inline void Exchanges::Remember(Exchange& exchange, const UpstreamHost* host, bool connected) {
  if (exchange.chain_->needs().outcome || exchange.held_request_ != nullptr ||
      exchange.record_ != nullptr) {
    RememberHost(exchange, host, connected);
  }
}

}  // namespace metaprotocol
