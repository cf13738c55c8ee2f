// Streams: exchanges of any number of messages in both directions. One is opened like a request,
// through its filters to a server; everything that follows goes where it went.
#include <algorithm>
#include <utility>

#include "src/exchange/exchanges.h"
#include "src/filter/local_reply_text.h"

namespace metaprotocol {
namespace {

// How long a client's next message may wait for a server that takes nothing. It holds up what the
// client sends behind it, for other servers too.
constexpr uint64_t kStallPatienceUs = 5 * 1000 * 1000;

constexpr std::string_view kAfterItsEnd = "a message of a stream that its sender has ended";
constexpr std::string_view kResetByClient = "the client has reset the stream";
constexpr std::string_view kNotTaken = "the client does not take what it is sent";

bool Ends(const Message& message) {
  return message.end_stream || message.kind == MessageKind::kStreamEnd;
}

// Why a message could not be passed on to the client.
std::string_view TextOf(LocalReply why) {
  return why == LocalReply::kOverLimit ? kNotTaken : LocalReplyText(why);
}

}  // namespace

// --- the beginning

Exchange& Exchanges::NewStream(const ExchangeOrigin& origin, SnapshotUse& use, const Route* route,
                               const Message& message) {
  Exchange& exchange = New(origin, use, route, message);
  exchange.expects_reply_ = true;
  exchange.client_.stream_id = message.stream_id;
  exchange.stream_ = std::make_unique<StreamState>();
  exchange.stream_->client_done = message.end_stream;
  if (message.timeout_us != 0) {
    exchange.stream_->deadline_us = context_.now_us() + message.timeout_us;
  }
  return exchange;
}

void Exchanges::OpenStream(Exchange& exchange, const RequestView& request) {
  if (exchange.chain_->empty()) {
    ForwardStream(exchange, request);
  } else {
    RunFilters(exchange, request);
  }
}

// --- from the client

bool Exchanges::StreamMessage(Exchange& exchange, const RequestView& view) {
  if (exchange.state_ == Exchange::State::kHeld) return false;
  StreamState& stream = *exchange.stream_;
  const Message& message = view.message;
  switch (message.kind) {
    case MessageKind::kStreamWindow:
      // Only where there is room, too: a grant may be of nothing, as often as its sender likes, and
      // as long as a message may be.
      if (hub_.HasRoom(exchange.attempt_) &&
          stream.to_client.TakeWhole(message.window, client_->Stalls(exchange))) {
        SendOnStream(exchange, view);
      } else {
        GrantToServer(exchange, message.window);
      }
      return true;
    case MessageKind::kStreamReset:
      // Nor is it held up by a server that takes nothing: what that is told then is short.
      if (!hub_.HasRoom(exchange.attempt_)) {
        ResetOnServer(exchange, LocalReply::kUpstreamLost, kResetByClient);
        exchange.series_->Add(Counter::kClientGone);
        EndStream(exchange, Outcome::Kind::kClientGone);
        return true;
      }
      if (!SendOnStream(exchange, view)) return true;
      exchange.series_->Add(Counter::kClientGone);
      FinishStream(exchange, Outcome::Kind::kClientGone);
      return true;
    case MessageKind::kStreamData:
    case MessageKind::kStreamEnd:
      break;
    default:
      AnswerLocally(exchange, LocalReply::kMalformed, "a stream was opened twice");
      return true;
  }
  if (stream.client_done) {
    AnswerLocally(exchange, LocalReply::kMalformed, kAfterItsEnd);
    return true;
  }
  if (!hub_.HasRoom(exchange.attempt_)) {
    if (stream.stalled_us == 0) {
      stream.stalled_us = context_.now_us();
      StreamTimer(exchange);
    }
    return false;
  }
  stream.active_us = context_.now_us();
  stream.stalled_us = 0;
  exchange.bytes_ += message.length;
  exchange.series_->Add(Counter::kRequestBytes, message.length);
  if (!SendOnStream(exchange, view)) return true;
  stream.to_server.Sent(message.length);
  stream.client_done = Ends(message);
  if (stream.client_done && stream.server_done) {
    FinishStream(exchange, Outcome::Kind::kReplied);
  } else {
    GrantToClient(exchange, 0);
  }
  return true;
}

// False if the codec cannot write the message: the stream is over.
bool Exchanges::SendOnStream(Exchange& exchange, const RequestView& view) {
  if (hub_.SendOnStream(exchange.attempt_, view.message, view.bytes)) return true;
  AnswerLocally(exchange, LocalReply::kMalformed, LocalReplyText(LocalReply::kMalformed));
  return false;
}

// --- from the server

void Exchanges::OnStreamMessage(Attempt& attempt, const Codec& codec, Message& message,
                                Bytes bytes) {
  Exchange& exchange = static_cast<ExchangeAttempt&>(attempt).exchange;
  StreamState& stream = *exchange.stream_;
  if (!std::exchange(stream.answered, true)) {
    RecordTime(exchange);
    if (exchange.record_ != nullptr) exchange.record_->first_byte_us = context_.now_us();
  }
  codec.CarryOver(exchange.client_, message);
  switch (message.kind) {
    case MessageKind::kStreamWindow:
      // To a client that takes nothing a long one might not be passed on, and be lost.
      if (!client_->Stalls(exchange) &&
          stream.to_server.TakeWhole(message.window, !hub_.HasMuchRoom(attempt))) {
        client_->OnStreamMessage(exchange, codec, message, bytes);
      } else {
        GrantToClient(exchange, message.window);
      }
      return;
    case MessageKind::kStreamReset:
      // What is too long for a client that does not read is said in few words.
      if (const auto why = client_->OnStreamMessage(exchange, codec, message, bytes)) {
        client_->OnStreamReset(exchange, *why, TextOf(*why));
      }
      exchange.status_ = ReplyStatus::kError;
      FinishStream(exchange, Outcome::Kind::kReplied);
      return;
    default:
      break;
  }
  if (stream.server_done) {
    AnswerLocally(exchange, LocalReply::kBadResponse, kAfterItsEnd);
    return;
  }
  stream.active_us = context_.now_us();
  exchange.response_bytes_ += message.length;
  exchange.series_->Add(Counter::kResponseBytes, message.length);
  if (const auto why = client_->OnStreamMessage(exchange, codec, message, bytes)) {
    AnswerLocally(exchange, *why, TextOf(*why));
    return;
  }
  stream.to_client.Sent(message.length);
  stream.server_done = Ends(message);
  if (stream.server_done) exchange.status_ = message.status;
  if (stream.client_done && stream.server_done) {
    FinishStream(exchange, Outcome::Kind::kReplied);
  } else {
    GrantToServer(exchange, 0);
  }
}

void Exchanges::OnStreamBroken(Attempt& attempt, LocalReply why, std::string_view text) {
  AnswerLocally(static_cast<ExchangeAttempt&>(attempt).exchange, why, text);
}

void Exchanges::OnRoom(Attempt& attempt) {
  Exchange& exchange = static_cast<ExchangeAttempt&>(attempt).exchange;
  if (exchange.origin_ == nullptr) return;
  if (exchange.is_stream()) {
    GrantToServer(exchange, 0);
    GrantToClient(exchange, 0);
    // What is next may not be this stream's, and then nothing else would say that it goes on.
    if (std::exchange(exchange.stream_->stalled_us, 0) == 0) return;
  }
  client_->OnRoom(exchange);
}

// --- windows

void Exchanges::ClientTakesMore(Exchange& exchange) {
  GrantToServer(exchange, 0);
  GrantToClient(exchange, 0);
}

// `bytes`: granted by the client now.
void Exchanges::GrantToServer(Exchange& exchange, uint64_t bytes) {
  if (exchange.state_ != Exchange::State::kStreaming) return;
  StreamWindow& window = exchange.stream_->to_client;
  window.Granted(bytes);
  if (!window.holds_any()) return;
  const bool stalls = client_->Stalls(exchange) || !hub_.HasRoom(exchange.attempt_);
  const uint64_t more = window.Take(stalls);
  if (more != 0) hub_.GrantWindow(exchange.attempt_, exchange.client_, more);
}

// `bytes`: granted by the server now.
void Exchanges::GrantToClient(Exchange& exchange, uint64_t bytes) {
  if (exchange.state_ != Exchange::State::kStreaming) return;
  StreamWindow& window = exchange.stream_->to_server;
  window.Granted(bytes);
  if (!window.holds_any()) return;
  const bool stalls = client_->Stalls(exchange) || !hub_.HasMuchRoom(exchange.attempt_);
  const uint64_t more = window.Take(stalls);
  if (more != 0) client_->OnStreamWindow(exchange, more);
}

// --- the end

// When the stream ends by itself, unless something happens before.
void Exchanges::StreamTimer(Exchange& exchange) {
  const StreamState& stream = *exchange.stream_;
  const uint64_t idle = exchange.snapshot_->snapshot->limits.stream_idle_timeout_us;
  uint64_t due = TimerWheel::kNever;
  if (idle != 0) due = stream.active_us + idle;
  if (stream.deadline_us != 0) due = std::min(due, stream.deadline_us);
  if (stream.stalled_us != 0) due = std::min(due, stream.stalled_us + kStallPatienceUs);
  if (due == TimerWheel::kNever) return;
  if (context_.now_us() < due) {
    context_.Arm(exchange.timer_, due);
    return;
  }
  AnswerLocally(exchange, LocalReply::kTimeout, LocalReplyText(LocalReply::kTimeout));
}

void Exchanges::FinishStream(Exchange& exchange, Outcome::Kind kind) {
  const bool answered = kind == Outcome::Kind::kReplied;
  Remember(exchange, hub_.FinishStream(exchange.attempt_, answered));
  if (answered) exchange.series_->Add(CounterFor(exchange.status_));
  EndStream(exchange, kind);
}

void Exchanges::ResetOnServer(Exchange& exchange, LocalReply why, std::string_view text) {
  if (!exchange.attempt_.started()) return;
  Remember(exchange, hub_.ResetStream(exchange.attempt_, exchange.client_, why, text));
}

// Nothing of it is left on a server.
void Exchanges::EndStream(Exchange& exchange, Outcome::Kind kind) {
  client_->OnStreamLeave(exchange);
  exchange.origin_ = nullptr;
  exchange.connection_ = nullptr;
  exchange.stream_.reset();
  End(exchange, kind);
}

}  // namespace metaprotocol
