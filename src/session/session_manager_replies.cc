// Replying: what a client is written, in which order, and what becomes of the exchange then.
#include "src/base/out_buffer.h"
#include "src/session/session_manager.h"

namespace metaprotocol {
namespace {

Counter CounterFor(ReplyStatus status) {
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

}  // namespace

// Replies may overtake each other unless the protocol forbids it, but none may begin in the middle
// of another.
bool SessionManager::MayWrite(Session& session, const Exchange& exchange) {
  if (session.replying != nullptr) return session.replying == &exchange;
  if (!session.use->snapshot->codec->traits().ordered_replies) return true;
  return FirstToAnswer(session) == &exchange;
}

// Whose reply is next where they keep their order; null if nobody waits for one.
Exchange* SessionManager::FirstToAnswer(Session& session) {
  return session.exchanges.Find([](const Exchange& exchange) { return exchange.expects_reply; });
}

void SessionManager::Write(Session& session, Bytes bytes) {
  MarkDirty(session);
  if (bytes.size() >= kDirectWriteBytes) {
    Flush(session);
    if (session.unread_since_us != 0) session.unread_bytes += bytes.size();
    context_.host.WriteSession(session.handle, bytes);
    return;
  }
  session.out.append(bytes);
}

// Where a complete message to the client may be appended.
std::string& SessionManager::OutFor(Session& session) {
  MarkDirty(session);
  return session.replying != nullptr ? session.after_reply : session.out;
}

// Answers the present message without an exchange, unless replies must keep their order.
void SessionManager::AnswerLocally(Session& session, Series& series, LocalReply reply,
                                   std::string_view text) {
  if (message_.kind != MessageKind::kRequest) {
    series.Add(LocalReplyCounter(reply));
    return;
  }
  const Codec& codec = *session.use->snapshot->codec;
  if (codec.traits().ordered_replies && FirstToAnswer(session) != nullptr) {
    Failed(NewExchange(session, nullptr, series), reply, text);
    return;
  }
  series.Add(Counter::kRequests);
  series.Add(LocalReplyCounter(reply));
  ReplyContext& context = context_of_message_;
  context.id = message_.id;
  context.tag = message_.tag;
  context.name.assign(message_.reply_name);
  if (!codec.Reply(context, reply, text, OutFor(session))) {
    session.close_wanted = true;
    MarkAttention(session);
  }
}

bool SessionManager::Reply(Exchange& exchange, const Codec& codec, const Message& message,
                           Bytes bytes) {
  static const Mutation kNone;
  const bool whole = bytes.size() == message.length;
  if (exchange.is_mirror) return MirrorReply(exchange, whole);
  Session& session = *exchange.session;
  const Mutation& mutation = exchange.route != nullptr ? exchange.route->response_mutation : kNone;
  if (!whole && !mutation.empty() && !codec.traits().mutation_in_head) return false;

  exchange.status = message.status;
  exchange.series->Add(Counter::kResponseBytes, message.length);
  exchange.series->Record(Histogram::kRequestTimeUs, context_.now_us() - exchange.started_us);
  const bool direct = MayWrite(session, exchange);
  exchange.state = Exchange::State::kReplying;
  if (direct) {
    const Encoded encoded =
        codec.Encode(message, bytes, {.id = exchange.client.id, .mutation = mutation}, session.out);
    Write(session, encoded.Unchanged(bytes));
    session.out.append(encoded.Tail());
    if (!whole) session.replying = &exchange;
  } else {
    ChangeHeld(exchange, [&](std::string& held) {
      const Encoded encoded =
          codec.Encode(message, bytes, {.id = exchange.client.id, .mutation = mutation}, held);
      held.append(encoded.Unchanged(bytes)).append(encoded.Tail());
    });
    MarkDirty(session);
  }
  if (whole) CompleteReply(exchange, direct);
  return true;
}

void SessionManager::ReplyBody(Exchange& exchange, Bytes bytes, bool last) {
  if (exchange.is_mirror) {
    MirrorReply(exchange, last);
    return;
  }
  Session& session = *exchange.session;
  const bool direct = session.replying == &exchange;
  if (direct) {
    Write(session, bytes);
  } else {
    ChangeHeld(exchange, [&](std::string& held) { held.append(bytes); });
    MarkDirty(session);
  }
  if (last) CompleteReply(exchange, direct);
}

// The last byte of the reply has been written (`direct`) or stands in `held`.
void SessionManager::CompleteReply(Exchange& exchange, bool direct) {
  Session& session = *exchange.session;
  if (exchange.state == Exchange::State::kReplying) {
    exchange.series->Add(CounterFor(exchange.status));
  }
  hub_->Finish(exchange);
  exchange.deadline.Cancel();
  if (session.sending == &exchange) session.sending = nullptr;  // the rest goes nowhere
  if (!direct && session.use->snapshot->codec->traits().ordered_replies) {
    exchange.state = Exchange::State::kReplied;
    return;
  }
  if (!direct) OutFor(session).append(exchange.held);
  const bool was_replying = session.replying == &exchange;
  FinishExchange(exchange);
  if (was_replying || !session.exchanges.empty()) WriteHeldReplies(session);
}

// Something that others had to wait for has been written.
void SessionManager::WriteHeldReplies(Session& session) {
  if (session.replying != nullptr) return;
  if (!session.after_reply.empty()) {
    Write(session, session.after_reply);
    ClearKeepingLittle(session.after_reply);
  }
  const bool ordered = session.use->snapshot->codec->traits().ordered_replies;
  if (ordered) {
    while (Exchange* const next = FirstToAnswer(session)) {
      Exchange& first = *next;
      const bool complete = first.state == Exchange::State::kReplied;
      if (!complete && (first.state != Exchange::State::kReplying || first.held.empty())) return;
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
      FinishExchange(first);
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

void SessionManager::Sent(Exchange& exchange) {
  if (exchange.is_mirror) {
    EndMirror(exchange);
    return;
  }
  exchange.series->Add(Counter::kOneWay);
  FinishExchange(exchange);
}

void SessionManager::Failed(Exchange& exchange, LocalReply reply, std::string_view text) {
  if (exchange.is_mirror) {
    exchange.series->Add(Counter::kMirrorFailures);
    EndMirror(exchange);
    return;
  }
  exchange.series->Add(LocalReplyCounter(reply));
  if (!exchange.expects_reply) {
    FinishExchange(exchange);
    return;
  }
  Session& session = *exchange.session;
  if (session.replying == &exchange) {
    // Half of a reply is out; nothing that could follow would be understood.
    FinishExchange(exchange);
    Close(session, CloseMode::kAbort);
    return;
  }
  const Codec& codec = *exchange.snapshot->snapshot->codec;
  const bool direct = MayWrite(session, exchange);
  exchange.state = Exchange::State::kReplied;
  bool said = false;
  ChangeHeld(exchange, [&](std::string& held) {
    held.clear();
    said = codec.Reply(exchange.client, reply, text, direct ? session.out : held);
  });
  if (!said) {
    session.close_wanted = true;
    MarkAttention(session);
    if (codec.traits().ordered_replies) {
      // The client would take the next reply for this one's.
      exchange.unanswerable = true;
      exchange.deadline.Cancel();
      if (session.sending == &exchange) session.sending = nullptr;
    } else {
      FinishExchange(exchange);
    }
    return;
  }
  MarkDirty(session);
  CompleteReply(exchange, direct);
}

}  // namespace metaprotocol
