#include "src/upstream/worker_hub.h"

#include <algorithm>
#include <utility>

namespace metaprotocol {
namespace {

// Bytes from this size on are written straight from where they are instead of being gathered first.
constexpr size_t kDirectWriteBytes = 8192;
// A buffer that grew beyond this for one burst is given back.
constexpr size_t kKeepCapacity = size_t{256} << 10;

void ClearKeepingLittle(std::string& buffer) {
  if (buffer.capacity() > kKeepCapacity) {
    std::string().swap(buffer);
  } else {
    buffer.clear();
  }
}

LocalReply ReplyFor(LeaseCloseReason reason) {
  switch (reason) {
    case LeaseCloseReason::kNoHost:
      return LocalReply::kNoHealthyUpstream;
    case LeaseCloseReason::kNoCluster:
      return LocalReply::kClusterNotFound;
    case LeaseCloseReason::kOverflow:
      return LocalReply::kOverLimit;
    case LeaseCloseReason::kConnectFailed:
    case LeaseCloseReason::kRemoteClose:
    case LeaseCloseReason::kLocalClose:
      break;
  }
  return LocalReply::kUpstreamLost;
}

std::string_view TextFor(LeaseCloseReason reason) {
  switch (reason) {
    case LeaseCloseReason::kConnectFailed:
      return "could not connect to the upstream host";
    case LeaseCloseReason::kNoHost:
      return "no upstream host";
    case LeaseCloseReason::kNoCluster:
      return "no such cluster";
    case LeaseCloseReason::kOverflow:
      return "the cluster's circuit breaker is open";
    case LeaseCloseReason::kRemoteClose:
      return "the upstream host closed the connection";
    case LeaseCloseReason::kLocalClose:
      break;
  }
  return "the upstream connection was closed";
}

// The exclusive lease to be used next is there, and has room: one that is still being opened may
// have messages without reply waiting.
bool HasIdle(const HostPool& pool) {
  return !pool.idle.empty() &&
         pool.idle.back()->bytes_held() <= pool.host.cluster.policy().max_lease_bytes_in_flight;
}

bool UsesUpIds(const Lease& lease) { return lease.ids && lease.ids->NearlyExhausted(); }

}  // namespace

WorkerHub::~WorkerHub() = default;

// --- clusters

void WorkerHub::SetCluster(std::string_view name, uint64_t generation,
                           std::shared_ptr<const ClusterPolicy> policy,
                           std::vector<HostInfo> hosts) {
  auto& cluster = clusters_[std::string(name)];
  if (cluster == nullptr) {
    cluster = std::make_unique<Cluster>(std::string(name));
    ++clusters_epoch_;
  }
  cluster->Update(generation, std::move(policy), std::move(hosts),
                  [this](UpstreamHost& host) { DrainHost(host); });
  hosts_changed_ = true;
}

void WorkerHub::RemoveCluster(std::string_view name, uint64_t generation) {
  const auto it = clusters_.find(std::string(name));
  if (it == clusters_.end() || it->second->generation() != generation) return;
  std::unique_ptr<Cluster> cluster = std::move(it->second);
  clusters_.erase(it);
  ++clusters_epoch_;
  cluster->Retire();
  cluster->ForEachHost([this](UpstreamHost& host) { DrainHost(host); });
  retired_.push_back(std::move(cluster));
  hosts_changed_ = true;
}

Cluster* WorkerHub::FindCluster(std::string_view name) {
  const auto it = clusters_.find(std::string(name));
  return it == clusters_.end() ? nullptr : it->second.get();
}

void WorkerHub::ForEachCluster(const std::function<void(Cluster&)>& f) const {
  for (const auto& [name, cluster] : clusters_) f(*cluster);
}

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
    lease = PickLease(exchange, request, *host);
  }
  HostPool& pool = host->PoolFor(request.protocol, exchange.snapshot->upstream_kind);
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
    exchange.upstream_id = NextExclusiveId();
    exchange.hash = request.hash;
    const size_t done = codec.Encode(request.message, request.bytes, exchange.upstream_id, mutation,
                                     exchange.pending);
    exchange.pending.append(request.bytes.substr(done));
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
  const size_t done =
      codec.Encode(request.message, request.bytes, exchange.upstream_id, mutation, lease->out);
  Append(*lease, request.bytes.substr(done));
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

