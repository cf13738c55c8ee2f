// Requests: which host and which lease each one takes, and those that have to wait for one.
#include <algorithm>
#include <utility>

#include "src/base/out_buffer.h"
#include "src/upstream/worker_hub.h"

namespace metaprotocol {
namespace {

// The exclusive lease to be used next is there, and has room: one that is still being opened may
// have messages without reply waiting.
bool HasIdle(const HostPool& pool) {
  return !pool.idle.empty() &&
         pool.idle.back()->bytes_held() <= pool.host.cluster.policy().max_lease_bytes_in_flight;
}

bool UsesUpIds(const Lease& lease) { return lease.ids && lease.ids->NearlyExhausted(); }

// A message that is passed on in pieces may share a lease if all of it is there and it has no more
// than so many times the bytes from which on messages are: what Envoy reads at once, by default.
constexpr size_t kPassingBy = 4;

}  // namespace

// --- requests

std::optional<LocalReply> WorkerHub::Dispatch(Exchange& exchange, const Request& request) {
  Cluster& cluster = request.cluster;
  const ClusterPolicy& policy = cluster.policy();
  const size_t length = request.message.length;
  if (cluster.exchanges() >= policy.max_requests_in_flight ||
      cluster.bytes_in_flight() + length > policy.max_bytes_in_flight) {
    return LocalReply::kOverLimit;
  }
  const Snapshot& snapshot = *exchange.snapshot->snapshot;
  const UpstreamMode mode = snapshot.upstream_mode;
  UpstreamHost* host = nullptr;
  Lease* lease = nullptr;
  if (mode == UpstreamMode::kPerSession) {
    lease = PickSessionLease(exchange, request, host);
    const size_t held = lease != nullptr ? lease->bytes_held() : 0;
    if (held != 0 && held + length > policy.max_lease_bytes_in_flight) {
      return LocalReply::kOverLimit;
    }
  }
  if (lease == nullptr) {
    host = cluster.Pick(context_.Random(), request.hash);
    if (host == nullptr) return LocalReply::kNoHealthyUpstream;
  }
  HostPool& pool = host->PoolFor(request.protocol, exchange.snapshot->upstream_kind);
  if (lease == nullptr) lease = PickLease(exchange, request, pool);
  const bool streamed = request.bytes.size() < length;
  // Only whole requests to exclusive leases can wait for one.
  if (lease == nullptr && (mode != UpstreamMode::kExclusive || streamed ||
                           pool.waiting_count >= policy.max_pending_requests)) {
    return LocalReply::kOverLimit;
  }

  exchange.cluster = &cluster;
  exchange.pool = &pool;
  exchange.bytes = length;
  cluster.Acquire(*host, length);

  const Codec& codec = *snapshot.codec;
  const Mutation& mutation = exchange.route->request_mutation;
  if (lease == nullptr) {
    exchange.upstream_id = NextExclusiveId(exchange);
    exchange.hash = request.hash;
    const Encoded encoded =
        codec.Encode(request.message, request.bytes,
                     {.id = exchange.upstream_id, .mutation = mutation}, exchange.pending);
    exchange.pending.append(encoded.Unchanged(request.bytes)).append(encoded.Tail());
    exchange.state = Exchange::State::kPending;
    pool.waiting.PushBack(exchange);
    ++pool.waiting_count;
    return std::nullopt;
  }

  Assign(exchange, *lease);
  if (exchange.upstream_id == 0 && codec.traits().id_bits != 0) {
    Detach(exchange);
    DrainLease(*lease);
    return LocalReply::kOverLimit;
  }
  const Encoded encoded =
      codec.Encode(request.message, request.bytes,
                   {.id = exchange.upstream_id, .mutation = mutation}, lease->out);
  Append(*lease, encoded.Unchanged(request.bytes));
  lease->out.append(encoded.Tail());
  MarkDirty(*lease);
  if (streamed) {
    exchange.state = Exchange::State::kSending;
    lease->sending = &exchange;
  } else if (exchange.expects_reply) {
    exchange.state = Exchange::State::kWaiting;
  } else {
    lease->unconfirmed = true;
    Detach(exchange);
  }
  return std::nullopt;
}

void WorkerHub::SendBody(Exchange& exchange, Bytes bytes, bool last) {
  Lease& lease = *exchange.lease;
  Append(lease, bytes);
  MarkDirty(lease);
  if (!last) return;
  FinishSending(lease);
  if (exchange.state == Exchange::State::kSending) exchange.state = Exchange::State::kWaiting;
  if (!exchange.expects_reply) {
    lease.unconfirmed = true;
    Detach(exchange);
  }
}

void WorkerHub::Finish(Exchange& exchange) {
  if (exchange.lease == nullptr) return;
  Lease& lease = *exchange.lease;
  // The server answered without having read the whole request; the rest is still to come, and the
  // connection can't be used before it has.
  if (lease.sending == &exchange) Break(lease);
  Detach(exchange);
}

void WorkerHub::Abandon(Exchange& exchange) {
  if (exchange.lease == nullptr) {
    if (exchange.state == Exchange::State::kPending) Detach(exchange);
    return;
  }
  Lease& lease = *exchange.lease;
  // With ids a late reply is recognized and dropped. Without, or with half a request written, the
  // connection is of no more use.
  if (lease.sending == &exchange || !lease.ids) {
    Break(lease);
  } else if (exchange.state == Exchange::State::kWaiting) {
    ++lease.unanswered;
  }
  Detach(exchange);
}

void WorkerHub::ReleaseOwner(LeaseOwner& owner) {
  for (Lease* lease : owner.leases) {
    lease->owner = nullptr;
    if (lease->codec->traits().stateful) lease->poolable = false;
    DrainLease(*lease);
  }
  owner.leases.clear();
}

void WorkerHub::DrainProtocol(ProtocolState& protocol) {
  for (auto& [name, cluster] : clusters_) {
    cluster->ForEachHost([&](UpstreamHost& host) {
      for (const auto& pool : host.pools) {
        if (&pool->protocol != &protocol) continue;
        for (Lease* lease : pool->leases) DrainLease(*lease);
      }
    });
  }
  hosts_changed_ = true;
}

// --- choosing a lease

Lease* WorkerHub::PickLease(Exchange& exchange, const Request& request, HostPool& pool) {
  const SnapshotUse& snapshot = *exchange.snapshot;
  const ClusterPolicy& policy = request.cluster.policy();
  const bool room = pool.leases.size() < policy.max_leases_per_host;
  switch (snapshot.snapshot->upstream_mode) {
    case UpstreamMode::kShared:
      return PickSharedLease(exchange, request, pool);
    case UpstreamMode::kExclusive:
      if (HasIdle(pool)) return TakeIdle(pool);
      return room ? &OpenLease(pool, snapshot, nullptr) : nullptr;
    case UpstreamMode::kPerSession:
      return room ? &OpenLease(pool, snapshot, &request.owner) : nullptr;
  }
  return nullptr;
}

// The one used last: those used least stay idle long enough to be given back.
Lease* WorkerHub::TakeIdle(HostPool& pool) {
  Lease* lease = pool.idle.back();
  pool.idle.pop_back();
  lease->idle = false;
  return lease;
}

void WorkerHub::LeaveIdle(Lease& lease) {
  if (!lease.idle) return;
  lease.idle = false;
  std::erase(lease.pool.idle, &lease);
}

Lease* WorkerHub::PickSharedLease(const Exchange& exchange, const Request& request,
                                  HostPool& pool) {
  const ClusterPolicy& policy = request.cluster.policy();
  const size_t length = request.message.length;
  const size_t stream_bytes = exchange.snapshot->snapshot->limits.stream_message_bytes;
  const bool passing_by = request.arrived && length / kPassingBy <= stream_bytes;
  const bool streamed = request.bytes.size() < length && !passing_by;
  const auto open = [&]() -> Lease* {
    if (pool.leases.size() >= policy.max_leases_per_host) return nullptr;
    return &OpenLease(pool, *exchange.snapshot, nullptr);
  };
  if (streamed) {
    // A client that sends its body slowly, or dies in the middle, must hurt nobody, and nobody
    // should have to wait for a very large one: it gets a connection with nothing else on it.
    for (auto it = pool.leases.rbegin(); it != pool.leases.rend(); ++it) {
      if ((*it)->usable() && (*it)->exchange_count == 0 && (*it)->sending == nullptr) return *it;
    }
    return open();
  }
  // Requests stay together while they are few: what shares a lease is written and read together,
  // and leases that were opened for more than there is now become idle and go.
  const uint32_t few = policy.exchanges_per_shared_lease / 4;
  Lease* best = nullptr;
  uint32_t considered = 0;
  for (Lease* lease : pool.leases) {
    if (!lease->usable() || lease->sending != nullptr) continue;
    const size_t held = lease->bytes_held();
    if (held != 0 && held + length > policy.max_lease_bytes_in_flight) continue;
    if (best == nullptr || lease->exchange_count < best->exchange_count) best = lease;
    if (best->exchange_count < few) return best;
    if (++considered >= policy.max_shared_leases_per_host) break;
  }
  const bool full = best != nullptr && best->exchange_count >= policy.exchanges_per_shared_lease &&
                    considered < policy.max_shared_leases_per_host;
  if (best == nullptr || full) {
    Lease* opened = open();
    return opened != nullptr ? opened : best;
  }
  return best;
}

Lease* WorkerHub::PickSessionLease(const Exchange& exchange, const Request& request,
                                   UpstreamHost*& host) {
  for (Lease* lease : request.owner.leases) {
    HostPool& pool = lease->pool;
    if (!lease->usable() || &pool.host.cluster != &request.cluster ||
        &pool.protocol != &request.protocol ||
        pool.upstream_kind != exchange.snapshot->upstream_kind) {
      continue;
    }
    host = &pool.host;
    return lease;
  }
  return nullptr;
}

Lease& WorkerHub::OpenLease(HostPool& pool, const SnapshotUse& use, LeaseOwner* owner) {
  if (free_slots_.empty()) {
    free_slots_.push_back(static_cast<uint32_t>(slots_.size()));
    slots_.emplace_back();
  }
  const uint32_t index = free_slots_.back();
  free_slots_.pop_back();
  Slot& slot = slots_[index];
  const LeaseId id = uint64_t{++slot.uses} << 32 | index;
  const Snapshot& snapshot = *use.snapshot;
  slot.lease =
      std::make_unique<Lease>(id, pool, snapshot.codec, snapshot.upstream_mode, context_.Random());
  Lease& lease = *slot.lease;
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

void WorkerHub::Assign(Exchange& exchange, Lease& lease) {
  exchange.lease = &lease;
  lease.exchanges.PushBack(exchange);
  ++lease.exchange_count;
  lease.bytes_in_flight += exchange.bytes;
  if (lease.ids) {
    exchange.upstream_id = lease.ids->Insert(&exchange);
    if (UsesUpIds(lease)) lease.draining = true;
  } else if (exchange.upstream_id == 0) {
    exchange.upstream_id = NextExclusiveId(exchange);
  }
}

// Random, so that nobody can have a reply to the next request ready: a client may hide a second
// request behind its own where the codec does not look, and the server's answer to that one comes
// when the connection serves somebody else. Servers also answer what a client only calls a message
// without reply; those ids are a kind of their own.
uint64_t WorkerHub::NextExclusiveId(const Exchange& exchange) {
  const uint64_t id = context_.Random() % kExclusiveOneWayId;
  return exchange.expects_reply ? 1 + id % (kExclusiveOneWayId - 1) : kExclusiveOneWayId + id;
}

// Takes the exchange off its lease (or off the list of those that wait for one), and out of the
// cluster's books.
void WorkerHub::Detach(Exchange& exchange) {
  IntrusiveList<Exchange, LeaseExchangeLink>::Remove(exchange);
  if (Lease* lease = exchange.lease) {
    --lease->exchange_count;
    lease->bytes_in_flight -= exchange.bytes;
    if (lease->ids) lease->ids->Erase(exchange.upstream_id);
    if (lease->sending == &exchange) lease->sending = nullptr;
    if (lease->receiving == &exchange) lease->receiving = nullptr;  // the rest goes nowhere
    exchange.lease = nullptr;
    if (lease->exchange_count == 0) {
      lease->idle_since_us = context_.now_us();
      MarkSettling(*lease);
    }
  } else if (exchange.state == Exchange::State::kPending) {
    --exchange.pool->waiting_count;
  }
  if (exchange.pool != nullptr) exchange.cluster->Release(exchange.pool->host, exchange.bytes);
  exchange.pool = nullptr;
  exchange.cluster = nullptr;
  exchange.upstream_id = 0;
  exchange.pending.clear();
}

// The host takes no new requests: those that have not been sent yet go to others.
void WorkerHub::ReassignWaiting(HostPool& pool) {
  pool.reassign_waiting = false;
  Cluster& cluster = pool.host.cluster;
  for (uint32_t left = pool.waiting_count; left != 0; --left) {
    Exchange& exchange = pool.waiting.front();
    UpstreamHost* host =
        cluster.retired() ? nullptr : cluster.Pick(context_.Random(), exchange.hash);
    if (host == nullptr) {
      Detach(exchange);
      if (cluster.retired()) {
        sink_.Failed(exchange, LocalReply::kClusterNotFound, "the cluster was removed");
      } else {
        sink_.Failed(exchange, LocalReply::kNoHealthyUpstream, "no healthy upstream host");
      }
      continue;
    }
    HostPool& other = host->PoolFor(pool.protocol, pool.upstream_kind);
    IntrusiveList<Exchange, LeaseExchangeLink>::Remove(exchange);
    --pool.waiting_count;
    cluster.Release(pool.host, exchange.bytes);
    cluster.Acquire(*host, exchange.bytes);
    exchange.pool = &other;
    other.waiting.PushBack(exchange);
    ++other.waiting_count;
    unlocked_.push_back(&other);
  }
}

void WorkerHub::DispatchWaiting(HostPool& pool) {
  if (pool.reassign_waiting) ReassignWaiting(pool);
  while (!pool.waiting.empty()) {
    Lease* lease = nullptr;
    Exchange& exchange = pool.waiting.front();
    if (HasIdle(pool)) {
      lease = TakeIdle(pool);
    } else if (pool.leases.size() < pool.host.cluster.policy().max_leases_per_host) {
      lease = &OpenLease(pool, *exchange.snapshot, nullptr);
    } else {
      return;
    }
    IntrusiveList<Exchange, LeaseExchangeLink>::Remove(exchange);
    --pool.waiting_count;
    exchange.state = Exchange::State::kWaiting;
    Assign(exchange, *lease);
    lease->out.append(exchange.pending);
    exchange.pending.clear();
    MarkDirty(*lease);
    if (!exchange.expects_reply) {
      lease->unconfirmed = true;
      Detach(exchange);
      sink_.Sent(exchange);
    }
  }
}

// --- writing

void WorkerHub::Append(Lease& lease, Bytes bytes) {
  if (bytes.size() >= kDirectWriteBytes && lease.state == Lease::State::kReady) {
    Flush(lease);
    context_.host.WriteLease(lease.handle, bytes);
    return;
  }
  lease.out.append(bytes);
}

void WorkerHub::FinishSending(Lease& lease) {
  lease.sending = nullptr;
  lease.out.append(lease.after_sending);
  ClearKeepingLittle(lease.after_sending);
}

}  // namespace metaprotocol
