// The session manager: all client connections of one worker. It reads requests off them and finds
// their routes, hands them on as exchanges, and writes replies back: exactly one for each request
// that expects one. It knows nothing of clusters.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "src/base/handled.h"
#include "src/base/out_buffer.h"
#include "src/base/request_view.h"
#include "src/base/turn_share.h"
#include "src/engine_context.h"
#include "src/exchange/exchange.h"
#include "src/exchange/exchanges.h"
#include "src/router/protocol_state.h"
#include "src/session/session.h"
#include "src/upstream/lease.h"
#include "src/upstream/worker_hub.h"

namespace metaprotocol {

// How much the host is given at a time: where a client does not keep up, the rest waits here, and
// each time the host has room again the client is known to read.
inline constexpr size_t kWindowBytes = size_t{64} << 10;

// Beyond this the servers whose replies a client does not take are not read.
inline constexpr size_t kMostWaiting = size_t{1} << 20;

// How many messages of clients are handled in one turn of the worker, so that none of them waits
// for long because another sends much: the rest stand in line for the next turn.
inline constexpr size_t kMessagesPerTurn = 1024;
// What all those in line keep until then. Beyond it the next one's messages are handled at once:
// whoever has sent so much more has to be answered or refused, not kept.
inline constexpr size_t kMostInLine = size_t{8} << 20;

// Of what servers ask a client, so much is remembered until it answers; the oldest is forgotten.
inline constexpr size_t kMostServerRequests = 128;

inline constexpr std::string_view kTooLongToDecide =
    "a value that a route searches through is too long";

class SessionManager final : public ExchangeClient, private ServerRequestSink {
 public:
  SessionManager(EngineContext& context, WorkerHub& hub, Exchanges& exchanges)
      : context_(context), hub_(hub), exchanges_(exchanges) {
    exchanges_.SetClient(*this);
  }
  ~SessionManager() override;

  // As in Engine.
  Session* Open(std::shared_ptr<ConfigSlot> slot, ConnectionInfo info, SessionHandle handle);
  void Data(Session& session, std::span<const Bytes> slices, bool end_stream);
  void Closed(Session& session);
  void WriteBufferFull(Session& session, bool full);
  void SessionTimer(Session& session);
  void DrainAll();
  void Drain(Session& session);
  // For messages that the turn before had no room for: NextTurn, then ServeLine and Settle until
  // that one has nothing left to do.
  void NextTurn();
  bool ServeLine();

  // Resumes, flushes and closes what the present event has made ready for that.
  void Settle();
  bool unsettled() const { return !attention_.empty() || !dirty_.empty(); }
  // The present event is over.
  void FreeGone() { gone_.clear(); }

  // Frees configurations that nothing runs on any more. To be called now and then: connections that
  // say nothing do not keep old ones, but not all of them are looked at each time.
  void DropUnusedSnapshots();
  // What the access logs have lost since the last time.
  void CountLostLines();

  size_t session_count() const { return session_count_; }
  template <typename F>
  void ForEachProtocol(F&& f) const {
    for (const auto& [slot, protocol] : protocols_) f(*protocol);
  }

 private:
  // ExchangeClient
  Passed OnReply(Exchange& exchange, const Codec& codec, const Message& message,
                 Bytes bytes) override;
  bool HoldReply(Exchange& exchange, const Codec& codec, const Message& message, Bytes bytes);
  void OnReplyBody(Exchange& exchange, Bytes bytes) override;
  void OnReplyEnd(Exchange& exchange) override;
  void OnLocalReply(Exchange& exchange, LocalReply reply, std::string_view text) override;
  void OnLeave(Exchange& exchange) override;
  void OnHeld(Exchange& exchange, bool held) override;
  std::optional<LocalReply> OnStreamMessage(Exchange& exchange, const Codec& codec,
                                            const Message& message, Bytes bytes) override;
  void OnStreamWindow(Exchange& exchange, uint64_t bytes) override;
  void OnStreamReset(Exchange& exchange, LocalReply reply, std::string_view text) override;
  void OnStreamLeave(Exchange& exchange) override;
  bool Stalls(const Exchange& exchange) override;
  void OnRoom(Exchange& exchange) override;