Lease* WorkerHub::PickLease(Exchange& exchange, const Request& request, UpstreamHost& host) {
  const SnapshotUse& snapshot = *exchange.snapshot;
  HostPool& pool = host.PoolFor(request.protocol, snapshot.upstream_kind);
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
  const bool streamed = request.bytes.size() < length;
  const auto open = [&]() -> Lease* {
    if (pool.leases.size() >= policy.max_leases_per_host) return nullptr;
    return &OpenLease(pool, *exchange.snapshot, nullptr);
  };
  if (streamed) {
    // A client that sends its body slowly, or dies in the middle, must hurt nobody: it gets a
    // connection with nothing else on it.
    for (auto it = pool.leases.rbegin(); it != pool.leases.rend(); ++it) {
      if ((*it)->usable() && (*it)->exchange_count == 0 && (*it)->sending == nullptr) return *it;
    }
    return open();
  }
  Lease* best = nullptr;
  uint32_t considered = 0;
  for (Lease* lease : pool.leases) {
    if (!lease->usable() || lease->sending != nullptr) continue;
    const size_t held = lease->bytes_held();
    if (held != 0 && held + length > policy.max_lease_bytes_in_flight) continue;
    if (best == nullptr || lease->exchange_count < best->exchange_count) best = lease;
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
    exchange.upstream_id = NextExclusiveId();
  }
}

// Random, so that nobody can have a reply to the next request ready: a client may hide a second
// request behind its own in a frame that the codec does not look through, and the server's answer
// to that one comes when the connection serves somebody else.
uint64_t WorkerHub::NextExclusiveId() { return 1 + context_.Random() % IdTable::kMax32; }

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

void WorkerHub::MarkDirty(Lease& lease) {
  if (lease.dirty) return;
  lease.dirty = true;
  dirty_.push_back(&lease);
}

void WorkerHub::MarkSettling(Lease& lease) {
  if (lease.settling) return;
  lease.settling = true;
  settling_.push_back(&lease);
}

void WorkerHub::Flush(Lease& lease) {
  if (lease.state != Lease::State::kReady || lease.out.empty()) return;
  context_.host.WriteLease(lease.handle, lease.out);
  ClearKeepingLittle(lease.out);
}

void WorkerHub::Settle() {
  while (!settling_.empty()) {
    Lease& lease = *settling_.back();
    settling_.pop_back();
    lease.settling = false;
    if (lease.state != Lease::State::kGone) SettleLease(lease);
  }
  while (!unlocked_.empty()) {
    HostPool& pool = *unlocked_.back();
    unlocked_.pop_back();
    DispatchWaiting(pool);
  }
  while (!dirty_.empty()) {
    Lease& lease = *dirty_.back();
    dirty_.pop_back();
    lease.dirty = false;
    if (lease.state == Lease::State::kGone) continue;
    if (!lease.announced) AnnounceOpening(lease);
    Flush(lease);
  }
}

void WorkerHub::FreeGone() {
  gone_.clear();
  if (!hosts_changed_) return;
  hosts_changed_ = false;
  for (auto& [name, cluster] : clusters_) cluster->ForgetIdleHosts();
  std::erase_if(retired_, [](const auto& cluster) {
    bool idle = cluster->exchanges() == 0;
    cluster->ForEachHost([&](UpstreamHost& host) { idle = idle && host.idle(); });
    return idle;
  });
}

// The lease has no exchange, or is to go.
void WorkerHub::SettleLease(Lease& lease) {
  if (lease.broken) {
    if (!lease.unconfirmed) {
      Reset(lease);
      return;
    }
    // Closing might overtake what was written before it broke.
    FailExchanges(lease, LocalReply::kUpstreamLost, "the upstream connection was closed");
  }
  if (lease.exchange_count != 0) return;
  if (lease.draining) {
    SettleDrained(lease);
    return;
  }
  if (lease.mode == UpstreamMode::kExclusive) {
    // More than the reply has come; without ids it would be taken for the next one.
    if (!lease.in.empty() && lease.codec->traits().id_bits == 0) {
      Break(lease);
      return;
    }
    HostPool& pool = lease.pool;
    if (!lease.idle) {
      lease.idle = true;
      pool.idle.push_back(&lease);
    }
    if (!pool.waiting.empty()) unlocked_.push_back(&pool);
  }
  const uint64_t timeout = lease.pool.host.cluster.policy().lease_idle_timeout_us;
  if (lease.state == Lease::State::kReady && timeout != 0 && !lease.timer.armed()) {
    context_.Arm(lease.timer, lease.idle_since_us + timeout);
  }
}

