#include "src/session/session_manager.h"

#include <algorithm>
#include <utility>

#include "src/base/out_buffer.h"
#include "src/router/turns.h"

namespace metaprotocol {
namespace {

// How long an idle draining session stays open after its client was told to go elsewhere, so that a
// request that is already on its way is still answered.
constexpr uint64_t kDrainGraceUs = 1000 * 1000;

// How many connections are looked at in one turn for whether they keep an old configuration.
constexpr size_t kRenewedAtOnce = 10000;

}  // namespace

SessionManager::~SessionManager() {
  sessions_.ForEach([this](Session& session) {
    session.SessionLink::Unlink();
    session.TurnLink::Unlink();
    gone_.emplace_back(&session);
  });
}

// --- protocols and snapshots

ProtocolState* SessionManager::ProtocolFor(const std::shared_ptr<ConfigSlot>& slot) {
  auto& protocol = protocols_[slot.get()];
  if (protocol == nullptr) {
    protocol = std::make_unique<ProtocolState>();
    protocol->slot = slot;
  }
  if (protocol->version != slot->version()) TakeUpNewest(*protocol);
  return protocol->current != nullptr ? protocol.get() : nullptr;
}

void SessionManager::TakeUpNewest(ProtocolState& protocol) {
  SnapshotUse* previous = protocol.current;
  auto snapshot = protocol.slot->Current(protocol.version);
  if (snapshot == nullptr || (previous != nullptr && previous->snapshot == snapshot)) return;
  auto use = std::make_unique<SnapshotUse>();
  use->snapshot = std::move(snapshot);
  use->routes.resize(use->snapshot->route_count);
  if (previous == nullptr) {
    protocol.name = use->snapshot->name;
    protocol.series = &context_.metrics.Get(protocol.name, "-", "-");
  } else {
    const bool compatible = previous->snapshot->codec_key == use->snapshot->codec_key &&
                            previous->snapshot->upstream_mode == use->snapshot->upstream_mode;
    if (!compatible) {
      protocol.upstream->retired = true;
      hub_.DrainProtocol(*protocol.upstream);
      protocol.upstream = nullptr;
    }
  }
  if (protocol.upstream == nullptr) {
    protocol.upstream = std::make_shared<UpstreamProtocol>();
    protocol.upstream->name = protocol.name;
    protocol.upstream->codec = use->snapshot->codec;
    protocol.upstream->mode = use->snapshot->upstream_mode;
  }
  if (previous != nullptr) ContinueTurns(*previous, *use);
  UpstreamProtocol& upstream = *protocol.upstream;
  upstream.response_interest = use->snapshot->response_interest;
  upstream.response_keys =
      use->snapshot->response_interest.keys == nullptr
          ? nullptr
          : std::shared_ptr<const MetadataKeys>(use->snapshot, &use->snapshot->response_keys);
  upstream.max_message_bytes = use->snapshot->limits.max_message_bytes;
  upstream.stream_message_bytes = use->snapshot->limits.stream_message_bytes;
  use->upstream = protocol.upstream;
  use->ordered_replies = use->snapshot->codec->traits().ordered_replies;
  use->protocol_series = protocol.series;
  use->is_told = use->snapshot->telemetry.any();
  for (const AccessLog& log : use->snapshot->telemetry.logs) {
    use->logs.push_back(log.collector ? nullptr : context_.host.OpenLog(log.path));
  }
  protocol.current = use.get();
  ++use->users;  // the protocol itself
  protocol.snapshots.push_back(std::move(use));
  if (previous != nullptr) DropUse(*previous);
}

void SessionManager::DropUnusedSnapshots() {
  const bool old_ones = std::any_of(protocols_.begin(), protocols_.end(), [](const auto& entry) {
    const ProtocolState& protocol = *entry.second;
    return protocol.snapshots.size() > 1 || protocol.version != protocol.slot->version();
  });
  if (old_ones) RenewSilentSessions();
  for (const auto& [slot, protocol] : protocols_) {
    std::erase_if(protocol->snapshots, [](const auto& use) { return use->users == 0; });
  }
}

void SessionManager::CountLostLines() {
  for (const auto& [slot, protocol] : protocols_) {
    for (const auto& use : protocol->snapshots) {
      for (const auto& log : use->logs) {
        const uint64_t lost = log == nullptr ? 0 : log->TakeLost();
        if (lost != 0) protocol->series->Add(Counter::kAccessLogLost, lost);
      }
    }
  }
}

// Whoever says nothing for hours would keep what was in force when it last did.
void SessionManager::RenewSilentSessions() {
  for (size_t left = std::min(session_count_, kRenewedAtOnce); left != 0; --left) {
    Session& session = sessions_.front();
    session.SessionLink::Unlink();
    sessions_.PushBack(session);
    if (session.stream_remaining == 0) TakeUpNewest(session);
  }
}

void SessionManager::TakeUpNewer(Session& session) {
  ProtocolState& protocol = session.protocol;
  if (protocol.version != protocol.slot->version()) TakeUpNewest(protocol);
  if (session.use == protocol.current) return;
  // A connection that has begun in one protocol is not continued in another.
  if (session.use->snapshot->codec_key != protocol.current->snapshot->codec_key) return;
  DropUse(*session.use);
  session.use = protocol.current;
  ++session.use->users;
  session.table =
      &session.use->snapshot->TableFor(session.info.local_address, session.info.local_port);
}

// --- the life of a session

Session* SessionManager::Open(std::shared_ptr<ConfigSlot> slot, ConnectionInfo info,
                              SessionHandle handle) {
  ProtocolState* protocol = draining_ ? nullptr : ProtocolFor(slot);
  if (protocol == nullptr) return nullptr;
  SnapshotUse& use = *protocol->current;
  if (protocol->sessions >= use.snapshot->limits.max_sessions_per_worker) {
    protocol->series->Add(Counter::kSessionsRefused);
    return nullptr;
  }
  ++protocol->sessions;
  ++session_count_;
  protocol->series->Add(Counter::kSessionsOpened);
  protocol->series->Add(Gauge::kSessionsActive, 1);
  ++use.users;
  auto session = std::make_unique<Session>(*protocol, use, std::move(info), handle);
  session->sink = this;
  session->last_activity_us = context_.now_us();
  const uint64_t idle = use.snapshot->limits.idle_timeout_us;
  if (idle != 0) ArmNoLaterThan(*session, context_.now_us() + idle);
  sessions_.PushBack(*session);
  return session.release();  // owned by sessions_, see Forget
}

void SessionManager::Closed(Session& session) {
  if (session.gone) return;
  if (in_host_call_ == &session) {  // whoever called the host has work with it yet
    session.host_gone = true;
    MarkAttention(session);
    return;
  }
  Forget(session);
}

// Takes nothing more from the client, and closes when everything before has been answered.
void SessionManager::EndAfterReplies(Session& session) {
  session.close_wanted = true;
  session.in.Consume(session.in.size());
  session.message_since_us = 0;
  MarkAttention(session);
}

void SessionManager::Close(Session& session, CloseMode mode) {
  if (session.gone) return;
  if (mode == CloseMode::kFlush) Flush(session, true);
  const bool host_knows = session.host_gone;
  Forget(session);
  if (!host_knows) context_.host.CloseSession(session.handle, mode);
}

// Takes the session out of all books. Its memory stays until the present event is over.
void SessionManager::Forget(Session& session) {
  session.gone = true;
  session.timer.Cancel();
  session.SessionLink::Unlink();
  LeaveLine(session);
  budget_.Set(session, 0);
  session.exchanges.ForEach([this](Exchange& exchange) { exchanges_.ClientGone(exchange); });
  ForEachStream(session, [this](Exchange& stream) { exchanges_.ClientGone(stream); });
  hub_.ReleaseOwner(session);
  hub_.ReleaseOwner(session.mirror_leases);
  session.protocol.series->Add(Gauge::kSessionsActive, -1);
  --session.protocol.sessions;
  --session_count_;
  DropUse(*session.use);
  gone_.emplace_back(&session);
}

// --- back-pressure, timers, draining

void SessionManager::Pause(Session& session, Session::PauseReason reason) {
  session.pause_reasons |= reason;
  MarkAttention(session);
}

void SessionManager::Resume(Session& session, Session::PauseReason reason) {
  session.pause_reasons &= static_cast<uint8_t>(~reason);
  MarkAttention(session);
}

// A message that is being passed on is read to its end, however much is in flight, if its server
// takes it: nothing gets less before it has gone.
void SessionManager::TellHostWhetherToRead(Session& session) {
  const bool in_message = session.stream_remaining != 0;
  constexpr uint8_t kAlways = Session::kRepliesUnread | Session::kCannotPassOn;
  uint8_t reasons = session.pause_reasons;
  // Its turn comes soon, so it is only stopped if much has gathered.
  if (session.in.size() < kWindowBytes) reasons &= static_cast<uint8_t>(~Session::kTurnOver);
  const bool pause = (reasons & kAlways) != 0 || (reasons != 0 && !in_message);
  if (pause == session.host_paused) return;
  session.host_paused = pause;
  if (pause) {
    session.protocol.series->Add(Counter::kReadPaused);
  } else if (session.message_since_us != 0) {
    StartMessageClock(session);  // the wait was ours
  }
  CallHost(session, [&] { context_.host.PauseSession(session.handle, pause); });
}

void SessionManager::StartMessageClock(Session& session) {
  session.message_since_us = context_.now_us();
  const uint64_t timeout = session.use->snapshot->limits.message_timeout_us;
  if (timeout != 0) ArmNoLaterThan(session, context_.now_us() + timeout);
}

void SessionManager::WriteBufferFull(Session& session, bool full) {
  if (session.gone || full == (session.unread_since_us != 0)) return;
  if (!full) {
    session.unread_since_us = 0;
    Resume(session, Session::kRepliesUnread);
    if (session.unwritten() != 0) MarkDirty(session);
    ForEachStream(session, [this](Exchange& stream) { exchanges_.ClientTakesMore(stream); });
    return;
  }
  session.unread_since_us = context_.now_us();
  Pause(session, Session::kRepliesUnread);
  const uint64_t timeout = session.use->snapshot->limits.slow_client_timeout_us;
  if (timeout != 0) ArmNoLaterThan(session, context_.now_us() + timeout);
}

void SessionManager::ArmNoLaterThan(Session& session, uint64_t deadline_us) {
  if (session.timer.armed() && session.timer.deadline_us() <= deadline_us) return;
  context_.Arm(session.timer, deadline_us);
}

void SessionManager::SessionTimer(Session& session) {
  const SessionLimits& limits = session.use->snapshot->limits;
  const uint64_t now = context_.now_us();
  // Each condition that holds closes the session; the others say when to look again.
  uint64_t next = TimerWheel::kNever;
  const auto overdue = [&](uint64_t since, uint64_t timeout) {
    if (since == 0 || timeout == 0) return false;
    next = std::min(next, std::max(since + timeout, now + 1));
    return now >= since + timeout;
  };
  if (overdue(session.unread_since_us, limits.slow_client_timeout_us)) {
    session.protocol.series->Add(Counter::kSlowClientsClosed);
    Close(session, CloseMode::kAbort);
    return;
  }
  const bool reading = !session.host_paused;
  if (overdue(reading ? session.message_since_us : 0, limits.message_timeout_us)) {
    session.protocol.series->Add(Counter::kSlowClientsClosed);
    Close(session, CloseMode::kFlush);
    return;
  }
  if (session.draining && now < session.drain_deadline_us) {
    next = std::min(next, session.drain_deadline_us);
  } else if (Drained(session)) {
    Close(session, CloseMode::kFlush);
    return;
  }
  if (!session.quiet()) session.last_activity_us = now;
  if (overdue(session.last_activity_us, limits.idle_timeout_us)) {
    session.protocol.series->Add(Counter::kIdleSessionsClosed);
    Close(session, CloseMode::kFlush);
    return;
  }
  if (next != TimerWheel::kNever) context_.Arm(session.timer, next);
}

void SessionManager::Drain(Session& session) {
  if (session.draining || session.gone) return;
  session.draining = true;
  ReplyContext last;
  last.tag = session.last_tag;
  const bool told = session.use->snapshot->codec->GoAway(last, OutFor(session));
  session.drain_deadline_us = told ? context_.now_us() + kDrainGraceUs : context_.now_us();
  if (told) ArmNoLaterThan(session, session.drain_deadline_us);
  MarkAttention(session);
}

void SessionManager::DrainAll() {
  draining_ = true;
  sessions_.ForEach([this](Session& session) { Drain(session); });
}

// A message that has begun is waited for where it will be served.
bool SessionManager::Drained(const Session& session) const {
  return session.draining && (session.pause_reasons & Session::kTurnOver) == 0 &&
         context_.now_us() >= session.drain_deadline_us && session.quiet() &&
         (draining_ || session.message_since_us == 0);
}

// --- turns

// A new turn has room for messages again, unless somebody stands in line: those come first.
void SessionManager::TakeUpTurn() {
  if (line_.empty()) turn_.TakeUp(context_.host.Turn());
}

bool SessionManager::StandInLine(Session& session, size_t bytes) {
  if (bytes_in_line_ + bytes > kMostInLine) return false;
  session.bytes_in_line = bytes;
  bytes_in_line_ += bytes;
  line_.PushBack(session);
  Pause(session, Session::kTurnOver);
  context_.TickSoon();
  return true;
}

void SessionManager::LeaveLine(Session& session) {
  session.TurnLink::Unlink();
  bytes_in_line_ -= std::exchange(session.bytes_in_line, 0);
}

void SessionManager::NextTurn() {
  if (!line_.empty()) turn_.Begin(context_.host.Turn());
}

bool SessionManager::ServeLine() {
  if (line_.empty()) return false;
  if (turn_.over()) {
    context_.TickSoon();
    return false;
  }
  Session& session = line_.front();
  LeaveLine(session);
  Resume(session, Session::kTurnOver);
  return true;
}

// --- the end of an event

void SessionManager::ListDirty(Session& session) {
  session.dirty = true;
  dirty_.push_back(&session);
}

void SessionManager::ListAttention(Session& session) {
  session.attention = true;
  attention_.push_back(&session);
}

void SessionManager::WriteNow(Session& session, Bytes bytes) {
  CallHost(session, [&] { context_.host.WriteSession(session.handle, bytes); });
}

// Gives the host what is there, until it says that the client does not take it.
void SessionManager::Flush(Session& session, bool whatever_is_unread) {
  while (session.out_begin < session.out.size() &&
         (session.unread_since_us == 0 || whatever_is_unread)) {
    const Bytes window = Bytes(session.out).substr(session.out_begin, kWindowBytes);
    session.out_begin += window.size();
    WriteNow(session, window);
  }
  if (session.out_begin == session.out.size()) {
    session.out_begin = 0;
    PutAway(session.out);
  } else if (session.out_begin > session.out.size() / 2) {
    session.out.erase(0, session.out_begin);  // moves less than was written since the last time
    session.out_begin = 0;
  }
}

// Where a reply is passed on faster than its client takes it, its server is not read for a while.
// The reply that the others wait for is held up by the client only, never by those others: nothing
// of them goes before it has.
void SessionManager::PauseOrResumeReplies(Session& session) {
  const size_t waiting = session.unwritten();
  if (waiting <= kMostWaiting && !session.replies_paused) return;
  const Exchange* first = session.replying;
  if (first == nullptr && session.use->ordered_replies) {
    first = FirstToAnswer(session);
  }
  session.replies_paused = false;
  const auto pause_or_resume = [&](Exchange& exchange) {
    const size_t before_it = &exchange == first ? session.out.size() - session.out_begin : waiting;
    const bool comes = exchange.state() == Exchange::State::kReplying || exchange.is_stream();
    const bool pause = comes && before_it > (exchange.paused ? kMostWaiting / 2 : kMostWaiting);
    session.replies_paused |= pause;
    if (std::exchange(exchange.paused, pause) != pause) exchanges_.PauseReply(exchange, pause);
  };
  session.exchanges.ForEach(pause_or_resume);
  ForEachStream(session, pause_or_resume);
}

void SessionManager::KeepWithinBudget(Session& session) {
  budget_.Set(session, session.in.size() + session.unwritten());
  while (budget_.total() > session.use->snapshot->limits.max_buffered_bytes_per_worker) {
    BufferShare* const share = budget_.Largest();
    if (share == nullptr) return;
    auto& largest = static_cast<Session&>(*share);
    largest.protocol.series->Add(Counter::kSlowClientsClosed);
    Close(largest, CloseMode::kAbort);
  }
}

void SessionManager::Settle() {
  while (!attention_.empty()) {
    Session& session = *attention_.back();
    attention_.pop_back();
    session.attention = false;
    if (session.host_gone && !session.gone) Forget(session);
    if (!session.gone) ResumeOrClose(session);
    if (!session.gone) KeepWithinBudget(session);
  }
  while (!dirty_.empty()) {
    Session& session = *dirty_.back();
    dirty_.pop_back();
    session.dirty = false;
    if (session.gone) continue;
    Flush(session);
    if (session.holds_nothing()) continue;
    if (session.unwritten() > session.use->snapshot->limits.max_unread_reply_bytes) {
      session.protocol.series->Add(Counter::kSlowClientsClosed);
      Close(session, CloseMode::kAbort);
    }
    if (session.gone) continue;
    PauseOrResumeReplies(session);
    KeepWithinBudget(session);
  }
}

void SessionManager::ResumeOrClose(Session& session) {
  if (!TooMuchInFlight(session)) {
    session.pause_reasons &= static_cast<uint8_t>(~Session::kTooMuchInFlight);
  }
  if (session.pause_reasons == 0 && !session.close_wanted && !session.in.empty() &&
      session.in.size() >= session.need) {
    ParseBuffered(session, 0);
    if (session.gone) return;
  }
  TellHostWhetherToRead(session);
  if (session.gone) return;
  if (session.close_wanted) {
    const Exchange* const next = FirstToAnswer(session);
    if (next != nullptr && next->unanswerable) {
      Close(session, CloseMode::kFlush);
      return;
    }
  }
  if (session.end_stream && session.stream_remaining != 0) {  // the rest will never come
    Close(session, CloseMode::kAbort);
    return;
  }
  if (session.pause_reasons != 0) return;
  if (session.end_stream) {  // nor will the rest of these
    ForEachStream(session, [this](Exchange& stream) {
      if (!stream.client_done()) exchanges_.ClientGone(stream);
    });
  }
  // A client that is closed for what it has sent could not end its streams.
  if (session.exchange_count != 0 || (session.stream_count() != 0 && !session.close_wanted)) return;
  Flush(session);
  if (session.unread_since_us != 0) return;
  if (session.end_stream || session.close_wanted || Drained(session)) {
    Close(session, CloseMode::kFlush);
  }
}

}  // namespace metaprotocol