  // ServerRequestSink
  bool OnServerRequest(LeaseOwner& owner, LeaseId lease, const Codec& codec, const Message& message,
                       Bytes bytes) override;
  Handled HandleAnswer(Session& session, const RequestView& answer);

  ProtocolState* ProtocolFor(const std::shared_ptr<ConfigSlot>& slot);
  void TakeUpNewest(ProtocolState& protocol);
  // Between two messages a session takes up the newest configuration.
  void TakeUpNewest(Session& session) {
    const ProtocolState& protocol = session.protocol;
    if (session.use == protocol.current && protocol.version == protocol.slot->version()) return;
    TakeUpNewer(session);
  }
  void TakeUpNewer(Session& session);
  void RenewSilentSessions();
  static void DropUse(SnapshotUse& use) { --use.users; }

  // Reading. `bytes_to_come`: of the present Data, in the slices behind the one being handled.
  void Ingest(Session& session, Bytes bytes, size_t bytes_to_come);
  void PassOnBody(Session& session, Bytes& bytes);
  void ParseBuffered(Session& session, size_t bytes_to_come);
  void TakeUpTurn();
  // With so many bytes; false if there is no room for them.
  bool StandInLine(Session& session, size_t bytes);
  void LeaveLine(Session& session);
  static DecodeOptions DecodingOf(const Snapshot& snapshot);
  size_t Parse(Session& session, Bytes bytes, size_t bytes_to_come);
  Handled HandleMessage(Session& session, const RequestView& message);
  // What filters want routes to see.
  static void PrepareForRoute(const Session& session, Message& message) {
    for (const Filter* filter : session.table->before_route) {
      filter->BeforeRoute(message.metadata, session.connection);
    }
  }
  Handled HandleRequest(Session& session, const RequestView& request);
  Handled HandleOther(Session& session, const RequestView& request);
  void HandleBroken(Session& session, const Message& message, const DecodeResult& result);
  void RefuseRest(Session& session, std::string_view why);
  void TellMalformed(Session& session, std::string_view consequence, std::string_view why);
  void HandleUndecodable(Session& session, const Message& message, std::string_view why);

  // Streams.
  Handled HandleStreamMessage(Session& session, const RequestView& request);
  void OpenStream(Session& session, const RequestView& request);
  void RefuseStream(Session& session, const Message& message, LocalReply reply,
                    std::string_view text);
  void HandleUndecodableOfStream(Session& session, const Message& message, std::string_view why);
  void SayStreamIsOver(Session& session, const ReplyContext& stream, const Codec& codec,
                       LocalReply reply, std::string_view text);
  static Exchange* FindStream(const Session& session, uint64_t id);
  // `f` may end the stream it is given, but no other.
  template <typename F>
  static void ForEachStream(const Session& session, F&& f);

  // Writing.
  Exchange& NewExchange(Session& session, const Route* route, const Message& message);
  void StopSending(Session& session);
  void AnswerLocally(Session& session, const Message& message, LocalReply reply,
                     std::string_view text);
  static bool MayWrite(Session& session, const Exchange& exchange);
  static Exchange* FirstToAnswer(Session& session);
  void Write(Session& session, Bytes bytes) {
    MarkDirty(session);
    if (bytes.size() >= kDirectWriteBytes) WriteDirectly(session, bytes);
    session.out.append(bytes);
  }
  void WriteDirectly(Session& session, Bytes& bytes);
  // So much is going to be appended to what the session is written.
  void MakeRoom(Session& session, size_t bytes) {
    const size_t needed = session.out.size() + bytes;
    if (needed > session.out.capacity()) GrowOut(session, needed);
  }
  void GrowOut(Session& session, size_t needed);
  void PutAway(std::string& buffer);
  std::string& OutFor(Session& session);
  // Whether something may wait for the reply that is being written, with which `present` exchanges
  // (1, or 0 if it has left) are under way.
  static bool OthersWait(const Session& session, size_t present) {
    return session.held_bytes != 0 || !session.after_reply.empty() ||
           (session.use->ordered_replies && session.exchange_count > present);
  }
  void FinishReply(Exchange& exchange);
  void Leave(Session& session, Exchange& exchange);
  void WriteHeldReplies(Session& session);
  // `change` alters exchange.held.
  template <typename F>
  static void ChangeHeld(Exchange& exchange, F&& change);

