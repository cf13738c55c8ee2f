// Replies: from an upstream connection's bytes to the exchanges that wait for them.
#include <string>

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

}  // namespace

void WorkerHub::LeaseData(LeaseId id, std::span<const Bytes> slices) {
  Lease* found = Find(id);
  if (found == nullptr) return;
  Lease& lease = *found;
  lease.unconfirmed = false;
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
    if (lease.in.size() >= lease.need) lease.in.Consume(ParseUpstream(lease, lease.in.view()));
  }
}

// Passes on what belongs to a message whose head has been dealt with already.
void WorkerHub::StreamFromUpstream(Lease& lease, Bytes& bytes) {
  if (lease.stream_remaining == 0 || bytes.empty()) return;
  const Bytes part = bytes.substr(0, lease.stream_remaining);
  lease.stream_remaining -= part.size();
  bytes.remove_prefix(part.size());
  const bool last = lease.stream_remaining == 0;
  Exchange* exchange = lease.receiving;
  if (last) lease.receiving = nullptr;
  if (exchange != nullptr) sink_.ReplyBody(*exchange, part, last);
  if (last && lease.exchange_count == 0) MarkSettling(lease);
}

// Handles every message in `bytes`; returns how many bytes were used up.
size_t WorkerHub::ParseUpstream(Lease& lease, Bytes bytes) {
  size_t used = 0;
  while (used < bytes.size() && lease.state != Lease::State::kGone) {
    const Bytes rest = bytes.substr(used);
    const Snapshot& snapshot = *lease.pool.protocol.current->snapshot;
    DecodeOptions options;
    options.max_message_bytes = snapshot.limits.max_message_bytes;
    options.allow_partial = !lease.codec->traits().whole_to_encode;
    message_.Clear();
    const DecodeResult result = lease.codec->Decode(lease.decode_state.get(), Direction::kResponse,
                                                    rest, options, message_);
    switch (result.status) {
      case DecodeResult::Status::kNeedMore:
        lease.need = result.need;
        return used;
      case DecodeResult::Status::kMessage: {
        const Bytes part = rest.substr(0, message_.length);
        const bool whole = part.size() == message_.length;
        if (!whole && message_.length <= snapshot.limits.stream_message_bytes) {
          lease.need = message_.length;
          return used;
        }
        lease.need = 0;
        const size_t length = message_.length;
        if (!HandleUpstreamMessage(lease, message_, part)) {
          lease.need = length;
          return used;
        }
        used += part.size();
        if (!whole) lease.stream_remaining = length - part.size();
        break;
      }
      case DecodeResult::Status::kUndecodable:
      case DecodeResult::Status::kTooLarge:
      case DecodeResult::Status::kError:
        RejectUpstream(lease, result.error);
        return used;
    }
  }
  return used;
}

// What came on the lease cannot be understood, or cannot be put up with.
void WorkerHub::RejectUpstream(Lease& lease, std::string_view why) {
  SeriesOf(lease.pool).Add(Counter::kUpstreamMalformed);
  UpstreamHost& host = lease.pool.host;
  const uint64_t now = context_.now_us();
  if ((host.warned_us == 0 || now >= host.warned_us + kWarnEveryUs) &&
      context_.host.LogEnabled(LogLevel::kWarn)) {
    host.warned_us = now;
    context_.host.Log(LogLevel::kWarn, "upstream " + host.address + " of cluster " +
                                           host.cluster.name() + ": " + std::string(why));
  }
  SeriesOf(lease.pool).Add(Counter::kLeasesReset);
  context_.host.ResetLease(lease.id);
  Discard(lease, LocalReply::kUpstreamLost, "the upstream host sent a malformed reply");
}

// False: the message is wanted whole.
bool WorkerHub::HandleUpstreamMessage(Lease& lease, Message& message, Bytes bytes) {
  const bool whole = bytes.size() == message.length;
  switch (message.kind) {
    case MessageKind::kResponse:
      return HandleResponse(lease, message, bytes);
    case MessageKind::kHeartbeat: {
      if (!whole) return false;
      SeriesOf(lease.pool).Add(Counter::kUpstreamHeartbeats);
      if (lease.after_sending.size() > lease.pool.host.cluster.policy().max_lease_bytes_in_flight) {
        RejectUpstream(lease, "too many heartbeats");
        return true;
      }
      std::string& out = lease.sending != nullptr ? lease.after_sending : lease.out;
      lease.codec->HeartbeatReply(message, bytes, out);
      MarkDirty(lease);
      return true;
    }
    case MessageKind::kHeartbeatReply:
      return true;
    case MessageKind::kGoAway:
      lease.poolable = false;
      DrainLease(lease);
      return true;
    case MessageKind::kRequest:
    case MessageKind::kOneWay:
      SeriesOf(lease.pool).Add(Counter::kUnsolicited);
      return true;
    case MessageKind::kOther:
    case MessageKind::kStreamOpen:
    case MessageKind::kStreamData:
    case MessageKind::kStreamEnd:
    case MessageKind::kStreamReset:
    case MessageKind::kStreamWindow:
      break;
  }
  SeriesOf(lease.pool).Add(Counter::kDropped);
  return true;
}

bool WorkerHub::HandleResponse(Lease& lease, Message& message, Bytes bytes) {
  Exchange* exchange = nullptr;
  bool late = false;
  if (lease.ids) {
    exchange = lease.ids->Find(message.id);
    late = lease.ids->Issued(message.id);
  } else {
    if (!lease.exchanges.empty()) exchange = &lease.exchanges.front();
    if (lease.codec->traits().id_bits != 0) {
      if (exchange != nullptr && exchange->upstream_id != message.id) exchange = nullptr;
      // To a message that its client said needs none.
      if (message.id >= kExclusiveOneWayId) {
        SeriesOf(lease.pool).Add(Counter::kUnsolicited);
        return true;
      }
    }
  }
  if (exchange != nullptr &&
      (!exchange->expects_reply || exchange->state == Exchange::State::kReplying)) {
    exchange = nullptr;
  }
  if (exchange == nullptr) {
    SeriesOf(lease.pool).Add(late ? Counter::kLateReplies : Counter::kUnsolicited);
    if (late && lease.unanswered != 0 && --lease.unanswered == 0 && lease.exchange_count == 0) {
      MarkSettling(lease);
    }
    if (!lease.ids) HandleStray(lease);
    return true;
  }
  const bool whole = bytes.size() == message.length;
  if (!whole) lease.receiving = exchange;
  lease.codec->CarryOver(exchange->client, message);
  if (sink_.Reply(*exchange, *lease.codec, message, bytes)) return true;
  lease.receiving = nullptr;
  return false;
}

// A reply that is not the one which is waited for, on a lease that serves one request at a time. It
// may answer something that a client has put behind its request, and that client may be another one
// than the one that waits now, who should not suffer for it. The right reply is known by its id,
// which nobody could guess; but nobody comes after it on this lease.
void WorkerHub::HandleStray(Lease& lease) {
  const bool known_by_id = lease.codec->traits().id_bits != 0 && !lease.exchanges.empty() &&
                           lease.exchanges.front().expects_reply;
  if (!known_by_id || ++lease.strays > kMaxStrays) {
    Break(lease);
    return;
  }
  lease.poolable = false;
  DrainLease(lease);
  if (lease.strays == 1) context_.Arm(lease.timer, context_.now_us() + kStrayPatienceUs);
}

}  // namespace metaprotocol
