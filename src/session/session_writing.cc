// Writing: what a client is sent, and in which order.
#include <cstdint>
#include <memory>

#include "src/base/out_buffer.h"
#include "src/codec/contract.h"
#include "src/session/session_manager.h"

namespace metaprotocol {
namespace {

// What a worker keeps of buffers that are too large for a session to keep: 1 MiB at most.
constexpr size_t kMostSpareBuffers = 16;
constexpr size_t kMostSpareBytes = size_t{64} << 10;
// As much as a reply is usually longer after its head was written anew.
constexpr size_t kMostHeadBytes = 128;

// As Codec::Reply, with what filters want written into it: changed as a server's reply would be,
// which leaves out what this one cannot carry.
bool ReplyWithChanges(const Exchange& exchange, LocalReply reply, std::string_view text,
                      std::string& out) {
  const Codec& codec = exchange.codec();
  std::string plain;
  if (!codec.Reply(exchange.client(), reply, text, plain)) return false;
  const auto state = codec.NewDecodeState(Direction::kResponse);
  Message message;
  const DecodeResult decoded = codec.Decode(state.get(), Direction::kResponse, plain, {}, message);
  if (decoded.status == DecodeResult::Status::kMessage && message.length == plain.size()) {
    codec.CarryOver(exchange.client(), message);
    const Encoded encoded =
        codec.Encode(message, plain,
                     {.id = exchange.client().id, .mutation = exchange.own_reply_changes()}, out);
    if (!encoded.impossible) {
      out.append(encoded.Unchanged(plain)).append(encoded.Tail());
      return true;
    }
  }
  out.append(plain);
  return true;
}

}  // namespace

// --- exchanges, as their session sees them

inline void SessionManager::Leave(Session& session, Exchange& exchange) {
  IntrusiveList<Exchange, ReplySlot>::Remove(exchange);
  --session.exchange_count;
  session.bytes_in_flight -= exchange.bytes();
  if (session.sending == &exchange) StopSending(session);
  if (session.replying == &exchange) session.replying = nullptr;
  if (!exchange.held.empty()) ChangeHeld(exchange, ClearKeepingLittle);
  exchange.unanswerable = exchange.paused = false;
  exchange.session = nullptr;
  session.last_activity_us = context_.now_us();
  if (session.pause_reasons != 0 || session.end_stream || session.draining ||
      session.close_wanted) {
    MarkAttention(session);
  }
}

void SessionManager::OnLeave(Exchange& exchange) { Leave(*exchange.session, exchange); }

// Where one upstream connection serves the session, its requests keep their order.
void SessionManager::OnHeld(Exchange& exchange, bool held) {
  Session& session = *exchange.session;
  if (exchange.is_stream() && !held) Resume(session, Session::kCannotPassOn);
  if (session.use->snapshot->upstream_mode != UpstreamMode::kPerSession) return;
  if (held) {
    Pause(session, Session::kHeld);
  } else {
    Resume(session, Session::kHeld);
  }
}

// What is still to come of the request, if anything, goes nowhere.
void SessionManager::StopSending(Session& session) {
  session.sending = nullptr;
  if ((session.pause_reasons & Session::kCannotPassOn) != 0) {
    Resume(session, Session::kCannotPassOn);
  }
}

// --- replies

// Replies may overtake each other unless the protocol forbids it, but none may begin in the middle
// of another.
bool SessionManager::MayWrite(Session& session, const Exchange& exchange) {
  if (session.replying != nullptr) return session.replying == &exchange;
  if (!session.use->ordered_replies) return true;
  return FirstToAnswer(session) == &exchange;
}

// Whose reply is next where they keep their order; null if nobody waits for one.
Exchange* SessionManager::FirstToAnswer(Session& session) {
  return session.exchanges.Find([](const Exchange& exchange) { return exchange.expects_reply(); });
}

void SessionManager::GrowOut(Session& session, size_t needed) {
  if (spare_buffers_.empty()) {
    if (session.out.empty() && needed > kKeepLittle) session.out.reserve(needed);
    return;
  }
  std::string buffer = std::move(spare_buffers_.back());
  spare_buffers_.pop_back();
  buffer.append(session.out);
  session.out = std::move(buffer);
}

// Nothing of it is needed any more.
void SessionManager::PutAway(std::string& buffer) {
  if (buffer.capacity() > kKeepLittle && buffer.capacity() <= kMostSpareBytes &&
      spare_buffers_.size() < kMostSpareBuffers) {
    buffer.clear();
    spare_buffers_.push_back(std::move(buffer));
    buffer = std::string();
  } else {
    ClearKeepingLittle(buffer);
  }
}

// As much of `bytes` as the host takes; those are taken away.
void SessionManager::WriteDirectly(Session& session, Bytes& bytes) {
  Flush(session);
  while (!bytes.empty() && session.unread_since_us == 0) {
    const Bytes window = bytes.substr(0, kWindowBytes);
    bytes.remove_prefix(window.size());
    WriteNow(session, window);
  }
}

// Where a complete message to the client may be appended.
std::string& SessionManager::OutFor(Session& session) {
  MarkDirty(session);
  return session.replying != nullptr ? session.after_reply : session.out;
}

// Answers without an exchange, unless replies must keep their order.
void SessionManager::AnswerLocally(Session& session, const Message& message, LocalReply reply,
                                   std::string_view text) {
  Series& series = exchanges_.SeriesFor(session.protocol, *session.use, nullptr);
  if (message.kind != MessageKind::kRequest) {
    series.Add(LocalReplyCounter(reply));
    if (message.kind == MessageKind::kOneWay) {
      exchanges_.Refused(session.origin, *session.use, message, reply, text);
    }
    return;
  }
  const Codec& codec = *session.use->snapshot->codec;
  if (codec.traits().ordered_replies && FirstToAnswer(session) != nullptr) {
    exchanges_.AnswerLocally(NewExchange(session, nullptr, message), reply, text);
    return;
  }
  series.Add(Counter::kRequests);
  series.Add(LocalReplyCounter(reply));
  reply_context_.id = message.id;
  reply_context_.tag = message.tag;
  reply_context_.name.assign(message.reply_name);
  exchanges_.Refused(session.origin, *session.use, message, reply, text);
  if (!codec.Reply(reply_context_, reply, text, OutFor(session))) EndAfterReplies(session);
}

// --- what servers send of themselves

bool SessionManager::OnServerRequest(LeaseOwner& owner, LeaseId lease, const Codec& codec,
                                     const Message& message, Bytes bytes) {
  auto& session = static_cast<Session&>(owner);
  // Nobody would be held up by a client that does not read it.
  if (session.gone || session.close_wanted || session.unwritten() > kMostWaiting) return false;
  uint64_t id = message.id;
  if (message.kind == MessageKind::kRequest) {
    if (session.server_requests == nullptr) {
      session.server_requests = std::make_unique<Session::ServerRequests>();
    }
    auto& [unanswered, last_id] = *session.server_requests;
    if (unanswered.size() == kMostServerRequests) unanswered.erase(unanswered.begin());
    last_id = last_id == INT32_MAX ? 1 : last_id + 1;
    id = last_id;
    unanswered.push_back({id, lease, message.id});
  }
  std::string& out = OutFor(session);
  const Encoded encoded = codec.Encode(message, bytes, {.id = id}, out);
  if (encoded.impossible) return false;
  CheckEncoded(encoded, message, bytes);
  out.append(encoded.Unchanged(bytes)).append(encoded.Tail());
  session.last_activity_us = context_.now_us();
  return true;
}

Passed SessionManager::OnReply(Exchange& exchange, const Codec& codec, const Message& message,
                               Bytes bytes) {
  Session& session = *exchange.session;
  if (!MayWrite(session, exchange)) {
    return HoldReply(exchange, codec, message, bytes) ? Passed::kGiven : Passed::kNot;
  }
  const std::span<const MutationOp> mutation = exchange.reply_changes();
  if (bytes.size() < kDirectWriteBytes) MakeRoom(session, bytes.size() + kMostHeadBytes);
  const Encoded encoded =
      codec.Encode(message, bytes, {.id = exchange.client().id, .mutation = mutation}, session.out);
  if (encoded.impossible) return Passed::kNot;
  CheckEncoded(encoded, message, bytes);
  Write(session, encoded.Unchanged(bytes));
  if (encoded.tail_bytes != 0) session.out.append(encoded.Tail());
  if (bytes.size() < message.length) {
    session.replying = &exchange;
    return Passed::kGiven;
  }
  if (session.sending == &exchange || session.replying != nullptr || OthersWait(session, 1)) {
    return Passed::kGiven;
  }
  Leave(session, exchange);
  return Passed::kDelivered;
}

// It is not its turn.
bool SessionManager::HoldReply(Exchange& exchange, const Codec& codec, const Message& message,
                               Bytes bytes) {
  const EncodeOptions options{.id = exchange.client().id, .mutation = exchange.reply_changes()};
  bool possible = true;
  ChangeHeld(exchange, [&](std::string& held) {
    const Encoded encoded = codec.Encode(message, bytes, options, held);
    possible = !encoded.impossible;
    if (possible) held.append(encoded.Unchanged(bytes)).append(encoded.Tail());
  });
  MarkDirty(*exchange.session);
  return possible;
}

void SessionManager::OnReplyBody(Exchange& exchange, Bytes bytes) {
  Session& session = *exchange.session;
  if (session.replying == &exchange) {
    Write(session, bytes);
  } else {
    ChangeHeld(exchange, [&](std::string& held) { held.append(bytes); });
    MarkDirty(session);
  }
}

void SessionManager::OnReplyEnd(Exchange& exchange) { FinishReply(exchange); }

void SessionManager::OnLocalReply(Exchange& exchange, LocalReply reply, std::string_view text) {
  Session& session = *exchange.session;
  if (session.replying == &exchange) {
    // Half of a reply is out; nothing that could follow would be understood.
    exchanges_.Delivered(exchange);
    Close(session, CloseMode::kAbort);
    return;
  }
  const Codec& codec = exchange.codec();
  const bool direct = MayWrite(session, exchange);
  bool said = false;
  ChangeHeld(exchange, [&](std::string& held) {
    held.clear();
    std::string& out = direct ? session.out : held;
    said = exchange.own_reply_changes().empty() ? codec.Reply(exchange.client(), reply, text, out)
                                                : ReplyWithChanges(exchange, reply, text, out);
  });
  if (said) {
    MarkDirty(session);
    FinishReply(exchange);
    return;
  }
  EndAfterReplies(session);
  if (codec.traits().ordered_replies) {
    // The client would take the next reply for this one's.
    exchange.unanswerable = true;
    if (session.sending == &exchange) StopSending(session);
  } else {
    exchanges_.Delivered(exchange);
  }
}

// The last byte of the reply has been written or stands in `held`.
void SessionManager::FinishReply(Exchange& exchange) {
  Session& session = *exchange.session;
  const bool direct = exchange.held.empty();
  if (session.sending == &exchange) StopSending(session);
  if (!direct) {
    if (session.use->ordered_replies) return;  // until it is its turn
    OutFor(session).append(exchange.held);
  }
  exchanges_.Delivered(exchange);
  if (OthersWait(session, 0)) WriteHeldReplies(session);
}

// Something that others had to wait for has been written.
void SessionManager::WriteHeldReplies(Session& session) {
  if (session.replying != nullptr) return;
  if (!session.after_reply.empty()) {
    Write(session, session.after_reply);
    ClearKeepingLittle(session.after_reply);
  }
  if (session.use->ordered_replies) {
    while (Exchange* const next = FirstToAnswer(session)) {
      Exchange& first = *next;
      const bool complete = first.state() == Exchange::State::kReplied;
      if (!complete && (first.state() != Exchange::State::kReplying || first.held.empty())) return;
      if (first.unanswerable) {
        MarkAttention(session);
        return;
      }
      Write(session, first.held);
      ChangeHeld(first, ClearKeepingLittle);
      if (!complete) {  // its body is still coming: from here on straight through
        session.replying = &first;
        return;
      }
      exchanges_.Delivered(first);
    }
    return;
  }
  // Nearly always nothing is held, and then no reply looks at all the other exchanges.
  if (session.held_bytes == 0) return;
  Exchange* const next =
      session.exchanges.Find([](const Exchange& exchange) { return !exchange.held.empty(); });
  Write(session, next->held);
  ChangeHeld(*next, ClearKeepingLittle);
  session.replying = next;
}

}  // namespace metaprotocol
