// Streams, as their client's connection sees them: which message belongs to which, and what the
// client is sent.
#include "src/codec/contract.h"
#include "src/filter/local_reply_text.h"
#include "src/session/session_manager.h"

namespace metaprotocol {

Exchange* SessionManager::FindStream(const Session& session, uint64_t id) {
  if (session.streams == nullptr) return nullptr;
  const auto it = session.streams->find(id);
  return it == session.streams->end() ? nullptr : it->second;
}

// --- from the client

Handled SessionManager::HandleStreamMessage(Session& session, const RequestView& request) {
  if (!request.whole()) return Handled::kWantedWhole;
  const Message& message = request.message;
  if (Exchange* const stream = FindStream(session, message.stream_id)) {
    if (exchanges_.StreamMessage(*stream, request)) return Handled::kDone;
    Pause(session, Session::kCannotPassOn);
    return Handled::kWantedWhole;
  }
  // Without ids on upstream connections nobody could tell whose a message is.
  const bool possible = session.use->snapshot->codec->traits().id_bits != 0;
  if (message.kind == MessageKind::kStreamOpen && possible) {
    OpenStream(session, request);
  } else {
    session.protocol.series->Add(Counter::kDropped);  // most likely of one that has ended
  }
  return Handled::kDone;
}

void SessionManager::OpenStream(Session& session, const RequestView& request) {
  const Message& message = request.message;
  session.last_tag = message.tag;
  if (draining_) {
    RefuseStream(session, message, LocalReply::kShuttingDown,
                 LocalReplyText(LocalReply::kShuttingDown));
    return;
  }
  if (session.stream_count() >= session.use->snapshot->limits.max_streams) {
    RefuseStream(session, message, LocalReply::kOverLimit, "too many streams on this connection");
    return;
  }
  PrepareForRoute(session, request.message);
  const RouteMatch match = session.table->routes->Match({message.metadata, session.connection});
  if (match.undecided) {
    RefuseStream(session, message, LocalReply::kTooLarge, kTooLongToDecide);
    return;
  }
  if (match.route == nullptr) {
    RefuseStream(session, message, LocalReply::kNoRoute, LocalReplyText(LocalReply::kNoRoute));
    return;
  }
  Exchange& stream = exchanges_.NewStream(session.origin, *session.use, match.route, message);
  stream.session = &session;
  if (session.streams == nullptr) {
    session.streams = std::make_unique<std::unordered_map<uint64_t, Exchange*>>();
  }
  session.streams->emplace(message.stream_id, &stream);
  exchanges_.OpenStream(stream, request);
}

void SessionManager::RefuseStream(Session& session, const Message& message, LocalReply reply,
                                  std::string_view text) {
  Series& series = exchanges_.SeriesFor(session.protocol, *session.use, nullptr);
  series.Add(Counter::kRequests);
  series.Add(LocalReplyCounter(reply));
  reply_context_.id = message.id;
  reply_context_.tag = message.tag;
  reply_context_.name.assign(message.reply_name);
  reply_context_.stream_id = message.stream_id;
  exchanges_.Refused(session.origin, *session.use, message, reply, text);
  SayStreamIsOver(session, reply_context_, *session.use->snapshot->codec, reply, text);
}

// It costs nobody but its own stream.
void SessionManager::HandleUndecodableOfStream(Session& session, const Message& message,
                                               std::string_view why) {
  if (Exchange* const stream = FindStream(session, message.stream_id)) {
    exchanges_.AnswerLocally(*stream, LocalReply::kMalformed, why);
  } else if (message.kind == MessageKind::kStreamOpen) {
    RefuseStream(session, message, LocalReply::kMalformed, why);
  }
}

// --- to the client

std::optional<LocalReply> SessionManager::OnStreamMessage(Exchange& exchange, const Codec& codec,
                                                          const Message& message, Bytes bytes) {
  Session& session = *exchange.session;
  // Half of what the connection would be closed for, so that the word of it finds a place.
  const size_t most = session.use->snapshot->limits.max_unread_reply_bytes / 2;
  if (session.unread_since_us != 0 && session.unwritten() + bytes.size() > most) {
    return LocalReply::kOverLimit;
  }
  const EncodeOptions options{.id = exchange.client().id, .stream_id = exchange.client().stream_id};
  std::string& out = OutFor(session);
  const Encoded encoded = codec.Encode(message, bytes, options, out);
  if (encoded.impossible) return LocalReply::kBadResponse;
  CheckEncoded(encoded, message, bytes);
  if (session.replying == nullptr) {
    Write(session, encoded.Unchanged(bytes));
  } else {
    out.append(encoded.Unchanged(bytes));
  }
  out.append(encoded.Tail());
  return std::nullopt;
}

void SessionManager::OnStreamWindow(Exchange& exchange, uint64_t bytes) {
  exchange.codec().GrantWindow(exchange.client(), Direction::kResponse, bytes,
                               OutFor(*exchange.session));
}

void SessionManager::OnStreamReset(Exchange& exchange, LocalReply reply, std::string_view text) {
  SayStreamIsOver(*exchange.session, exchange.client(), exchange.codec(), reply, text);
}

void SessionManager::SayStreamIsOver(Session& session, const ReplyContext& stream,
                                     const Codec& codec, LocalReply reply, std::string_view text) {
  std::string& out = OutFor(session);
  if (codec.ResetStream(stream, Direction::kResponse, reply, text, out)) return;
  if (codec.Reply(stream, reply, text, out)) return;
  EndAfterReplies(session);
}

bool SessionManager::Stalls(const Exchange& exchange) {
  return exchange.session->unread_since_us != 0;
}

void SessionManager::OnRoom(Exchange& exchange) {
  Resume(*exchange.session, Session::kCannotPassOn);
}

void SessionManager::OnStreamLeave(Exchange& exchange) {
  Session& session = *exchange.session;
  session.streams->erase(exchange.client().stream_id);
  exchange.session = nullptr;
  exchange.paused = false;
  session.last_activity_us = context_.now_us();
  // What could not be passed on may have been this stream's.
  session.pause_reasons &= static_cast<uint8_t>(~Session::kCannotPassOn);
  MarkAttention(session);
}

}  // namespace metaprotocol
