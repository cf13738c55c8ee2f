#include "src/upstream/cluster.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "src/base/random_stream.h"

namespace metaprotocol {
namespace {

// How often the policy is asked again when it has chosen a host that is to be passed over.
constexpr int kMoreTries = 8;

}  // namespace

void UpstreamHost::PassOver(uint64_t now_us, uint64_t duration_us) {
  away_since_us = now_us;
  away_until_us = std::max(away_until_us, now_us + duration_us);
}

bool UpstreamHost::idle() const {
  return active == 0 &&
         std::all_of(pools.begin(), pools.end(), [](const auto& pool) { return pool->empty(); });
}

// The hosts are others, or are said to be otherwise.
void Cluster::Show(std::vector<HostInfo> hosts, uint64_t now_us) {
  if (policy_->outliers == nullptr) {
    for (UpstreamHost* host : by_index_) Unwatch(*host);
  }
  if (policy_->outliers == nullptr && !policy_->slow_start) {
    given_.clear();
    next_step_us_ = 0;
    balancer_->Update(hosts);
    return;
  }
  given_ = std::move(hosts);
  if (policy_->outliers != nullptr) {
    const auto watched = policy_->outliers->SetHosts(given_);
    for (size_t i = 0; i < watched.size(); ++i) by_index_[i]->outlier = watched[i];
  }
  Balance(now_us);
}

// What the cluster's owner says of the hosts, and what has been found out about them here.
void Cluster::Balance(uint64_t now_us) {
  std::vector<HostInfo> hosts = given_;
  if (policy_->outliers != nullptr) LeaveOutEjected(hosts);
  next_step_us_ = 0;
  if (policy_->slow_start) Weaken(hosts, now_us);
  balancer_->Update(hosts);
}

// Weights as parts of a thousand, where there is room for that.
void Cluster::Weaken(std::vector<HostInfo>& hosts, uint64_t now_us) {
  constexpr uint32_t kParts = 1000;
  constexpr uint32_t kMostWeight = 1'000'000;
  const SlowStart& slow_start = *policy_->slow_start;
  uint32_t heaviest = 0;
  bool any = false;
  for (size_t i = 0; i < hosts.size(); ++i) {
    UpstreamHost& host = *by_index_[i];
    const uint64_t age_us = now_us - std::min(now_us, host.warming_since_us);
    if (host.warming && age_us >= slow_start.window_us) host.warming = false;
    any = any || host.warming;
    heaviest = std::max(heaviest, hosts[i].weight);
  }
  if (!any) return;
  next_step_us_ = now_us + slow_start.step_us();
  const uint32_t parts = heaviest <= kMostWeight ? kParts : 1;
  for (size_t i = 0; i < hosts.size(); ++i) {
    const UpstreamHost& host = *by_index_[i];
    hosts[i].weight = std::max<uint32_t>(hosts[i].weight, 1) * parts;
    if (!host.warming) continue;
    const double factor = slow_start.Factor(now_us - std::min(now_us, host.warming_since_us));
    hosts[i].weight =
        std::max<uint32_t>(1, static_cast<uint32_t>(std::lround(hosts[i].weight * factor)));
  }
}

// They count as unhealthy, so that what holds for priorities, localities and panic holds for them.
void Cluster::LeaveOutEjected(std::vector<HostInfo>& hosts) {
  outlier_epoch_ = policy_->outliers->epoch();
  for (size_t i = 0; i < hosts.size(); ++i) {
    by_index_[i]->ejected = by_index_[i]->outlier->ejected();
    if (by_index_[i]->ejected) hosts[i].health = HostHealth::kUnhealthy;
  }
}

std::vector<OutlierDetector::Change> Cluster::CatchUp(uint64_t now_us) {
  std::vector<OutlierDetector::Change> changes;
  OutlierDetector& outliers = *policy_->outliers;
  if (outliers.due(now_us)) changes = outliers.Review(now_us);
  if (outliers.epoch() != outlier_epoch_) Balance(now_us);
  return changes;
}

std::optional<RetryToken> Cluster::TakeRetry(Priority priority) {
  const PriorityBounds& bounds = policy_->Of(priority);
  const std::shared_ptr<RetryBudget>& retries = retries_[static_cast<size_t>(priority)];
  const double share = bounds.retry_budget_percent / 100 * attempts(priority);
  const auto most = std::max<size_t>(bounds.min_retries_in_flight, static_cast<size_t>(share));
  if (retries->in_use() >= most) return std::nullopt;
  return RetryToken(retries);
}

bool Cluster::OwesTooMuch(const UpstreamHost& host, size_t length) const {
  // As much as the shared leases of a host may owe between them. Of a longer message only part is
  // there at a time.
  const size_t of_lease = policy_->max_lease_bytes_in_flight;
  const size_t most = of_lease * policy_->max_shared_leases_per_host;
  return host.owed_bytes + std::min(length, of_lease) > most;
}

// `first` would be passed over if there were another. Requests of one hash stay together.
UpstreamHost* Cluster::PickAnother(UpstreamHost& first, const Choice& choice, uint64_t random,
                                   uint64_t now_us) {
  RandomStream others(choice.hash.value_or(random));
  for (int i = 0; i < kMoreTries; ++i) {
    const uint64_t another = others.Next();
    const auto index = balancer_->Pick(
        {choice.hash ? std::optional<uint64_t>(another) : std::nullopt, another, active_});
    if (index && MayBeUsed(*by_index_[*index], choice, now_us)) return by_index_[*index];
  }
  const size_t count = by_index_.size();
  const size_t start = others.Below(count);
  for (size_t i = 0; i < count; ++i) {
    UpstreamHost* host = by_index_[(start + i) % count];
    if (host->healthy && !host->ejected && MayBeUsed(*host, choice, now_us)) return host;
  }
  return &first;
}

void Cluster::ForgetIfIdle(UpstreamHost& host) {
  std::erase_if(host.pools,
                [](const auto& pool) { return pool->protocol->retired && pool->empty(); });
  if (host.index == UpstreamHost::kNoIndex && host.idle()) hosts_.erase(hosts_.find(host.address));
}

}  // namespace metaprotocol
