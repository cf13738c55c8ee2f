// Clusters and their hosts as one worker sees them.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "src/balance/balancer.h"
#include "src/balance/outlier_detector.h"
#include "src/config/cluster_policy.h"
#include "src/upstream/lease_pool.h"
#include "src/upstream/retry_budget.h"
#include "src/upstream/upstream_protocol.h"

namespace metaprotocol {

class Cluster;

struct UpstreamHost {
  static constexpr uint32_t kNoIndex = ~uint32_t{0};

  UpstreamHost(Cluster& cluster, std::string address)
      : cluster(cluster), address(std::move(address)) {}

  Cluster& cluster;
  const std::string address;
  std::string workload;           // HostInfo::workload
  uint32_t index = kNoIndex;      // in the balancer's host set; kNoIndex once the host has left
  bool healthy = true;            // as the cluster's owner says
  bool ejected = false;           // by the outlier detection, as its worker has seen
  bool noted = false;             // in the hub's list of hosts that may be forgotten
  bool warming = false;           // new, or well again, with ClusterPolicy::slow_start...
  uint64_t warming_since_us = 0;  // ...since then
  uint32_t active = 0;            // attempts under way
  size_t owed_bytes = 0;          // of all its leases: Lease::Owed
  uint64_t warned_us = 0;         // when a warning about it was last logged
  // Passed over until then, while another host can be had; 0: not.
  uint64_t away_until_us = 0;
  uint64_t away_since_us = 0;
  // Leases idle for longer than this go back to the pool, whatever the policy says: the host has
  // closed one that was idle for twice as long.
  uint64_t idle_limit_us = ~uint64_t{0};
  // Of the policy's outlier detection, while the host is in the balancer's set; null: there is
  // none.
  std::shared_ptr<OutlierDetector::Host> outlier;
  // One per protocol and priority, nearly always one; and former ones of protocols whose codec has
  // changed.
  std::vector<std::unique_ptr<LeasePool>> pools;

  LeasePool* FindPool(const std::shared_ptr<const UpstreamProtocol>& protocol,
                      Priority priority) const {
    for (const auto& pool : pools) {
      if (pool->protocol == protocol && pool->priority == priority) return pool.get();
    }
    return nullptr;
  }
  // The host wants no requests, or takes none, as its own connections have shown. That this is over
  // is shown by a connection that was opened later, or by time.
  void PassOver(uint64_t now_us, uint64_t duration_us);
  bool idle() const;
};

class Cluster {
 public:
  Cluster(std::string name) : name_(std::move(name)) {}

  const std::string& name() const { return name_; }
  uint64_t generation() const { return generation_; }
  const ClusterPolicy& policy() const { return *policy_; }

  // Replaces the host set. Hosts that left, or may not be used any more, are handed to
  // drain(UpstreamHost&); with a new generation all present ones are.
  template <typename F>
  void Update(uint64_t generation, std::shared_ptr<const ClusterPolicy> policy,
              std::vector<HostInfo> hosts, uint64_t now_us, F&& drain) {
    const bool replaced = generation != generation_;
    generation_ = generation;
    if (replaced || policy != policy_) {
      policy_ = std::move(policy);
      balancer_ = Balancer::Create(policy_->balance);
    }
    const std::vector<UpstreamHost*> before = std::move(by_index_);
    by_index_.clear();
    active_.clear();
    for (const HostInfo& info : hosts) {
      auto& host = hosts_[info.address];
      if (host == nullptr) host = std::make_unique<UpstreamHost>(*this, info.address);
      const bool healthy = info.health != HostHealth::kUnhealthy;
      const bool was_there = host->index != UpstreamHost::kNoIndex && host->healthy;
      if (healthy && !was_there && !before.empty() && policy_->slow_start) {
        host->warming = true;
        host->warming_since_us = now_us;
      }
      host->index = static_cast<uint32_t>(by_index_.size());
      host->healthy = healthy;
      host->workload = info.workload;
      by_index_.push_back(host.get());
      active_.push_back(host->active);
    }
    for (UpstreamHost* host : before) {
      if (!IsAt(*host, host->index)) host->index = UpstreamHost::kNoIndex;
    }
    Show(std::move(hosts), now_us);
    for (UpstreamHost* host : before) {
      if (host->index == UpstreamHost::kNoIndex) Unwatch(*host);
      if (replaced || host->index == UpstreamHost::kNoIndex || !host->healthy) drain(*host);
    }
  }

  // What the choice of a host depends on.
  struct Choice {
    std::optional<uint64_t> hash = {};  // of the route's hash policy
    size_t length = 0;                  // of the message
    std::string_view avoid = {};  // address of the host that is only taken if there is no other
  };
  // What the outlier detection of all workers has found since the last time, and what is due now.
  // Only if there is one.
  std::vector<OutlierDetector::Change> CatchUp(uint64_t now_us);
  // Some hosts do not have their whole share yet: WarmUp is to be called before the next Pick.
  bool warming() const { return next_step_us_ != 0; }
  void WarmUp(uint64_t now_us) {
    if (now_us >= next_step_us_) Balance(now_us);
  }
  // Null if no host may be used. `random`: a fresh random number.
  UpstreamHost* Pick(const Choice& choice, uint64_t random, uint64_t now_us) {
    if (balancer_ == nullptr || by_index_.empty()) return nullptr;
    const auto index = balancer_->Pick({choice.hash, random, active_});
    if (!index) return nullptr;
    UpstreamHost* host = by_index_[*index];
    return MayBeUsed(*host, choice, now_us) ? host : PickAnother(*host, choice, random, now_us);
  }
  // The server takes so little of what it was sent that nothing is added to it.
  bool Congested(const UpstreamHost& host, size_t length) const {
    return host.owed_bytes != 0 && OwesTooMuch(host, length);
  }