// Nothing on the lease waits for a reply, and nothing new comes onto it.
void WorkerHub::SettleDrained(Lease& lease) {
  if (lease.state == Lease::State::kOpening) {
    // Messages without reply may wait in `out`; they go as soon as it is ready.
    if (lease.out.empty()) Reset(lease);
    return;
  }
  Flush(lease);
  if (lease.quiet() && lease.poolable) {
    Release(lease);
    return;
  }
  // Whoever gets the connection next must not get a late reply to a request on it, and closing it
  // might overtake what was written last. So it stays a while.
  const uint64_t timeout = lease.pool.host.cluster.policy().lease_idle_timeout_us;
  const uint64_t due = lease.idle_since_us + timeout;
  const bool done = lease.quiet() && !lease.unconfirmed;
  if (done || timeout == 0 || context_.now_us() >= due) {
    Reset(lease);
  } else {
    context_.Arm(lease.timer, due);
  }
}

// --- events

Lease* WorkerHub::Find(LeaseId id) const {
  const auto index = static_cast<uint32_t>(id);
  if (index >= slots_.size()) return nullptr;
  Lease* lease = slots_[index].lease.get();
  return lease != nullptr && lease->id == id ? lease : nullptr;
}

void WorkerHub::LeaseReady(LeaseId id, LeaseHandle handle) {
  Lease* lease = Find(id);
  if (lease == nullptr || lease->state != Lease::State::kOpening) return;
  lease->state = Lease::State::kReady;
  lease->handle = handle;
  lease->timer.Cancel();
  if (lease->exchange_count == 0) {
    lease->idle_since_us = context_.now_us();
    MarkSettling(*lease);
  }
  MarkDirty(*lease);
}

void WorkerHub::LeaseClosed(LeaseId id, LeaseCloseReason reason) {
  Lease* lease = Find(id);
  if (lease == nullptr) return;
  Series& series = SeriesOf(lease->pool);
  series.Add(lease->state == Lease::State::kOpening ? Counter::kLeasesFailed
                                                    : Counter::kLeasesLost);
  Discard(*lease, ReplyFor(reason), TextFor(reason));
}

void WorkerHub::LeaseTimer(Lease& lease) {
  if (lease.state == Lease::State::kOpening) {
    SeriesOf(lease.pool).Add(Counter::kLeasesFailed);
    context_.host.ResetLease(lease.id);
    Discard(lease, LocalReply::kUpstreamLost, "connecting to the upstream host took too long");
    return;
  }
  if (lease.owner != nullptr && !lease.draining) return;  // lives as long as its session
  const uint64_t timeout = lease.pool.host.cluster.policy().lease_idle_timeout_us;
  if (lease.exchange_count != 0) return;  // armed again when it becomes idle
  const uint64_t due = lease.idle_since_us + timeout;
  if (context_.now_us() < due) {
    context_.Arm(lease.timer, due);
    return;
  }
  DrainLease(lease);
}

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
    options.interest = {0, true};  // nobody looks at a response's metadata
    options.max_message_bytes = snapshot.limits.max_message_bytes;
    options.allow_partial = true;
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
  if (context_.host.LogEnabled(LogLevel::kWarn)) {
    context_.host.Log(LogLevel::kWarn, "upstream " + lease.pool.host.address + " of cluster " +
                                           lease.pool.host.cluster.name() + ": " +
                                           std::string(why));
  }
  SeriesOf(lease.pool).Add(Counter::kLeasesReset);
  context_.host.ResetLease(lease.id);
  Discard(lease, LocalReply::kUpstreamLost, "the upstream host sent a malformed reply");
}

