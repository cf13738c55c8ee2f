// Replies: from an upstream connection's bytes to the attempts that wait for them.
#include <algorithm>
#include <cassert>
#include <string>
#include <utility>

#include "src/codec/contract.h"
#include "src/upstream/worker_hub.h"

namespace metaprotocol {
namespace {

// How often one host's malformed replies are worth a line in the log.
constexpr uint64_t kWarnEveryUs = 1000 * 1000;

// Replies to others, before the one that is waited for, that a lease survives. Each is a guess at
// that one's id, of which there are a thousand million.
constexpr uint32_t kMaxStrays = 8;
// How long the right one may then take. Who has the wrong ids for good is told from who had a reply
// too many by nothing else.
constexpr uint64_t kStrayPatienceUs = 1000 * 1000;

// How long a host is passed over that wants no more requests. Those that shut down are gone by
// then.
constexpr uint64_t kAwayAfterGoAwayUs = 10 * 1000 * 1000;

constexpr std::string_view kTooLargeText = "the reply is larger than the limit";
constexpr std::string_view kMalformedText = "the upstream host sent a malformed reply";

}  // namespace

void WorkerHub::LeaseData(LeaseId id, std::span<const Bytes> slices) {
  Lease* found = Find(id);
  if (found == nullptr) return;
  Lease& lease = *found;
  assert(lease.state == Lease::State::kReady && "no data before the lease is ready");
  TakeUpTurn();
  lease.answered = true;
  if (lease.unconfirmed) {
    lease.unconfirmed = false;
    lease.pool.Withdraw(lease);
    if (lease.attempt_count == 0) MarkSettling(lease);  // which puts it where it belongs now
  }
  for (Bytes slice : slices) {
    if (lease.state == Lease::State::kGone) return;
    StreamFromUpstream(lease, slice);
    if (slice.empty()) continue;
    if (lease.in.empty()) {
      const size_t used = ParseUpstream(lease, slice);
      if (used != slice.size()) lease.in.Append(slice.substr(used));
      continue;
    }
    lease.in.Append(slice);
    if (lease.in_line) {
      if (lease.in.size() >= kMostUnhandled) MarkSettling(lease);
    } else if (lease.in.size() >= lease.need) {
      lease.in.Consume(ParseUpstream(lease, lease.in.view()));
    }
  }
}

// --- turns

// A new turn has room for messages again, unless somebody stands in line: those come first.
void WorkerHub::TakeUpTurn() {
  if (line_.empty()) turn_.TakeUp(context_.host.Turn());
}

void WorkerHub::StandInLine(Lease& lease) {
  lease.need = 0;
  lease.in_line = true;
  line_.push_back(lease.id);
  MarkSettling(lease);  // it may have to be paused
  context_.TickSoon();
}

void WorkerHub::NextTurn() {
  if (!line_.empty()) turn_.Begin(context_.host.Turn());
}

bool WorkerHub::ServeLine() {
  if (line_.empty()) return false;
  if (turn_.over()) {
    context_.TickSoon();
    return false;
  }
  Lease* const lease = Find(line_.front());
  line_.pop_front();
  if (lease == nullptr) return true;
  lease->in_line = false;
  lease->in.Consume(ParseUpstream(*lease, lease->in.view()));
  MarkSettling(*lease);
  return true;
}

// Its connection is closed, but the replies in it are for those who wait. There is no more of them
// than was let gather.
void WorkerHub::HandleTheRest(Lease& lease) {
  lease.in_line = false;
  lease.state = Lease::State::kClosed;
  DrainLease(lease);
  const TurnShare present = std::exchange(turn_, TurnShare::Boundless());
  lease.in.Consume(ParseUpstream(lease, lease.in.view()));
  turn_ = present;
}

// Passes on what belongs to a message whose head has been dealt with already.
void WorkerHub::StreamFromUpstream(Lease& lease, Bytes& bytes) {
  if (lease.stream_remaining == 0 || bytes.empty()) return;
  const Bytes part = bytes.substr(0, lease.stream_remaining);
  lease.stream_remaining -= part.size();
  bytes.remove_prefix(part.size());
  const bool last = lease.stream_remaining == 0;
  Attempt* attempt = lease.receiving;
  if (attempt != nullptr) {
    attempt->sink->OnReplyBody(*attempt, part);
    if (last && lease.receiving == attempt) Complete(*attempt);  // not given up meanwhile
  }
  if (last && lease.attempt_count == 0) MarkSettling(lease);
}

// Handles every message in `bytes`; returns how many bytes were used up.
size_t WorkerHub::ParseUpstream(Lease& lease, Bytes bytes) {
  size_t used = 0;
  const bool allow_partial = !lease.codec->traits().whole_to_encode;
  while (used < bytes.size() && lease.state != Lease::State::kGone) {
    if (!turn_.Take()) {
      StandInLine(lease);
      return used;
    }
    const Bytes rest = bytes.substr(used);
    const UpstreamProtocol& protocol = *lease.pool.protocol;
    DecodeOptions options;
    options.interest = protocol.response_interest;
    options.max_message_bytes = protocol.max_message_bytes;
    options.allow_partial = allow_partial;
    message_.Clear(options.interest.keys);
    const DecodeResult result = lease.codec->Decode(lease.decode_state.get(), Direction::kResponse,
                                                    rest, options, message_);
    CheckDecoded(result, message_, rest, options);
    if (result.unpacked_bytes != 0) turn_.TakeUnpacked(result.unpacked_bytes);
    switch (result.status) {
      case DecodeResult::Status::kNeedMore:
        lease.need = result.need;
        return used;
      case DecodeResult::Status::kMessage: {
        const Bytes part = rest.substr(0, message_.length);
        const bool whole = part.size() == message_.length;
        if (!whole && message_.length <= protocol.stream_message_bytes) {
          lease.need = message_.length;
          return used;
        }
        lease.need = 0;
        const size_t length = message_.length;
        const Handled handled = message_.kind == MessageKind::kResponse
                                    ? HandleResponse(lease, message_, part)
                                    : HandleOther(lease, message_, part);
        if (handled == Handled::kWantedWhole) {
          lease.need = length;
          return used;
        }
        used += part.size();
        if (!whole) lease.stream_remaining = length - part.size();
        break;
      }
      case DecodeResult::Status::kTooLarge:
        if (!Skip(lease, message_, rest, LocalReply::kTooLarge, kTooLargeText)) {
          RejectUpstream(lease, result.error, LocalReply::kTooLarge, kTooLargeText);
          return used;
        }
        used += std::min(rest.size(), message_.length);
        break;
      case DecodeResult::Status::kUndecodable:
        if (!Skip(lease, message_, rest, LocalReply::kBadResponse, kMalformedText)) {
          RejectUpstream(lease, result.error, LocalReply::kBadResponse, kMalformedText);
          return used;
        }
        Warn(lease, result.error);
        used += std::min(rest.size(), message_.length);
        break;
      case DecodeResult::Status::kError:
        RejectUpstream(lease, result.error, LocalReply::kBadResponse, kMalformedText);
        return used;
    }
  }
  return used;
}

// A message is longer than what is put up with, or cannot be decoded. If it is known where it ends,
// and others may be waiting behind it, only the request or stream that it belongs to fails, and the
// bytes go nowhere; false: it would not help.
bool WorkerHub::Skip(Lease& lease, const Message& message, Bytes rest, LocalReply reply,
                     std::string_view text) {
  const bool others = lease.ids || lease.mode == UpstreamMode::kPerSession;
  if (!others || message.length == 0 || message.kind == MessageKind::kOther) return false;
  SeriesOf(lease.pool).Add(Counter::kUpstreamMalformed);
  lease.need = 0;
  lease.receiving = nullptr;
  lease.stream_remaining = message.length - std::min(rest.size(), message.length);
  if (IsOfStream(message.kind)) {
    if (Attempt* const stream = StreamOf(lease, message.stream_id)) {
      stream->sink->OnStreamBroken(*stream, reply, text);
    }
    return true;
  }
  if (message.kind != MessageKind::kResponse) return true;
  Attempt* attempt = nullptr;
  if (lease.ids) {
    attempt = lease.ids->Find(message.id);
    if (attempt == nullptr) lease.ids->CameLate(message.id);
  } else if (!lease.attempts.empty()) {
    attempt = &lease.attempts.front();
  }
  const bool waits =
      attempt != nullptr && attempt->expects_reply_ && attempt->state_ != Attempt::State::kReplying;
  if (waits) {
    if (reply == LocalReply::kBadResponse) Judge(lease.pool, OutlierDetector::Sign::kBadReply);
    if (lease.sending == attempt) Break(lease);  // answered before the server has read all of it
    End(*attempt, AttemptResult::Cause::kLostBeforeHead, reply, text);
  }
  return true;
}

void WorkerHub::Warn(const Lease& lease, std::string_view why) {
  UpstreamHost& host = lease.pool.host;
  const uint64_t now = context_.now_us();
  const bool lately = host.warned_us != 0 && now < host.warned_us + kWarnEveryUs;
  if (lately || !context_.host.LogEnabled(LogLevel::kWarn)) return;
  host.warned_us = now;
  context_.host.Log(LogLevel::kWarn, "upstream " + host.address + " of cluster " +
                                         host.cluster.name() + ": " + std::string(why));
}

// What came on the lease cannot be understood, or cannot be put up with.
void WorkerHub::RejectUpstream(Lease& lease, std::string_view why, LocalReply reply,
                               std::string_view text) {
  SeriesOf(lease.pool).Add(Counter::kUpstreamMalformed);
  if (reply == LocalReply::kBadResponse && lease.attempt_count != 0) {
    Judge(lease.pool, OutlierDetector::Sign::kBadReply);
  }
  Warn(lease, why);
  if (lease.state != Lease::State::kClosed) {
    SeriesOf(lease.pool).Add(Counter::kLeasesReset);
    context_.host.ResetLease(lease.id);
  }
  Discard(lease, reply, text);
}

// What is no response.
Handled WorkerHub::HandleOther(Lease& lease, Message& message, Bytes bytes) {
  const bool whole = bytes.size() == message.length;
  switch (message.kind) {
    case MessageKind::kHeartbeat: {
      if (!whole) return Handled::kWantedWhole;
      SeriesOf(lease.pool).Add(Counter::kUpstreamHeartbeats);
      // A server that provokes answers and does not read them.
      if (lease.Orphaned() + lease.after_sending.size() > lease.max_bytes) {
        RejectUpstream(lease, "too many heartbeats", LocalReply::kUpstreamLost, kMalformedText);
        return Handled::kDone;
      }
      lease.codec->HeartbeatReply(message, bytes, OutFor(lease));
      UpdateBooks(lease);
      MarkDirty(lease);
      return Handled::kDone;
    }
    case MessageKind::kHeartbeatReply:
      return Handled::kDone;
    case MessageKind::kGoAway:
      // It is the server that says so, not the connection.
      lease.pool.host.PassOver(context_.now_us(), kAwayAfterGoAwayUs);
      lease.poolable = false;
      DrainLease(lease);
      return Handled::kDone;
    case MessageKind::kRequest:
    case MessageKind::kOneWay:
      return HandleServerRequest(lease, message, bytes);
    case MessageKind::kStreamOpen:
    case MessageKind::kStreamData:
    case MessageKind::kStreamEnd:
    case MessageKind::kStreamReset:
    case MessageKind::kStreamWindow:
      return HandleStreamMessage(lease, message, bytes);
    case MessageKind::kResponse:
    case MessageKind::kOther:
      break;
  }
  SeriesOf(lease.pool).Add(Counter::kDropped);
  return Handled::kDone;
}

// It is for the client that the connection belongs to.
Handled WorkerHub::HandleServerRequest(Lease& lease, const Message& message, Bytes bytes) {
  const bool passes = lease.codec->traits().server_requests && lease.owner != nullptr &&
                      lease.owner->sink != nullptr && lease.mode == UpstreamMode::kPerSession;
  if (passes && bytes.size() != message.length) return Handled::kWantedWhole;
  if (!passes ||
      !lease.owner->sink->OnServerRequest(*lease.owner, lease.id, *lease.codec, message, bytes)) {
    SeriesOf(lease.pool).Add(Counter::kUnsolicited);
  }
  return Handled::kDone;
}

bool WorkerHub::Answer(LeaseId id, const Codec& codec, const Message& answer, Bytes bytes,
                       uint64_t request_id) {
  Lease* const lease = Find(id);
  if (lease == nullptr || lease->state != Lease::State::kReady) return false;
  // A server that asks and does not read the answers.
  if (lease->Orphaned() + lease->after_sending.size() > lease->max_bytes) return false;
  std::string& out = OutFor(*lease);
  const Encoded encoded = codec.Encode(answer, bytes, {.id = request_id}, out);
  if (encoded.impossible) return false;
  CheckEncoded(encoded, answer, bytes);
  out.append(encoded.Unchanged(bytes)).append(encoded.Tail());
  UpdateBooks(*lease);
  MarkDirty(*lease);
  return true;
}

// The whole reply has come at once.
inline void WorkerHub::Complete(Attempt& attempt, Message& message, Bytes bytes) {
  BreakIfSending(attempt);
  const Lease& lease = *attempt.lease_;
  Detach(attempt);
  attempt.sink->OnWholeReply(attempt, lease.pool.host, *lease.codec, message, bytes);
}

// Inlined into its one caller, like StartOn.
[[gnu::always_inline]] inline Handled WorkerHub::HandleResponse(Lease& lease, Message& message,
                                                                Bytes bytes) {
  Attempt* attempt = nullptr;
  if (lease.ids) {
    attempt = lease.ids->Find(message.id);
    if (attempt == nullptr && lease.ids->CameLate(message.id) && lease.quiet()) MarkSettling(lease);
  } else {
    if (!lease.attempts.empty()) attempt = &lease.attempts.front();
    if (lease.codec->traits().id_bits != 0) {
      if (attempt != nullptr && attempt->upstream_id_ != message.id) attempt = nullptr;
      // To a message that its client said needs none.
      if (message.id >= kExclusiveOneWayId) {
        SeriesOf(lease.pool).Add(Counter::kUnsolicited);
        return Handled::kDone;
      }
    }
  }
  if (attempt != nullptr &&
      (!attempt->expects_reply_ || attempt->state_ == Attempt::State::kReplying)) {
    attempt = nullptr;
  }
  if (attempt == nullptr) {
    const bool late = lease.ids && lease.ids->Issued(message.id);
    SeriesOf(lease.pool).Add(late ? Counter::kLateReplies : Counter::kUnsolicited);
    if (!lease.ids) HandleStray(lease);
    return Handled::kDone;
  }
  UpstreamHost& host = lease.pool.host;
  if (host.away_until_us != 0 && lease.opened_us > host.away_since_us) host.away_until_us = 0;
  if (bytes.size() == message.length) {
    if (host.outlier != nullptr) {
      JudgeReply(lease, *lease.codec, message.status, message.status_code);
    }
    Complete(*attempt, message, bytes);
    return Handled::kDone;
  }
  lease.receiving = attempt;
  const Attempt::State before = std::exchange(attempt->state_, Attempt::State::kReplying);
  const ReplyStatus status = message.status;
  const Handled handled = attempt->sink->OnReply(*attempt, *lease.codec, message, bytes);
  if (host.outlier != nullptr && handled != Handled::kWantedWhole) {
    JudgeReply(lease, *lease.codec, status, message.status_code);
  }
  if (lease.receiving != attempt) return Handled::kDone;  // given up meanwhile
  if (handled == Handled::kWantedWhole) {
    lease.receiving = nullptr;
    attempt->state_ = before;
  }
  return handled;
}

// A reply that is not the one which is waited for, on a lease that serves one request at a time. It
// may answer something that a client has put behind its request, and that client may be another one
// than the one that waits now, who should not suffer for it. The right reply is known by its id,
// which nobody could guess; but nobody comes after it on this lease.
void WorkerHub::HandleStray(Lease& lease) {
  const bool known_by_id = lease.codec->traits().id_bits != 0 && !lease.attempts.empty() &&
                           lease.attempts.front().expects_reply_;
  if (!known_by_id || ++lease.strays > kMaxStrays) {
    Break(lease);
    return;
  }
  lease.poolable = false;
  DrainLease(lease);
  if (lease.strays == 1) context_.Arm(lease.timer, context_.now_us() + kStrayPatienceUs);
}

}  // namespace metaprotocol