  void Acquire(UpstreamHost& host, size_t bytes, Priority priority) {
    ++AttemptsOf(priority);
    bytes_in_flight_ += bytes;
    ++host.active;
    if (host.index != UpstreamHost::kNoIndex) active_[host.index] = host.active;
  }
  void Release(UpstreamHost& host, size_t bytes, Priority priority) {
    --AttemptsOf(priority);
    bytes_in_flight_ -= bytes;
    --host.active;
    if (host.index != UpstreamHost::kNoIndex) active_[host.index] = host.active;
  }
  // Lease::Orphaned of one of the leases has changed by that much, modulo 2^64.
  void BookOrphaned(size_t difference) { orphaned_bytes_ += difference; }

  // Requests that wait for an exclusive connection to one of the hosts.
  size_t waiting(Priority priority) const { return waiting_[static_cast<size_t>(priority)]; }
  void BeginWaiting(Priority priority) { ++waiting_[static_cast<size_t>(priority)]; }
  void EndWaiting(Priority priority) { --waiting_[static_cast<size_t>(priority)]; }

  // The right to a retry; nothing if there are too many already.
  std::optional<RetryToken> TakeRetry(Priority priority);

  uint32_t attempts() const { return attempts_[0] + attempts_[1]; }
  uint32_t attempts(Priority priority) const { return attempts_[static_cast<size_t>(priority)]; }
  size_t bytes_in_flight() const { return bytes_in_flight_; }
  size_t orphaned_bytes() const { return orphaned_bytes_; }
  // What counts against ClusterPolicy::max_bytes_in_flight.
  size_t bytes_held() const { return bytes_in_flight_ + orphaned_bytes_; }
  size_t host_count() const { return by_index_.size(); }

  // Forgets a host that has left and has nothing open, and pools of former protocols.
  void ForgetIfIdle(UpstreamHost& host);

  // Removed; what is open finishes.
  bool retired() const { return retired_; }
  template <typename F>
  void Retire(F&& drain) {
    retired_ = true;
    for (UpstreamHost* host : by_index_) {
      host->index = UpstreamHost::kNoIndex;
      Unwatch(*host);
      drain(*host);
    }
    by_index_.clear();
    active_.clear();
  }
  // No host is left, not even one that is leaving.
  bool empty() const { return hosts_.empty(); }

  template <typename F>
  void ForEachHost(F&& f) {
    for (auto& [address, host] : hosts_) f(*host);
  }

 private:
  uint32_t& AttemptsOf(Priority priority) { return attempts_[static_cast<size_t>(priority)]; }
  static void Unwatch(UpstreamHost& host) {
    host.ejected = false;
    host.outlier.reset();
  }
  bool IsAt(const UpstreamHost& host, uint32_t index) const {
    return index < by_index_.size() && by_index_[index] == &host;
  }
  void Show(std::vector<HostInfo> hosts, uint64_t now_us);
  void Balance(uint64_t now_us);
  void LeaveOutEjected(std::vector<HostInfo>& hosts);
  void Weaken(std::vector<HostInfo>& hosts, uint64_t now_us);
  bool OwesTooMuch(const UpstreamHost& host, size_t length) const;
  bool MayBeUsed(const UpstreamHost& host, const Choice& choice, uint64_t now_us) const {
    return host.away_until_us <= now_us && !Congested(host, choice.length) &&
           (choice.avoid.empty() || host.address != choice.avoid);
  }
  UpstreamHost* PickAnother(UpstreamHost& first, const Choice& choice, uint64_t random,
                            uint64_t now_us);

  const std::string name_;
  uint64_t generation_ = 0;
  std::shared_ptr<const ClusterPolicy> policy_;
  std::unique_ptr<Balancer> balancer_;
  std::unordered_map<std::string, std::unique_ptr<UpstreamHost>> hosts_;  // and those leaving
  std::vector<UpstreamHost*> by_index_;
  std::vector<uint32_t> active_;  // by index
  // With outlier detection or slow start: the hosts as their owner says.
  std::vector<HostInfo> given_;
  uint64_t next_step_us_ = 0;   // when shares have grown; 0: all are whole
  uint64_t outlier_epoch_ = 0;  // that `ejected` shows
  std::array<uint32_t, kPriorities> attempts_{};
  std::array<size_t, kPriorities> waiting_{};
  size_t bytes_in_flight_ = 0;
  size_t orphaned_bytes_ = 0;
  bool retired_ = false;
  const std::array<std::shared_ptr<RetryBudget>, kPriorities> retries_ = {
      std::make_shared<RetryBudget>(), std::make_shared<RetryBudget>()};
};

}  // namespace metaprotocol