// False: the message is wanted whole.
bool WorkerHub::HandleUpstreamMessage(Lease& lease, const Message& message, Bytes bytes) {
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
      break;
  }
  SeriesOf(lease.pool).Add(Counter::kDropped);
  return true;
}

bool WorkerHub::HandleResponse(Lease& lease, const Message& message, Bytes bytes) {
  Exchange* exchange = nullptr;
  if (lease.ids) {
    exchange = lease.ids->Find(message.id);
  } else if (!lease.exchanges.empty()) {
    exchange = &lease.exchanges.front();
    const bool same_id = exchange->upstream_id == message.id;
    if (lease.codec->traits().id_bits != 0 && !same_id) exchange = nullptr;
  }
  if (exchange != nullptr &&
      (!exchange->expects_reply || exchange->state == Exchange::State::kReplying)) {
    exchange = nullptr;
  }
  if (exchange == nullptr) {
    const bool late = lease.ids && lease.ids->Issued(message.id);
    SeriesOf(lease.pool).Add(late ? Counter::kLateReplies : Counter::kUnsolicited);
    if (late && lease.unanswered != 0 && --lease.unanswered == 0 && lease.exchange_count == 0) {
      MarkSettling(lease);
    }
    // Nothing tells this server's replies apart but their order, and that is broken.
    if (!lease.ids) Break(lease);
    return true;
  }
  const bool whole = bytes.size() == message.length;
  if (!whole) lease.receiving = exchange;
  if (sink_.Reply(*exchange, *lease.codec, message, bytes)) return true;
  lease.receiving = nullptr;
  return false;
}

// --- the end of a lease

void WorkerHub::DrainLease(Lease& lease) {
  lease.draining = true;
  LeaveIdle(lease);
  if (lease.exchange_count == 0) MarkSettling(lease);
}

void WorkerHub::Break(Lease& lease) {
  lease.broken = true;
  lease.poolable = false;
  DrainLease(lease);
  MarkSettling(lease);
}

void WorkerHub::DrainHost(UpstreamHost& host) {
  for (const auto& pool : host.pools) {
    for (Lease* lease : pool->leases) DrainLease(*lease);
    if (pool->waiting.empty()) continue;
    pool->reassign_waiting = true;
    unlocked_.push_back(pool.get());
  }
}

void WorkerHub::Release(Lease& lease) {
  SeriesOf(lease.pool).Add(Counter::kLeasesReleased);
  context_.host.ReleaseLease(lease.id);
  Discard(lease, LocalReply::kUpstreamLost, {});
}

void WorkerHub::Reset(Lease& lease) {
  if (lease.announced) {
    SeriesOf(lease.pool).Add(Counter::kLeasesReset);
    context_.host.ResetLease(lease.id);
  }
  Discard(lease, LocalReply::kUpstreamLost, "the upstream connection was closed");
}

void WorkerHub::Discard(Lease& lease, LocalReply reply, std::string_view text) {
  if (lease.state == Lease::State::kGone) return;
  lease.state = Lease::State::kGone;
  lease.timer.Cancel();
  HostPool& pool = lease.pool;
  std::erase(pool.leases, &lease);
  LeaveIdle(lease);
  if (lease.owner != nullptr) std::erase(lease.owner->leases, &lease);
  if (lease.announced) SeriesOf(pool).Add(Gauge::kLeasesActive, -1);
  const auto index = static_cast<uint32_t>(lease.id);
  gone_.push_back(std::move(slots_[index].lease));
  free_slots_.push_back(index);
  --lease_count_;
  hosts_changed_ = true;
  if (!pool.waiting.empty()) unlocked_.push_back(&pool);
  FailExchanges(lease, reply, text);
}

void WorkerHub::FailExchanges(Lease& lease, LocalReply reply, std::string_view text) {
  while (!lease.exchanges.empty()) {
    Exchange& exchange = lease.exchanges.front();
    Detach(exchange);
    sink_.Failed(exchange, reply, text);
  }
}

Series& WorkerHub::SeriesOf(HostPool& pool) {
  if (pool.series == nullptr) {
    pool.series = &context_.metrics.Get(pool.protocol.name, "-", pool.host.cluster.name());
  }
  return *pool.series;
}

}  // namespace metaprotocol
