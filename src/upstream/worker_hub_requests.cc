// Requests: which host and which lease each one takes, and those that have to wait for one.
#include <algorithm>
#include <utility>

#include "src/base/out_buffer.h"
#include "src/codec/contract.h"
#include "src/upstream/exclusive_leases.h"
#include "src/upstream/session_leases.h"
#include "src/upstream/worker_hub.h"

namespace metaprotocol {
namespace {

// A client may ask for so little time that no host could answer. What it gets then says nothing of
// the host, unless it is at least as much as this.
constexpr uint64_t kFairTimeoutUs = 1000 * 1000;

// Replies that nobody waits for any more, and that have not come: with more, a lease is replaced.
constexpr size_t kMostUnanswered = 4096;

AttemptResult Refusal(LocalReply reply) {
  AttemptResult result;
  result.cause = AttemptResult::Cause::kRefused;
  result.reply = reply;
  return result;
}

}  // namespace

// --- requests

EncodeOptions WorkerHub::EncodingOf(const Attempt& attempt, const Request& request) {
  return {.id = attempt.upstream_id_,
          .stream_id = attempt.upstream_id_,
          .mutation = request.mutation,
          .timeout_us = request.timeout_us};
}

std::optional<AttemptResult> WorkerHub::Start(Attempt& attempt, const Request& request) {
  Cluster& cluster = request.cluster;
  const ClusterPolicy& policy = cluster.policy();
  const size_t length = request.view.message.length;
  if (cluster.attempts(request.priority) >= policy.Of(request.priority).max_requests_in_flight ||
      cluster.bytes_held() + length > policy.max_bytes_in_flight) {
    return Refusal(LocalReply::kOverLimit);
  }
  Lease* lease = nullptr;
  if (request.protocol->mode == UpstreamMode::kPerSession) {
    lease = SessionLeases::Present(request.owner, cluster, request.protocol);
    const bool room = lease == nullptr ||
                      (lease->HasRoomFor(length) && !cluster.Congested(lease->pool.host, length));
    if (!room) return Refusal(LocalReply::kOverLimit);
  }
  if (lease == nullptr) {
    if (policy.outliers != nullptr) CatchUp(cluster, *request.protocol);
    if (cluster.warming()) cluster.WarmUp(context_.now_us());
    UpstreamHost* const host = cluster.Pick(request.choice, context_.Random(), context_.now_us());
    if (host == nullptr) return Refusal(LocalReply::kNoHealthyUpstream);
    if (cluster.Congested(*host, length)) return Refusal(LocalReply::kOverLimit);
    LeasePool& pool = PoolFor(*host, request.protocol, request.priority);
    lease = pool.Take({request.owner, request.view});
    if (lease == nullptr) return StartLater(pool, attempt, request);
  }
  return StartOn(*lease, attempt, request);
}

inline void WorkerHub::Enter(Attempt& attempt, LeasePool& pool, const Request& request) {
  const Message& message = request.view.message;
  attempt.expects_reply_ = message.kind == MessageKind::kRequest;
  attempt.cluster_ = &request.cluster;
  attempt.pool_ = &pool;
  attempt.bytes_ = message.length;
  attempt.owner_ = &request.owner;
  attempt.priority_ = request.priority;
  attempt.impatient_ = message.timeout_us != 0 && message.timeout_us < kFairTimeoutUs &&
                       (request.timeout_us == 0 || !request.choice.avoid.empty());
}

// There is no lease for it now.
[[gnu::noinline]] std::optional<AttemptResult> WorkerHub::StartLater(LeasePool& pool,
                                                                     Attempt& attempt,
                                                                     const Request& request) {
  Enter(attempt, pool, request);
  // Only whole requests can wait, and no streams, of which more may come at any time.
  const Message& message = request.view.message;
  const bool may_wait = request.view.whole() && message.kind != MessageKind::kStreamOpen;
  if (!may_wait || !pool.Wait(attempt, &request.owner)) {
    attempt.pool_ = nullptr;
    return Refusal(LocalReply::kOverLimit);
  }
  request.cluster.Acquire(pool.host, attempt.bytes_, attempt.priority_);
  attempt.state_ = Attempt::State::kPending;
  attempt.upstream_id_ = NextExclusiveId(attempt);
  attempt.hash_ = request.choice.hash;
  const Bytes bytes = request.view.bytes;
  const Encoded encoded = request.protocol->codec->Encode(
      message, bytes, EncodingOf(attempt, request), attempt.pending_);
  if (encoded.impossible) {
    Detach(attempt);
    return Refusal(LocalReply::kMalformed);
  }
  attempt.pending_.append(encoded.Unchanged(bytes)).append(encoded.Tail());
  return std::nullopt;
}

inline void WorkerHub::Assign(Attempt& attempt, Lease& lease) {
  attempt.lease_ = &lease;
  lease.attempts.PushBack(attempt);
  ++lease.attempt_count;
  lease.bytes_in_flight += attempt.bytes_;
  if (--lease.requests_left == 0) lease.draining = true;
  attempt.first_byte_ = attempt.end_byte_ = lease.position();
  if (lease.ids) {
    attempt.upstream_id_ = lease.ids->Insert(&attempt);
    if (lease.ids->NearlyExhausted()) lease.draining = true;
  } else if (attempt.upstream_id_ == 0) {
    attempt.upstream_id_ = NextExclusiveId(attempt);
  }
}

// Inlined into its one caller, since that goes through it for nearly all requests.
[[gnu::always_inline]] inline std::optional<AttemptResult> WorkerHub::StartOn(
    Lease& lease, Attempt& attempt, const Request& request) {
  Enter(attempt, lease.pool, request);
  request.cluster.Acquire(lease.pool.host, attempt.bytes_, attempt.priority_);
  Assign(attempt, lease);
  if (attempt.upstream_id_ == 0 && lease.codec->traits().id_bits != 0) {
    Detach(attempt);
    DrainLease(lease);
    return Refusal(LocalReply::kOverLimit);
  }
  const Message& message = request.view.message;
  const Bytes bytes = request.view.bytes;
  const Encoded encoded =
      lease.codec->Encode(message, bytes, EncodingOf(attempt, request), lease.out);
  if (encoded.impossible) {
    Detach(attempt);
    return Refusal(LocalReply::kMalformed);
  }
  CheckEncoded(encoded, message, bytes);
  Append(lease, encoded.Unchanged(bytes));
  if (encoded.tail_bytes != 0) lease.out.append(encoded.Tail());
  attempt.end_byte_ = lease.position();
  UpdateBooks(lease);
  MarkDirty(lease);
  const bool whole = bytes.size() == message.length;
  if (whole && !attempt.expects_reply_) {
    lease.unconfirmed = true;
    if (message.kind == MessageKind::kStreamOpen) {
      attempt.state_ = Attempt::State::kStreaming;
      lease.pool.Joined(attempt, request.owner);
      return std::nullopt;
    }
    const AttemptResult sent = ResultOf(attempt, AttemptResult::Cause::kSent);
    Detach(attempt);
    return sent;
  }
  attempt.state_ = whole ? Attempt::State::kWaiting : Attempt::State::kSending;
  if (!whole) lease.sending = &attempt;
  lease.pool.Joined(attempt, request.owner);
  return std::nullopt;
}

void WorkerHub::SendBody(Attempt& attempt, Bytes bytes, bool last) {
  Lease& lease = *attempt.lease_;
  Append(lease, bytes);
  attempt.end_byte_ = lease.position();
  UpdateBooks(lease);
  MarkDirty(lease);
  if (!last) return;
  FinishSending(lease);
  if (attempt.state_ == Attempt::State::kSending) attempt.state_ = Attempt::State::kWaiting;
  if (!attempt.expects_reply_) {
    lease.unconfirmed = true;
    End(attempt, AttemptResult::Cause::kSent, LocalReply::kUpstreamLost, {});
  }
}

// The sink has had the whole reply.
void WorkerHub::Complete(Attempt& attempt) {
  BreakIfSending(attempt);
  End(attempt, AttemptResult::Cause::kReplied, LocalReply::kUpstreamLost, {});
}

AttemptResult WorkerHub::Abandon(Attempt& attempt, AttemptResult::Cause why) {
  const AttemptResult result = ResultOf(attempt, why);
  if (attempt.lease_ == nullptr) {
    Detach(attempt);
    return result;
  }
  Lease& lease = *attempt.lease_;
  if (why == AttemptResult::Cause::kTimedOut && attempt.state_ == Attempt::State::kWaiting &&
      !attempt.impatient_ && !lease.host_paused) {
    Judge(lease.pool, OutlierDetector::Sign::kLocalOrigin);
  }
  // With ids a late reply is recognized and dropped. Without, or with half a request written, the
  // connection is of no more use.
  if (lease.sending == &attempt || !lease.ids) {
    Break(lease);
  } else if (attempt.state_ == Attempt::State::kWaiting && attempt.expects_reply_) {
    lease.ids->GiveUp(attempt.upstream_id_);
    // Somebody who never answers would have them all remembered.
    if (lease.unanswered() > kMostUnanswered) {
      lease.poolable = false;
      DrainLease(lease);
    }
  }
  Detach(attempt);
  return result;
}

void WorkerHub::End(Attempt& attempt, AttemptResult::Cause cause, LocalReply reply,
                    std::string_view text) {
  AttemptResult result = ResultOf(attempt, cause);
  result.reply = reply;
  result.text = text;
  Detach(attempt);
  attempt.sink->OnAttemptEnd(attempt, result);
}

AttemptResult WorkerHub::ResultOf(const Attempt& attempt, AttemptResult::Cause cause) {
  AttemptResult result;
  result.cause = cause;
  result.host = &attempt.pool_->host;
  if (const Lease* lease = attempt.lease_) {
    const uint64_t written = std::clamp(lease->written, attempt.first_byte_, attempt.end_byte_);
    result.bytes_written = written - attempt.first_byte_;
  }
  return result;
}

AttemptResult::Cause WorkerHub::CauseOfLoss(const Attempt& attempt) {
  if (attempt.lease_ == nullptr || !attempt.lease_->connected) {
    return AttemptResult::Cause::kNeverConnected;
  }
  if (attempt.state_ == Attempt::State::kReplying) return AttemptResult::Cause::kLostAfterHead;
  return attempt.lease_->written <= attempt.first_byte_ ? AttemptResult::Cause::kNeverWritten
                                                        : AttemptResult::Cause::kLostBeforeHead;
}

void WorkerHub::ReleaseOwner(LeaseOwner& owner) {
  for (Lease* lease : owner.leases) {
    lease->owner = nullptr;
    if (lease->codec->traits().stateful) lease->poolable = false;
    DrainLease(*lease);
  }
  owner.leases.clear();
  owner.shares.ForEach([](LeaseShare& share) { share.owner = nullptr; });
  owner.shares.Clear();
}

void WorkerHub::DrainProtocol(const UpstreamProtocol& protocol) {
  for (Slot& slot : slots_) {
    if (slot.lease == nullptr || slot.lease->pool.protocol.get() != &protocol) continue;
    DrainLease(*slot.lease);
    Note(slot.lease->pool.host);
  }
}

// --- leases

LeasePool& WorkerHub::NewPool(UpstreamHost& host,
                              const std::shared_ptr<const UpstreamProtocol>& protocol,
                              Priority priority) {
  Note(host);  // for the pools of former protocols
  return *host.pools.emplace_back(LeasePool::Create(host, protocol, priority, *this));
}

Lease& WorkerHub::OpenLease(LeasePool& pool, LeaseOwner* owner) {
  if (free_slots_.empty()) {
    free_slots_.push_back(static_cast<uint32_t>(slots_.size()));
    slots_.emplace_back();
  }
  const uint32_t index = free_slots_.back();
  free_slots_.pop_back();
  Slot& slot = slots_[index];
  const LeaseId id = uint64_t{++slot.uses} << 32 | index;
  slot.lease = std::make_unique<Lease>(id, pool, *pool.protocol,
                                       pool.host.cluster.policy().max_lease_bytes_in_flight,
                                       context_.Random());
  Lease& lease = *slot.lease;
  const uint32_t most = pool.host.cluster.policy().max_requests_per_connection;
  if (most != 0 && lease.mode != UpstreamMode::kPerSession) {
    // From the pool it would come back as one that has had none.
    lease.requests_left = most;
    lease.poolable = false;
  }
  ++lease_count_;
  pool.leases.push_back(&lease);
  if (owner != nullptr) {
    lease.owner = owner;
    owner->leases.push_back(&lease);
  }
  // The host is asked when the present event is over (Settle): it may answer at once, and the
  // request should be complete by then.
  MarkDirty(lease);
  return lease;
}

void WorkerHub::AnnounceOpening(Lease& lease) {
  lease.announced = true;
  UpstreamHost& host = lease.pool.host;
  Series& series = SeriesOf(lease.pool);
  series.Add(Counter::kLeasesOpened);
  series.Add(Gauge::kLeasesActive, 1);
  const uint64_t timeout = host.cluster.policy().connect_timeout_us;
  if (timeout != 0) context_.Arm(lease.timer, context_.now_us() + timeout);
  context_.host.OpenLease(lease.id, host.cluster.name(), host.address);
}

// Random, so that nobody can have a reply to the next request ready: a client may hide a second
// request behind its own where the codec does not look, and the server's answer to that one comes
// when the connection serves somebody else. Servers also answer what a client only calls a message
// without reply; those ids are a kind of their own.
uint64_t WorkerHub::NextExclusiveId(const Attempt& attempt) {
  const uint64_t id = context_.Random() % kExclusiveOneWayId;
  return attempt.expects_reply_ ? 1 + id % (kExclusiveOneWayId - 1) : kExclusiveOneWayId + id;
}

// Takes the attempt off its lease (or off the list of those that wait for one), and out of the
// cluster's books.
void WorkerHub::Detach(Attempt& attempt) {
  IntrusiveList<Attempt, LeaseAttemptLink>::Remove(attempt);
  if (Lease* lease = attempt.lease_) {
    --lease->attempt_count;
    lease->bytes_in_flight -= attempt.bytes_;
    if (lease->ids) lease->ids->Erase(attempt.upstream_id_);  // if it has not been given up
    if (lease->sending == &attempt) lease->sending = nullptr;
    if (lease->receiving == &attempt) lease->receiving = nullptr;  // the rest goes nowhere
    if (lease->paused_for == &attempt) lease->paused_for = nullptr;
    attempt.lease_ = nullptr;
    if (attempt.share_ != nullptr) attempt.pool_->Left(attempt);
    UpdateBooks(*lease);
    if (lease->attempt_count == 0) lease->idle_since_us = context_.now_us();
    if (lease->attempt_count == 0 || lease->paused_for != nullptr || lease->host_paused) {
      MarkSettling(*lease);
    }
  } else if (attempt.state_ == Attempt::State::kPending) {
    attempt.pool_->StopWaiting(attempt);
  }
  if (attempt.pool_ != nullptr) {
    attempt.cluster_->Release(attempt.pool_->host, attempt.bytes_, attempt.priority_);
    if (attempt.pool_->host.active == 0) Note(attempt.pool_->host);
  }
  attempt.state_ = Attempt::State::kIdle;
  attempt.wants_room_ = false;
  attempt.pool_ = nullptr;
  attempt.cluster_ = nullptr;
  attempt.upstream_id_ = 0;
  if (!attempt.pending_.empty()) ClearKeepingLittle(attempt.pending_);
}

// --- requests that wait

void WorkerHub::Unlock(LeasePool& pool) {
  if (pool.unlocked || pool.waiting_count() == 0) return;
  pool.unlocked = true;
  unlocked_.push_back(&pool);
}

// The host takes no new requests: those that have not been sent yet go to others.
void WorkerHub::ReassignWaiting(LeasePool& pool) {
  pool.reassign_waiting = false;
  Cluster& cluster = pool.host.cluster;
  for (size_t left = pool.waiting_count(); left != 0; --left) {
    const auto [waiting, owner] = pool.TakeWaiting();
    Attempt& attempt = *waiting;
    UpstreamHost* host = cluster.Pick({attempt.hash_, attempt.bytes_, pool.host.address},
                                      context_.Random(), context_.now_us());
    if (host == nullptr) {
      attempt.state_ = Attempt::State::kIdle;  // waits no more
      LocalReply reply = LocalReply::kNoHealthyUpstream;
      std::string_view text = "no healthy upstream host";
      if (cluster.retired()) {
        reply = LocalReply::kClusterNotFound;
        text = "the cluster was removed";
      }
      End(attempt, AttemptResult::Cause::kNeverConnected, reply, text);
      continue;
    }
    LeasePool& other = PoolFor(*host, pool.protocol, pool.priority);
    other.WaitOn(attempt, owner);
    cluster.Release(pool.host, attempt.bytes_, attempt.priority_);
    cluster.Acquire(*host, attempt.bytes_, attempt.priority_);
    attempt.pool_ = &other;
    Unlock(other);
  }
  Note(pool.host);
}

void WorkerHub::DispatchWaiting(LeasePool& pool) {
  if (pool.reassign_waiting) ReassignWaiting(pool);
  while (true) {
    const auto [waiting, lease] = pool.NextToGo();
    if (waiting == nullptr) return;
    Attempt& attempt = *waiting;
    attempt.state_ = Attempt::State::kWaiting;
    Assign(attempt, *lease);
    lease->out.append(attempt.pending_);
    ClearKeepingLittle(attempt.pending_);
    attempt.end_byte_ = lease->position();
    UpdateBooks(*lease);
    MarkDirty(*lease);
    if (!attempt.expects_reply_) {
      lease->unconfirmed = true;
      End(attempt, AttemptResult::Cause::kSent, LocalReply::kUpstreamLost, {});
    }
  }
}

// --- pausing

void WorkerHub::PauseReply(Attempt& attempt, bool paused) {
  Lease* lease = attempt.lease_;
  if (lease == nullptr) return;
  if (paused) {
    lease->paused_for = &attempt;
  } else if (lease->paused_for == &attempt) {
    lease->paused_for = nullptr;
  }
  MarkSettling(*lease);
}

// For a client, a lease is only paused if that holds up nobody else's replies, nor one of the same
// client that has to go before the one that it is paused for.
void WorkerHub::SettlePause(Lease& lease) {
  if (lease.state != Lease::State::kReady) return;
  const auto needed = [&](const Attempt& attempt) {
    return attempt.owner_ != lease.paused_for->owner_;
  };
  const bool in_turn = lease.paused_for != nullptr && (!lease.codec->traits().ordered_replies ||
                                                       &lease.attempts.front() == lease.paused_for);
  const bool much = lease.in_line && lease.in.size() >= kMostUnhandled;
  const bool paused = much || (in_turn && lease.attempts.Find(needed) == nullptr);
  if (paused == lease.host_paused) return;
  lease.host_paused = paused;
  context_.host.PauseLease(lease.handle, paused);
}

// --- writing

void WorkerHub::WriteDirectly(Lease& lease, Bytes bytes) {
  Flush(lease);
  lease.written += bytes.size();
  context_.host.WriteLease(lease.handle, bytes);
}

void WorkerHub::FinishSending(Lease& lease) {
  lease.sending = nullptr;
  lease.out.append(lease.after_sending);
  ClearKeepingMuch(lease.after_sending);
}

}  // namespace metaprotocol
