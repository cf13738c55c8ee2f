// Streams: attempts on which whole messages go both ways until both sides have ended them.
#include <utility>

#include "src/codec/contract.h"
#include "src/upstream/worker_hub.h"

namespace metaprotocol {

// As the server knows the stream.
ReplyContext WorkerHub::StreamContext(const Attempt& attempt, const ReplyContext& client) {
  ReplyContext context;
  context.id = context.stream_id = attempt.upstream_id_;
  context.tag = client.tag;
  return context;
}

Attempt* WorkerHub::StreamOf(Lease& lease, uint64_t id) {
  Attempt* attempt = nullptr;
  if (lease.ids) {
    attempt = lease.ids->Find(id);
  } else if (!lease.attempts.empty() && lease.attempts.front().upstream_id_ == id) {
    attempt = &lease.attempts.front();
  }
  const bool open = attempt != nullptr && attempt->state_ == Attempt::State::kStreaming;
  return open ? attempt : nullptr;
}

// --- towards the server

bool WorkerHub::SendOnStream(Attempt& attempt, const Message& message, Bytes bytes) {
  Lease& lease = *attempt.lease_;
  const EncodeOptions options{.id = attempt.upstream_id_, .stream_id = attempt.upstream_id_};
  std::string& out = OutFor(lease);
  const Encoded encoded = lease.codec->Encode(message, bytes, options, out);
  if (encoded.impossible) return false;
  CheckEncoded(encoded, message, bytes);
  if (&out == &lease.out) {
    Append(lease, encoded.Unchanged(bytes));
  } else {
    out.append(encoded.Unchanged(bytes));
  }
  out.append(encoded.Tail());
  attempt.end_byte_ = lease.position();
  lease.unconfirmed = true;
  UpdateBooks(lease);
  MarkDirty(lease);
  return true;
}

void WorkerHub::GrantWindow(Attempt& attempt, const ReplyContext& client, uint64_t bytes) {
  Lease& lease = *attempt.lease_;
  lease.codec->GrantWindow(StreamContext(attempt, client), Direction::kRequest, bytes,
                           OutFor(lease));
  UpdateBooks(lease);
  MarkDirty(lease);
}

AttemptResult WorkerHub::FinishStream(Attempt& attempt, bool server_done) {
  if (!server_done) return Abandon(MarkUnclean(attempt), AttemptResult::Cause::kGivenUp);
  const AttemptResult result = ResultOf(attempt, AttemptResult::Cause::kReplied);
  Detach(attempt);
  return result;
}

AttemptResult WorkerHub::ResetStream(Attempt& attempt, const ReplyContext& client,
                                     LocalReply reason, std::string_view text) {
  Lease& lease = *attempt.lease_;
  lease.codec->ResetStream(StreamContext(attempt, client), Direction::kRequest, reason, text,
                           OutFor(lease));
  MarkDirty(lease);
  return Abandon(MarkUnclean(attempt), reason == LocalReply::kTimeout
                                           ? AttemptResult::Cause::kTimedOut
                                           : AttemptResult::Cause::kGivenUp);
}

// What the server still sends on a stream that is over is known by its id and dropped, but nobody
// else should get it with the connection.
Attempt& WorkerHub::MarkUnclean(Attempt& attempt) {
  attempt.lease_->poolable = false;
  attempt.lease_->unconfirmed = true;
  return attempt;
}

// --- from the server

Handled WorkerHub::HandleStreamMessage(Lease& lease, Message& message, Bytes bytes) {
  if (bytes.size() < message.length) return Handled::kWantedWhole;
  Attempt* const attempt = StreamOf(lease, message.stream_id);
  if (attempt == nullptr || message.kind == MessageKind::kStreamOpen) {
    const bool late = lease.ids && lease.ids->Issued(message.stream_id);
    SeriesOf(lease.pool).Add(late ? Counter::kLateReplies : Counter::kUnsolicited);
    return Handled::kDone;
  }
  UpstreamHost& host = lease.pool.host;
  if (host.away_until_us != 0 && lease.opened_us > host.away_since_us) host.away_until_us = 0;
  if (host.outlier != nullptr) {
    JudgeReply(lease, *lease.codec, message.status, message.status_code);
  }
  attempt->sink->OnStreamMessage(*attempt, *lease.codec, message, bytes);
  return Handled::kDone;
}

// --- room

bool WorkerHub::HasRoomWithin(Attempt& attempt, size_t divisor) {
  Lease* const lease = attempt.lease_;
  if (lease == nullptr || lease->Backlog() < lease->max_bytes / divisor) return true;
  attempt.wants_room_ = lease->wants_room = true;
  return false;
}

void WorkerHub::TellOfRoom(Lease& lease) {
  if (lease.Backlog() >= lease.max_bytes / 2) return;  // the next probe's answer brings more
  lease.wants_room = false;
  lease.attempts.ForEach([](Attempt& attempt) {
    if (std::exchange(attempt.wants_room_, false)) attempt.sink->OnRoom(attempt);
  });
}

}  // namespace metaprotocol