  static bool TooMuchInFlight(const Session& session);
  // Calls the host about a session; it may say meanwhile that the session is closed.
  template <typename F>
  void CallHost(Session& session, F&& call);
  void Pause(Session& session, Session::PauseReason reason);
  void Resume(Session& session, Session::PauseReason reason);
  void TellHostWhetherToRead(Session& session);
  void StartMessageClock(Session& session);
  void ArmNoLaterThan(Session& session, uint64_t deadline_us);
  bool Drained(const Session& session) const;
  void MarkDirty(Session& session) {
    if (!session.dirty) ListDirty(session);
  }
  void MarkAttention(Session& session) {
    if (!session.attention && !session.gone) ListAttention(session);
  }
  // Once per session and event: calls, so that whoever marks one stays small.
  void ListDirty(Session& session);
  void ListAttention(Session& session);
  void Flush(Session& session, bool whatever_is_unread = false);
  void WriteNow(Session& session, Bytes bytes);
  void KeepWithinBudget(Session& session);
  void PauseOrResumeReplies(Session& session);
  void EndAfterReplies(Session& session);
  void Close(Session& session, CloseMode mode);
  void Forget(Session& session);
  void ResumeOrClose(Session& session);

  EngineContext& context_;
  WorkerHub& hub_;
  Exchanges& exchanges_;
  std::unordered_map<ConfigSlot*, std::unique_ptr<ProtocolState>> protocols_;
  BufferBudget budget_;
  IntrusiveList<Session, SessionLink> sessions_;
  size_t session_count_ = 0;
  // Those that have more messages than the turn has room for, in the order in which they go on.
  IntrusiveList<Session, TurnLink> line_;
  size_t bytes_in_line_ = 0;
  TurnShare turn_{kMessagesPerTurn};
  bool draining_ = false;
  std::vector<Session*> dirty_;
  std::vector<Session*> attention_;
  Session* in_host_call_ = nullptr;             // the host is told something of it right now
  std::vector<std::unique_ptr<Session>> gone_;  // freed when the present event is over
  // Reused, so that nothing is allocated: what Parse reads, and how a reply without an exchange is
  // told whose it is.
  Message scratch_;
  ReplyContext reply_context_;
  // Larger buffers than a session keeps, for those that are written to within the present event.
  std::vector<std::string> spare_buffers_;
};

template <typename F>
void SessionManager::ChangeHeld(Exchange& exchange, F&& change) {
  exchange.session->held_bytes -= exchange.held.size();
  change(exchange.held);
  exchange.session->held_bytes += exchange.held.size();
}

template <typename F>
void SessionManager::ForEachStream(const Session& session, F&& f) {
  if (session.streams == nullptr) return;
  for (auto it = session.streams->begin(); it != session.streams->end();) {
    Exchange& stream = *it->second;
    ++it;  // the one before may go
    f(stream);
  }
}

template <typename F>
void SessionManager::CallHost(Session& session, F&& call) {
  if (session.host_gone) return;
  Session* const outer = std::exchange(in_host_call_, &session);
  call();
  in_host_call_ = outer;
}

inline bool SessionManager::TooMuchInFlight(const Session& session) {
  const SessionLimits& limits = session.use->snapshot->limits;
  return session.exchange_count >= limits.max_requests_in_flight ||
         session.bytes_in_flight >= limits.max_bytes_in_flight ||
         session.held_bytes >= limits.max_unread_reply_bytes / 2;
}

// Inlined where it is called, since that is for each request.
[[gnu::always_inline]] inline Exchange& SessionManager::NewExchange(Session& session,
                                                                    const Route* route,
                                                                    const Message& message) {
  Exchange& exchange = exchanges_.New(session.origin, *session.use, route, message);
  exchange.session = &session;
  session.exchanges.PushBack(exchange);
  ++session.exchange_count;
  session.bytes_in_flight += exchange.bytes();
  if (TooMuchInFlight(session)) Pause(session, Session::kTooMuchInFlight);
  return exchange;
}

}  // namespace metaprotocol
