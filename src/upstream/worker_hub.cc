#include "src/upstream/worker_hub.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "src/base/out_buffer.h"

namespace metaprotocol {
namespace {

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

// How long a server may take nothing of what it was sent before its connection is given up, if
// nobody waits for a reply on it.
constexpr uint64_t kStalledPatienceUs = 30 * 1000 * 1000;

// With more than this, a lease does not wait for the end of the turn.
constexpr size_t kMostGathered = size_t{64} << 10;

// What a server that closes idle connections can bring this down to.
constexpr uint64_t kLeastIdleUs = 1000;

// How long a host is passed over that could not be connected to, or that closed a new connection
// without a word.
constexpr uint64_t kAwayAfterRefusalUs = 1000 * 1000;

// 0: for ever.
uint64_t IdleTimeout(const Lease& lease) {
  const UpstreamHost& host = lease.pool.host;
  return std::min(host.cluster.policy().lease_idle_timeout_us, host.idle_limit_us);
}

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
  cluster->Update(generation, std::move(policy), std::move(hosts), context_.now_us(),
                  [this](UpstreamHost& host) { DrainHost(host); });
}

void WorkerHub::RemoveCluster(std::string_view name, uint64_t generation) {
  const auto it = clusters_.find(std::string(name));
  if (it == clusters_.end() || it->second->generation() != generation) return;
  std::unique_ptr<Cluster> cluster = std::move(it->second);
  clusters_.erase(it);
  ++clusters_epoch_;
  cluster->Retire([this](UpstreamHost& host) { DrainHost(host); });
  // Else it goes with its last host.
  if (!cluster->empty()) retired_.push_back(std::move(cluster));
}

Cluster* WorkerHub::FindCluster(std::string_view name) {
  const auto it = clusters_.find(std::string(name));
  return it == clusters_.end() ? nullptr : it->second.get();
}

void WorkerHub::ForEachCluster(const std::function<void(Cluster&)>& f) const {
  for (const auto& [name, cluster] : clusters_) f(*cluster);
}

// --- writing

void WorkerHub::Flush(Lease& lease) {
  if (lease.state != Lease::State::kReady || lease.out.empty()) return;
  lease.written += lease.out.size();
  context_.host.WriteLease(lease.handle, lease.out);
  ClearKeepingMuch(lease.out);
}

void WorkerHub::ListDirty(Lease& lease) {
  lease.dirty = true;
  dirty_.push_back(&lease);
}

void WorkerHub::ListSettling(Lease& lease) {
  lease.settling = true;
  settling_.push_back(&lease);
}

void WorkerHub::ListNoted(UpstreamHost& host) {
  host.noted = true;
  noted_.push_back(&host);
}

void WorkerHub::Settle() {
  while (!settling_.empty()) {
    Lease& lease = *settling_.back();
    settling_.pop_back();
    lease.settling = false;
    if (lease.state != Lease::State::kGone) SettleLease(lease);
  }
  while (!unlocked_.empty()) {
    LeasePool& pool = *unlocked_.back();
    unlocked_.pop_back();
    pool.unlocked = false;
    DispatchWaiting(pool);
  }
  while (!dirty_.empty()) {
    Lease& lease = *dirty_.back();
    dirty_.pop_back();
    lease.dirty = false;
    if (lease.state == Lease::State::kGone) continue;
    if (!lease.announced) AnnounceOpening(lease);
    if (Gathers(lease)) continue;
    Flush(lease);
    Probe(lease);
  }
}

// Where many clients are read in one turn, their requests go to a server in one write.
bool WorkerHub::Gathers(Lease& lease) {
  if (lease.state != Lease::State::kReady || lease.out.empty()) return false;
  if (lease.out.size() >= kMostGathered || !context_.host.Gathers()) return false;
  if (!lease.gathering) gathering_.push_back(lease.id);
  lease.gathering = true;
  return true;
}

void WorkerHub::WriteGathered() {
  for (const LeaseId id : gathering_) {
    Lease* const lease = Find(id);
    if (lease == nullptr) continue;
    lease->gathering = false;
    Flush(*lease);
    Probe(*lease);
  }
  gathering_.clear();
}

void WorkerHub::Probe(Lease& lease) {
  if (lease.state != Lease::State::kReady || !lease.flow.WantsProbe(lease.written)) return;
  lease.flow.Probed(lease.written);
  context_.host.ProbeLease(lease.handle);
}

void WorkerHub::CorrectBooks(Lease& lease, size_t owed) {
  const size_t orphaned = lease.Orphaned();
  if (owed == lease.owed_booked && orphaned == lease.orphaned_booked) return;
  UpstreamHost& host = lease.pool.host;
  host.owed_bytes += owed - std::exchange(lease.owed_booked, owed);
  host.cluster.BookOrphaned(orphaned - std::exchange(lease.orphaned_booked, orphaned));
}

void WorkerHub::FreeGone() {
  gone_.clear();
  for (UpstreamHost* host : noted_) {
    host->noted = false;
    Cluster& cluster = host->cluster;
    cluster.ForgetIfIdle(*host);
    if (cluster.retired() && cluster.empty()) {
      std::erase_if(retired_, [&](const auto& retired) { return retired.get() == &cluster; });
    }
  }
  noted_.clear();
}

// The lease has no attempt, or is to go, or what its server has taken makes room for somebody.
void WorkerHub::SettleLease(Lease& lease) {
  if (lease.wants_room) TellOfRoom(lease);
  SettlePause(lease);
  if (lease.broken) {
    if (!lease.unconfirmed) {
      Reset(lease);
      return;
    }
    // Closing might overtake what was written before it broke.
    FailAttempts(lease, LocalReply::kUpstreamLost, "the upstream connection was closed");
  }
  if (lease.attempt_count != 0) return;
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
    lease.pool.Free(lease);
    Unlock(lease.pool);
  }
  const uint64_t timeout = IdleTimeout(lease);
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
  // Whoever gets the connection next must not get a late reply to a request on it or have to wait
  // for what its server has not taken, and closing it might overtake what was written last. So it
  // stays a while.
  uint64_t timeout = IdleTimeout(lease);
  if (timeout != 0 && lease.Owed() != 0) {
    timeout = std::max(timeout, kStalledPatienceUs);
  }
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
  if (lease == nullptr) return;
  assert(lease->state == Lease::State::kOpening && "a lease becomes ready once");
  if (lease->state != Lease::State::kOpening) return;
  lease->state = Lease::State::kReady;
  lease->connected = true;
  lease->opened_us = context_.now_us();
  lease->handle = handle;
  lease->timer.Cancel();
  if (lease->attempt_count == 0) {
    lease->idle_since_us = context_.now_us();
    MarkSettling(*lease);
  }
  MarkDirty(*lease);
}

