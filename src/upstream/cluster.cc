#include "src/upstream/cluster.h"

#include <algorithm>
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

UpstreamHost* Cluster::Pick(const Choice& choice, uint64_t random, uint64_t now_us) {
  if (balancer_ == nullptr || by_index_.empty()) return nullptr;
  const auto index = balancer_->Pick({choice.hash, random, active_});
  if (!index) return nullptr;
  UpstreamHost* host = by_index_[*index];
  return MayBeUsed(*host, choice, now_us) ? host : PickAnother(*host, choice, random, now_us);
}

void Cluster::Watch(std::vector<HostInfo> hosts) {
  given_ = std::move(hosts);
  const auto watched = policy_->outliers->SetHosts(given_);
  for (size_t i = 0; i < watched.size(); ++i) by_index_[i]->outlier = watched[i];
  LeaveOutEjected();
}

// They count as unhealthy, so that what holds for priorities, localities and panic holds for them.
void Cluster::LeaveOutEjected() {
  outlier_epoch_ = policy_->outliers->epoch();
  std::vector<HostInfo> hosts = given_;
  for (size_t i = 0; i < hosts.size(); ++i) {
    by_index_[i]->ejected = by_index_[i]->outlier->ejected();
    if (by_index_[i]->ejected) hosts[i].health = HostHealth::kUnhealthy;
  }
  balancer_->Update(hosts);
}

std::vector<OutlierDetector::Change> Cluster::CatchUp(uint64_t now_us) {
  std::vector<OutlierDetector::Change> changes;
  OutlierDetector& outliers = *policy_->outliers;
  if (outliers.due(now_us)) changes = outliers.Review(now_us);
  if (outliers.epoch() != outlier_epoch_) LeaveOutEjected();
  return changes;
}

std::optional<RetryToken> Cluster::TakeRetry() {
  const double share = policy_->retry_budget_percent / 100 * attempts_;
  const auto most = std::max<size_t>(policy_->min_retries_in_flight, static_cast<size_t>(share));
  if (retries_->in_use() >= most) return std::nullopt;
  return RetryToken(retries_);
}

bool Cluster::OwesTooMuch(const UpstreamHost& host, size_t length) const {
  // As much as the shared leases of a host may owe between them. Of a longer message only part is
  // there at a time.
  const size_t of_lease = policy_->max_lease_bytes_in_flight;
  const size_t most = of_lease * policy_->max_shared_leases_per_host;
  return host.owed_bytes + std::min(length, of_lease) > most;
}

bool Cluster::MayBeUsed(const UpstreamHost& host, const Choice& choice, uint64_t now_us) const {
  return host.away_until_us <= now_us && !Congested(host, choice.length) &&
         (choice.avoid.empty() || host.address != choice.avoid);
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
