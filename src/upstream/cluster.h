// Clusters and their hosts as one worker sees them, with the leases to each host.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "src/balance/balancer.h"
#include "src/config/snapshot.h"
#include "src/session/protocol_state.h"
#include "src/upstream/lease.h"

namespace metaprotocol {

struct UpstreamHost;

// The leases of one protocol to one host.
struct HostPool {
  HostPool(UpstreamHost& host, ProtocolState& protocol, uint32_t upstream_kind)
      : host(host), protocol(protocol), upstream_kind(upstream_kind) {}

  UpstreamHost& host;
  ProtocolState& protocol;
  const uint32_t upstream_kind;  // SnapshotUse::upstream_kind of all its exchanges
  Series* series = nullptr;      // of protocol and cluster; filled in when it is needed
  std::vector<Lease*> leases;    // all of them, oldest first
  std::vector<Lease*> idle;      // exclusive ones without an exchange; the last used is last
  // Exchanges that wait for an exclusive lease, oldest first.
  IntrusiveList<Exchange, LeaseExchangeLink> waiting;
  uint32_t waiting_count = 0;
  bool reassign_waiting = false;  // to other hosts

  bool current() const { return upstream_kind == protocol.current->upstream_kind; }
};

struct UpstreamHost {
  static constexpr uint32_t kNoIndex = ~uint32_t{0};

  UpstreamHost(Cluster& cluster, std::string address)
      : cluster(cluster), address(std::move(address)) {}

  Cluster& cluster;
  const std::string address;
  uint32_t index = kNoIndex;  // in the balancer's host set; kNoIndex once the host has left
  uint32_t active = 0;        // open exchanges
  uint64_t warned_us = 0;     // when a warning about it was last logged
  // One per protocol, nearly always one; and former ones of protocols whose codec has changed.
  std::vector<std::unique_ptr<HostPool>> pools;

  HostPool& PoolFor(ProtocolState& protocol, uint32_t upstream_kind);
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
              std::vector<HostInfo> hosts, F&& drain) {
    const bool replaced = generation != generation_;
    generation_ = generation;
    if (replaced || policy != policy_) {
      policy_ = std::move(policy);
      balancer_ = Balancer::Create(policy_->balance);
    }
    for (UpstreamHost* host : by_index_) host->index = UpstreamHost::kNoIndex;
    by_index_.clear();
    active_.clear();
    for (const HostInfo& info : hosts) {
      auto& host = hosts_[info.address];
      if (host == nullptr) host = std::make_unique<UpstreamHost>(*this, info.address);
      host->index = static_cast<uint32_t>(by_index_.size());
      by_index_.push_back(host.get());
      active_.push_back(host->active);
      if (replaced || info.health == HostHealth::kUnhealthy) drain(*host);
    }
    balancer_->Update(hosts);
    for (auto& [address, host] : hosts_) {
      if (host->index == UpstreamHost::kNoIndex) drain(*host);
    }
  }

  // Null if no host may be used.
  UpstreamHost* Pick(uint64_t random, std::optional<uint64_t> hash) {
    const auto index = balancer_->Pick({hash, random, active_});
    return index ? by_index_[*index] : nullptr;
  }

  void Acquire(UpstreamHost& host, size_t bytes) {
    ++exchanges_;
    bytes_in_flight_ += bytes;
    ++host.active;
    if (host.index != UpstreamHost::kNoIndex) active_[host.index] = host.active;
  }
  void Release(UpstreamHost& host, size_t bytes) {
    --exchanges_;
    bytes_in_flight_ -= bytes;
    --host.active;
    if (host.index != UpstreamHost::kNoIndex) active_[host.index] = host.active;
  }

  uint32_t exchanges() const { return exchanges_; }
  size_t bytes_in_flight() const { return bytes_in_flight_; }
  size_t host_count() const { return by_index_.size(); }

  // Forgets hosts that have left and have nothing open any more, and former pools likewise.
  void ForgetIdleHosts();

  // Removed; what is open finishes.
  bool retired() const { return retired_; }
  void Retire() { retired_ = true; }

  template <typename F>
  void ForEachHost(F&& f) {
    for (auto& [address, host] : hosts_) f(*host);
  }

 private:
  const std::string name_;
  uint64_t generation_ = 0;
  std::shared_ptr<const ClusterPolicy> policy_;
  std::unique_ptr<Balancer> balancer_;
  std::unordered_map<std::string, std::unique_ptr<UpstreamHost>> hosts_;  // and those leaving
  std::vector<UpstreamHost*> by_index_;
  std::vector<uint32_t> active_;  // by index
  uint32_t exchanges_ = 0;
  size_t bytes_in_flight_ = 0;
  bool retired_ = false;
};

}  // namespace metaprotocol
