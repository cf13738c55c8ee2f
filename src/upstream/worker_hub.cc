#include "src/upstream/worker_hub.h"

#include <algorithm>
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

// --- writing

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
  if (lease.exchange_count != 0) {
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
