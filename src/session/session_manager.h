// The session manager: all client connections of one worker. It reads requests off them, routes
// them, hands them to the worker hub, and writes replies back: exactly one for each request that
// expects one.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "src/base/object_pool.h"
#include "src/engine_context.h"
#include "src/limit/rate_limit_service.h"
#include "src/session/exchange.h"
#include "src/session/protocol_state.h"
#include "src/session/session.h"
#include "src/upstream/worker_hub.h"

namespace metaprotocol {

class SessionManager : public ReplySink {
 public:
  explicit SessionManager(EngineContext& context) : context_(context) {}
  ~SessionManager() override;
  // Both need each other; called once, before anything else.
  void SetHub(WorkerHub& hub) { hub_ = &hub; }

  // As in Engine.
  Session* Open(std::shared_ptr<ConfigSlot> slot, ConnectionInfo info, SessionHandle handle);
  void Data(Session& session, std::span<const Bytes> slices, bool end_stream);
  void Closed(Session& session);
  void WriteBufferFull(Session& session, bool full);
  void SessionTimer(Session& session);
  void ExchangeTimer(Exchange& exchange);
  void CallDone(CallId call, std::optional<Bytes> message);
  void DrainAll();
  void Drain(Session& session);

  // Resumes, flushes and closes what the present event has made ready for that.
  void Settle();
  bool unsettled() const { return !attention_.empty() || !dirty_.empty(); }
  // The present event is over.
  void FreeGone() { gone_.clear(); }

  // Frees configurations that nothing runs on any more.
  void DropUnusedSnapshots();

  size_t session_count() const { return session_count_; }
  size_t exchange_count() const { return exchange_count_; }  // without copies for mirrors
  size_t mirror_count() const { return mirror_count_; }
  template <typename F>
  void ForEachProtocol(F&& f) const {
    for (const auto& [slot, protocol] : protocols_) f(*protocol);
  }

  // ReplySink
  bool Reply(Exchange& exchange, const Codec& codec, const Message& message, Bytes bytes) override;
  void ReplyBody(Exchange& exchange, Bytes bytes, bool last) override;
  void Sent(Exchange& exchange) override;
  void Failed(Exchange& exchange, LocalReply reply, std::string_view text) override;

 private:
  ProtocolState* ProtocolFor(const std::shared_ptr<ConfigSlot>& slot);
  void Refresh(ProtocolState& protocol);
  void Refresh(Session& session);
  static void DropUse(SnapshotUse& use) { --use.users; }

  void Ingest(Session& session, Bytes bytes);
  void ParseBuffered(Session& session);
  size_t Parse(Session& session, Bytes bytes);
  bool HandleMessage(Session& session, Bytes bytes);
  bool HandleRequest(Session& session, Bytes bytes);
  void HandleBroken(Session& session, const DecodeResult& result);
  void EndStreamed(Session& session, std::string_view why);
  void TellMalformed(Session& session, std::string_view consequence, std::string_view why);
  void HandleUndecodable(Session& session, std::string_view why);
  void Forward(Session& session, const Route& route, Bytes bytes);
  void Dispatch(Exchange& exchange, SnapshotUse::Target& target, const Message& message,
                Bytes bytes);
  SnapshotUse::Target& ChooseTarget(Session& session, const Route& route);
  void LookUp(SnapshotUse::Target& target, const ProtocolState& protocol, const Route& route,
              const std::string& cluster);
  Series& RouteSeries(Session& session, const Route* route);
  static std::optional<uint64_t> HashOf(const Session& session, const Route& route,
                                        const Message& message);

  void Ask(Session& session, const Route& route, Bytes bytes, const GlobalRateLimit& limit);
  void Asked(Exchange& exchange, RateLimitVerdict verdict);
  std::unique_ptr<HeldRequest> StopAsking(Exchange& exchange);
  void Pass(Exchange& exchange, const HeldRequest& request);
  static std::string_view DirectReplyText(const Route& route);

  Exchange& NewExchange(Session& session, const Route* route, Series& series);
  void FinishExchange(Exchange& exchange);
  void LeaveSession(Exchange& exchange);
  void Recycle(Exchange& exchange);
  static bool MayWrite(Session& session, const Exchange& exchange);
  static Exchange* FirstToAnswer(Session& session);
  void Write(Session& session, Bytes bytes);
  std::string& OutFor(Session& session);
  void AnswerLocally(Session& session, Series& series, LocalReply reply, std::string_view text);
  void CompleteReply(Exchange& exchange, bool direct);
  void WriteHeldReplies(Session& session);
  // `change` alters exchange.held.
  template <typename F>
  static void ChangeHeld(Exchange& exchange, F&& change);

  void MirrorRequest(Session& session, SnapshotUse& use, const Route& route, const Message& message,
                     Bytes bytes, std::optional<uint64_t> hash);
  void SendCopy(Session& session, SnapshotUse& use, const Route& route,
                const SnapshotUse::Target& target, const Message& message, Bytes bytes,
                std::optional<uint64_t> hash);
  bool MirrorReply(Exchange& copy, bool complete);
  void EndMirror(Exchange& copy);

  static bool TooMuchInFlight(const Session& session);
  void Pause(Session& session, Session::PauseReason reason);
  void Resume(Session& session, Session::PauseReason reason);
  void TellHostWhetherToRead(Session& session);
  void StartMessageClock(Session& session);
  void ArmNoLaterThan(Session& session, uint64_t deadline_us);
  bool Drained(const Session& session) const;
  void MarkDirty(Session& session);
  void MarkAttention(Session& session);
  void Flush(Session& session);
  void Close(Session& session, CloseMode mode);
  void Forget(Session& session);
  void LookAfter(Session& session);

  EngineContext& context_;
  WorkerHub* hub_ = nullptr;
  size_t bytes_to_come_ = 0;  // of the present Data: in the slices behind the one being handled
  std::unordered_map<ConfigSlot*, std::unique_ptr<ProtocolState>> protocols_;
  ObjectPool<Exchange> exchange_pool_;
  IntrusiveList<Session, SessionLink> sessions_;
  size_t session_count_ = 0;
  size_t exchange_count_ = 0;
  size_t mirror_count_ = 0;
  std::unordered_map<CallId, Exchange*> calls_;  // who waits for which answer
  CallId last_call_ = 0;
  std::string question_;  // about the present message
  bool draining_ = false;
  std::vector<Session*> dirty_;
  std::vector<Session*> attention_;
  std::vector<std::unique_ptr<Session>> gone_;  // freed when the present event is over
  Message message_;                             // reused for every request
  ReplyContext context_of_message_;             // likewise
};

template <typename F>
void SessionManager::ChangeHeld(Exchange& exchange, F&& change) {
  exchange.session->held_bytes -= exchange.held.size();
  change(exchange.held);
  exchange.session->held_bytes += exchange.held.size();
}

inline bool SessionManager::TooMuchInFlight(const Session& session) {
  const SessionLimits& limits = session.use->snapshot->limits;
  return session.exchange_count >= limits.max_requests_in_flight ||
         session.bytes_in_flight >= limits.max_bytes_in_flight ||
         session.held_bytes >= limits.max_unread_reply_bytes / 2;
}

inline void SessionManager::MarkDirty(Session& session) {
  if (session.dirty) return;
  session.dirty = true;
  dirty_.push_back(&session);
}

inline void SessionManager::MarkAttention(Session& session) {
  if (session.attention || session.gone) return;
  session.attention = true;
  attention_.push_back(&session);
}

}  // namespace metaprotocol
