// Reading: from a client's bytes to requests, their routes, and the exchanges that stand for them.
#include <algorithm>
#include <utility>

#include "src/base/out_buffer.h"
#include "src/codec/contract.h"
#include "src/filter/local_reply_text.h"
#include "src/session/session_manager.h"

namespace metaprotocol {

void SessionManager::Data(Session& session, std::span<const Bytes> slices, bool end_stream) {
  session.last_activity_us = context_.now_us();
  size_t bytes_to_come = 0;
  for (const Bytes slice : slices) bytes_to_come += slice.size();
  for (const Bytes slice : slices) {
    if (session.gone) break;
    bytes_to_come -= slice.size();
    Ingest(session, slice, bytes_to_come);
  }
  if (session.in.size() >= BufferBudget::kLeast || session.bytes() != 0) MarkAttention(session);
  if (end_stream && !session.gone) {
    session.end_stream = true;
    MarkAttention(session);
  }
}

void SessionManager::Ingest(Session& session, Bytes bytes, size_t bytes_to_come) {
  if (session.stream_remaining != 0) PassOnBody(session, bytes);
  if (bytes.empty() || session.close_wanted || session.gone) return;
  if (!session.in.empty() || session.pause_reasons != 0) {
    session.in.Append(bytes);
    if (session.pause_reasons == 0 && session.in.size() >= session.need) {
      ParseBuffered(session, bytes_to_come);
    }
    return;
  }
  const size_t used = Parse(session, bytes, bytes_to_come);
  if (!session.gone && !session.close_wanted && used != bytes.size()) {
    session.in.Append(bytes.substr(used));
  }
}

// Takes what belongs to a message whose head has been dealt with already.
void SessionManager::PassOnBody(Session& session, Bytes& bytes) {
  const Bytes part = bytes.substr(0, session.stream_remaining);
  if (session.sending != nullptr && !part.empty()) {
    const Codec& codec = *session.use->snapshot->codec;
    const std::string_view wrong = codec.CheckBody(session.decode_state.get(), part);
    if (!wrong.empty()) RefuseRest(session, wrong);
  }
  bytes.remove_prefix(part.size());
  session.stream_remaining -= part.size();
  const bool last = session.stream_remaining == 0;
  if (last) {
    session.message_since_us = 0;
    if (session.pause_reasons != 0) MarkAttention(session);
  }
  if (Exchange* exchange = session.sending) {
    if (last) StopSending(session);
    if (!exchanges_.SendBody(*exchange, part, last)) Pause(session, Session::kCannotPassOn);
  }
}

void SessionManager::ParseBuffered(Session& session, size_t bytes_to_come) {
  const size_t used = Parse(session, session.in.view(), bytes_to_come);
  if (!session.gone) session.in.Consume(used);
}

DecodeOptions SessionManager::DecodingOf(const Snapshot& snapshot) {
  DecodeOptions options;
  options.interest = snapshot.request_interest;
  options.max_message_bytes = snapshot.limits.max_message_bytes;
  options.allow_partial =
      snapshot.request_interest.head_suffices && !snapshot.codec->traits().whole_to_encode;
  return options;
}

// Inlined, as what nearly all messages go on to is (HandleRequest): the compiler finds them too
// long for that, and what they would save and restore of registers costs more than the code.
[[gnu::always_inline]] inline Handled SessionManager::HandleMessage(Session& session,
                                                                    const RequestView& request) {
  const MessageKind kind = request.message.kind;
  const bool is_request = kind == MessageKind::kRequest || kind == MessageKind::kOneWay;
  return is_request ? HandleRequest(session, request) : HandleOther(session, request);
}

// Handles every message in `bytes`; returns how many bytes were used up.
size_t SessionManager::Parse(Session& session, Bytes bytes, size_t bytes_to_come) {
  size_t used = 0;
  session.need = 0;
  TakeUpTurn();
  Message& message = scratch_;
  const SnapshotUse* use = nullptr;  // whose `options` are
  DecodeOptions options;
  while (used < bytes.size() && session.pause_reasons == 0 && !session.close_wanted &&
         !session.gone) {
    if (!turn_.Take() && StandInLine(session, bytes.size() - used + bytes_to_come)) break;
    TakeUpNewest(session);
    const Bytes rest = bytes.substr(used);
    const Snapshot& snapshot = *session.use->snapshot;
    if (std::exchange(use, session.use) != session.use) options = DecodingOf(snapshot);
    message.Clear(options.interest.keys);
    const DecodeResult result = snapshot.codec->Decode(session.decode_state.get(),
                                                       Direction::kRequest, rest, options, message);
    CheckDecoded(result, message, rest, options);
    if (result.unpacked_bytes != 0) turn_.TakeUnpacked(result.unpacked_bytes);
    if (result.status == DecodeResult::Status::kMessage) {
      const size_t length = message.length;
      const Bytes part = rest.substr(0, length);
      const bool whole = part.size() == length;
      const bool wait = !whole && length <= snapshot.limits.stream_message_bytes;
      const bool arrived = length <= part.size() + bytes_to_come;
      const RequestView view{message, part, arrived};
      if (wait || HandleMessage(session, view) == Handled::kWantedWhole) {
        session.need = length;
        break;
      }
      used += part.size();
      session.message_since_us = 0;
      if (!whole) session.stream_remaining = length - part.size();
      continue;
    }
    if (result.status == DecodeResult::Status::kUndecodable) {
      const size_t length = message.length;
      const size_t part = std::min(rest.size(), length);
      HandleUndecodable(session, message, result.error);
      used += part;
      session.message_since_us = 0;
      session.stream_remaining = length - part;  // goes nowhere
      continue;
    }
    if (result.status != DecodeResult::Status::kNeedMore) {
      HandleBroken(session, message, result);
      return bytes.size();  // nothing behind it can be understood
    }
    session.need = result.need;
    break;
  }
  if (used != 0 && session.draining) MarkAttention(session);
  const bool unfinished = used < bytes.size() || session.stream_remaining != 0;
  if (unfinished && !session.gone && session.message_since_us == 0) StartMessageClock(session);
  return used;
}

void SessionManager::TellMalformed(Session& session, std::string_view consequence,
                                   std::string_view why) {
  session.protocol.series->Add(Counter::kDownstreamMalformed);
  if (!context_.host.LogEnabled(LogLevel::kDebug)) return;
  std::string line = session.protocol.name + ": ";
  line.append(consequence).append(" from ").append(session.info.remote_address);
  context_.host.Log(LogLevel::kDebug, line.append(": ").append(why));
}

// A message whose end is known, and nothing else: it costs nobody but its own call.
void SessionManager::HandleUndecodable(Session& session, const Message& message,
                                       std::string_view why) {
  TellMalformed(session, "refusing a message", why);
  session.last_tag = message.tag;
  if (IsOfStream(message.kind)) {
    HandleUndecodableOfStream(session, message, why);
    return;
  }
  AnswerLocally(session, message, LocalReply::kMalformed, why);
}

// What follows of a message that is being passed on cannot be: the server is left without the rest,
// and the client gets the error reply. Where the next message begins is known.
void SessionManager::RefuseRest(Session& session, std::string_view why) {
  TellMalformed(session, "refusing a message", why);
  exchanges_.AnswerLocally(*session.sending, LocalReply::kMalformed, why);
}

// Bytes that are no message: the protocol's own error reply, if one can be formed, and the end, as
// soon as what came before has been answered.
void SessionManager::HandleBroken(Session& session, const Message& message,
                                  const DecodeResult& result) {
  const bool too_large = result.status == DecodeResult::Status::kTooLarge;
  const LocalReply reply = too_large ? LocalReply::kTooLarge : LocalReply::kMalformed;
  TellMalformed(session, "closing a connection", result.error);
  if (message.kind == MessageKind::kRequest) AnswerLocally(session, message, reply, result.error);
  EndAfterReplies(session);
}

// What is no request.
Handled SessionManager::HandleOther(Session& session, const RequestView& request) {
  const Message& message = request.message;
  Series& series = *session.protocol.series;
  switch (message.kind) {
    case MessageKind::kHeartbeat:
      if (!request.whole()) return Handled::kWantedWhole;
      series.Add(Counter::kDownstreamHeartbeats);
      session.use->snapshot->codec->HeartbeatReply(message, request.bytes, OutFor(session));
      return Handled::kDone;
    case MessageKind::kHeartbeatReply:
      return Handled::kDone;
    case MessageKind::kRequest:
    case MessageKind::kOneWay:
    case MessageKind::kResponse:
      return HandleAnswer(session, request);
    case MessageKind::kGoAway:
    case MessageKind::kOther:
      break;
    case MessageKind::kStreamOpen:
    case MessageKind::kStreamData:
    case MessageKind::kStreamEnd:
    case MessageKind::kStreamReset:
    case MessageKind::kStreamWindow:
      return HandleStreamMessage(session, request);
  }
  series.Add(Counter::kDropped);
  return Handled::kDone;
}

// Of the client, to what a server has asked it.
Handled SessionManager::HandleAnswer(Session& session, const RequestView& answer) {
  if (session.server_requests != nullptr) {
    if (!answer.whole()) return Handled::kWantedWhole;
    auto& unanswered = session.server_requests->unanswered;
    const auto found = std::find_if(unanswered.begin(), unanswered.end(), [&](const auto& request) {
      return request.id == answer.message.id;
    });
    if (found != unanswered.end()) {
      const Session::ServerRequests::Request request = *found;
      unanswered.erase(found);
      const Codec& codec = *session.use->snapshot->codec;
      if (hub_.Answer(request.lease, codec, answer.message, answer.bytes, request.server_id)) {
        return Handled::kDone;
      }
    }
  }
  session.protocol.series->Add(Counter::kDropped);
  return Handled::kDone;
}

[[gnu::always_inline]] inline Handled SessionManager::HandleRequest(Session& session,
                                                                    const RequestView& request) {
  const Message& message = request.message;
  session.last_tag = message.tag;
  if (draining_) {
    AnswerLocally(session, message, LocalReply::kShuttingDown,
                  LocalReplyText(LocalReply::kShuttingDown));
    return Handled::kDone;
  }
  PrepareForRoute(session, request.message);
  const MatchInput input{message.metadata, session.connection};
  const RouteMatch match = session.table->routes->Match(input);
  const Route* const route = match.route;
  if (match.undecided) {
    AnswerLocally(session, message, LocalReply::kTooLarge, kTooLongToDecide);
    return Handled::kDone;
  }
  if (route == nullptr) {
    AnswerLocally(session, message, LocalReply::kNoRoute, LocalReplyText(LocalReply::kNoRoute));
    return Handled::kDone;
  }
  const bool whole = request.whole();
  if (!whole && Exchanges::WantsWhole(*session.use, *route, message, input))
    return Handled::kWantedWhole;
  Exchange& exchange = NewExchange(session, route, message);
  session.sending = whole ? session.sending : &exchange;
  exchanges_.Run(exchange, request);
  if (session.sending == &exchange && !exchange.wants_body()) session.sending = nullptr;
  return Handled::kDone;
}

}  // namespace metaprotocol
