#include "src/session/session_manager.h"

#include <algorithm>
#include <utility>

#include "src/base/out_buffer.h"

namespace metaprotocol {
namespace {

// How long an idle draining session stays open after its client was told to go elsewhere, so that a
// request that is already on its way is still answered.
constexpr uint64_t kDrainGraceUs = 1000 * 1000;

}  // namespace

SessionManager::~SessionManager() {
  sessions_.ForEach([this](Session& session) {
    session.exchanges.ForEach([](Exchange& exchange) { exchange.deadline.Cancel(); });
    session.Unlink();
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
  if (protocol->version != slot->version()) Refresh(*protocol);
  return protocol->current != nullptr ? protocol.get() : nullptr;
}

void SessionManager::Refresh(ProtocolState& protocol) {
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
    use->upstream_kind = previous->upstream_kind + (compatible ? 0 : 1);
    if (!compatible) hub_->DrainProtocol(protocol);
  }
  protocol.current = use.get();
  ++use->users;  // the protocol itself
  protocol.snapshots.push_back(std::move(use));
  if (previous != nullptr) DropUse(*previous);
}

void SessionManager::DropUnusedSnapshots() {
  for (const auto& [slot, protocol] : protocols_) {
    std::erase_if(protocol->snapshots, [](const auto& use) { return use->users == 0; });
  }
}

// Between two messages a session takes up the newest configuration.
void SessionManager::Refresh(Session& session) {
  ProtocolState& protocol = session.protocol;
  if (protocol.version != protocol.slot->version()) Refresh(protocol);
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
  session->last_activity_us = context_.now_us();
  const uint64_t idle = use.snapshot->limits.idle_timeout_us;
  if (idle != 0) ArmNoLaterThan(*session, context_.now_us() + idle);
  sessions_.PushBack(*session);
  return session.release();  // owned by sessions_, see Forget
}

void SessionManager::Closed(Session& session) {
  if (!session.gone) Forget(session);
}

void SessionManager::Close(Session& session, CloseMode mode) {
  if (session.gone) return;
  if (mode == CloseMode::kFlush) Flush(session);
  const SessionHandle handle = session.handle;
  Forget(session);
  context_.host.CloseSession(handle, mode);
}

// Takes the session out of all books. Its memory stays until the present event is over.
void SessionManager::Forget(Session& session) {
  session.gone = true;
  session.timer.Cancel();
  session.Unlink();
  session.exchanges.ForEach([&](Exchange& exchange) {
    if (!exchange.expects_reply && exchange.state == Exchange::State::kPending) {
      LeaveSession(exchange);  // it is sent without the session as well
      return;
    }
    if (exchange.state == Exchange::State::kAsking) {
      StopAsking(exchange);
      if (!exchange.expects_reply) exchange.series->Add(Counter::kDropped);
    }
    if (exchange.expects_reply && exchange.state != Exchange::State::kReplied) {
      exchange.series->Add(Counter::kClientGone);
    }
    hub_->Abandon(exchange);
    FinishExchange(exchange);
  });
  hub_->ReleaseOwner(session);
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

// A message that is being passed on is read to its end, however much is in flight: nothing gets
// less before it has gone.
void SessionManager::TellHostWhetherToRead(Session& session) {
  const bool in_message = session.stream_remaining != 0;
  const bool pause = (session.pause_reasons & Session::kRepliesUnread) != 0 ||
                     (session.pause_reasons != 0 && !in_message);
  if (pause == session.host_paused) return;
  session.host_paused = pause;
  if (pause) {
    session.protocol.series->Add(Counter::kReadPaused);
  } else if (session.message_since_us != 0) {
    StartMessageClock(session);  // the wait was ours
  }
  context_.host.PauseSession(session.handle, pause);
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
    session.unread_bytes = 0;
    Resume(session, Session::kRepliesUnread);
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
  const bool busy = session.exchange_count != 0;
  if (busy) session.last_activity_us = now;
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
  return session.draining && context_.now_us() >= session.drain_deadline_us &&
         session.exchange_count == 0 && (draining_ || session.message_since_us == 0);
}

// --- the end of an event

void SessionManager::Flush(Session& session) {
  if (session.out.empty()) return;
  if (session.unread_since_us != 0) session.unread_bytes += session.out.size();
  context_.host.WriteSession(session.handle, session.out);
  ClearKeepingLittle(session.out);
}

void SessionManager::Settle() {
  while (!attention_.empty()) {
    Session& session = *attention_.back();
    attention_.pop_back();
    session.attention = false;
    if (!session.gone) LookAfter(session);
  }
  while (!dirty_.empty()) {
    Session& session = *dirty_.back();
    dirty_.pop_back();
    session.dirty = false;
    if (session.gone) continue;
    Flush(session);
    const size_t waiting = session.unread_bytes + session.held_bytes + session.after_reply.size();
    if (waiting > session.use->snapshot->limits.max_unread_reply_bytes) {
      session.protocol.series->Add(Counter::kSlowClientsClosed);
      Close(session, CloseMode::kAbort);
    }
  }
}

void SessionManager::LookAfter(Session& session) {
  if (!TooMuchInFlight(session)) {
    session.pause_reasons &= static_cast<uint8_t>(~Session::kTooMuchInFlight);
  }
  if (session.pause_reasons == 0 && !session.close_wanted && !session.in.empty() &&
      session.in.size() >= session.need) {
    ParseBuffered(session);
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
  if (session.pause_reasons != 0 || session.exchange_count != 0) return;
  if (session.end_stream || session.close_wanted || Drained(session)) {
    Close(session, CloseMode::kFlush);
  }
}

}  // namespace metaprotocol