void WorkerHub::LeaseClosed(LeaseId id, LeaseCloseReason reason) {
  Lease* lease = Find(id);
  if (lease == nullptr) return;
  Series& series = SeriesOf(lease->pool);
  const bool opening = lease->state == Lease::State::kOpening;
  if (lease->in_line) HandleTheRest(*lease);
  if (lease->state == Lease::State::kGone) return;
  series.Add(opening ? Counter::kLeasesFailed : Counter::kLeasesLost);
  if (reason == LeaseCloseReason::kConnectFailed || reason == LeaseCloseReason::kRemoteClose) {
    JudgeLoss(*lease);
  }
  if (reason == LeaseCloseReason::kConnectFailed ||
      (reason == LeaseCloseReason::kRemoteClose && !lease->answered && lease->written != 0)) {
    lease->pool.host.PassOver(context_.now_us(), kAwayAfterRefusalUs);
  }
  if (reason == LeaseCloseReason::kRemoteClose && lease->attempt_count == 0 && lease->answered) {
    UpstreamHost& host = lease->pool.host;
    const uint64_t idle_us = context_.now_us() - lease->idle_since_us;
    host.idle_limit_us = std::min(host.idle_limit_us, std::max(idle_us / 2, kLeastIdleUs));
  }
  Discard(*lease, ReplyFor(reason), TextFor(reason));
}

void WorkerHub::LeaseDrained(LeaseId id) {
  Lease* lease = Find(id);
  if (lease == nullptr) return;
  lease->flow.Drained();
  UpdateBooks(*lease);
  MarkDirty(*lease);  // more may have been written meanwhile
  if (lease->attempt_count == 0 || lease->wants_room) MarkSettling(*lease);
  Unlock(lease->pool);
}

void WorkerHub::LeaseTimer(Lease& lease) {
  if (lease.state == Lease::State::kOpening) {
    SeriesOf(lease.pool).Add(Counter::kLeasesFailed);
    lease.pool.host.PassOver(context_.now_us(), kAwayAfterRefusalUs);
    JudgeLoss(lease);
    context_.host.ResetLease(lease.id);
    Discard(lease, LocalReply::kUpstreamLost, "connecting to the upstream host took too long");
    return;
  }
  if (lease.owner != nullptr && !lease.draining) return;  // lives as long as its session
  const uint64_t timeout = IdleTimeout(lease);
  if (lease.attempt_count != 0) {
    if (lease.strays != 0) Break(lease);  // and the reply that was waited for did not come
    return;                               // armed again when it becomes idle
  }
  const uint64_t due = lease.idle_since_us + timeout;
  if (context_.now_us() < due) {
    context_.Arm(lease.timer, due);
    return;
  }
  DrainLease(lease);
}

// --- the end of a lease

void WorkerHub::DrainLease(Lease& lease) {
  lease.draining = true;
  lease.pool.Withdraw(lease);
  if (lease.attempt_count == 0) MarkSettling(lease);
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
    if (pool->waiting_count() == 0) continue;
    pool->reassign_waiting = true;
    Unlock(*pool);
  }
  Note(host);
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
  lease.connection = {};
  lease.timer.Cancel();
  LeasePool& pool = lease.pool;
  UpdateBooks(lease);
  std::erase(pool.leases, &lease);
  pool.Withdraw(lease);
  if (lease.owner != nullptr) std::erase(lease.owner->leases, &lease);
  if (lease.announced) SeriesOf(pool).Add(Gauge::kLeasesActive, -1);
  const auto index = static_cast<uint32_t>(lease.id);
  gone_.push_back(std::move(slots_[index].lease));
  free_slots_.push_back(index);
  --lease_count_;
  Note(pool.host);
  Unlock(pool);
  FailAttempts(lease, reply, text);
}

void WorkerHub::FailAttempts(Lease& lease, LocalReply reply, std::string_view text) {
  while (!lease.attempts.empty()) {
    Attempt& attempt = lease.attempts.front();
    End(attempt, CauseOfLoss(attempt), reply, text);
  }
}

Series& WorkerHub::SeriesOf(LeasePool& pool) {
  if (pool.series == nullptr) {
    pool.series = &context_.metrics.Get(pool.protocol->name, "-", pool.host.cluster.name());
  }
  return *pool.series;
}

}  // namespace metaprotocol
