#include "src/balance/outlier_detector.h"

#include <algorithm>
#include <utility>

namespace metaprotocol {

std::string_view OutlierDetector::ReasonText(Reason reason) {
  switch (reason) {
    case Reason::kErrors:
      return "consecutive errors";
    case Reason::kGatewayErrors:
      return "consecutive gateway errors";
    case Reason::kLocalOriginFailures:
      return "consecutive local origin failures";
    case Reason::kPercentage:
      break;
  }
  return "share of failures";
}

std::vector<std::shared_ptr<OutlierDetector::Host>> OutlierDetector::SetHosts(
    std::span<const HostInfo> hosts) {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<Host>> in_order;
  in_order.reserve(hosts.size());
  present_ = hosts.size();
  unhealthy_ = ejected_ = 0;
  for (const HostInfo& info : hosts) {
    std::weak_ptr<Host>& known = hosts_[info.address];
    std::shared_ptr<Host> host = known.lock();
    if (host == nullptr) known = host = std::make_shared<Host>(info.address);
    if (host->ejected()) {
      ++ejected_;
    } else if (info.health == HostHealth::kUnhealthy) {
      ++unhealthy_;
    }
    in_order.push_back(std::move(host));
  }
  std::erase_if(hosts_, [](const auto& entry) { return entry.second.expired(); });
  return in_order;
}

std::vector<std::shared_ptr<OutlierDetector::Host>> OutlierDetector::Present() const {
  std::vector<std::shared_ptr<Host>> present;
  for (const auto& [address, known] : hosts_) {
    if (auto host = known.lock()) present.push_back(std::move(host));
  }
  return present;
}

std::vector<OutlierDetector::Change> OutlierDetector::Note(Host& host, Sign sign, uint64_t now_us) {
  std::vector<Change> changes;
  if (settings_.failure_percentage != 0) {
    host.requests_.fetch_add(1, std::memory_order_relaxed);
    if (sign != Sign::kSuccess && Counts(sign)) {
      host.failures_.fetch_add(1, std::memory_order_relaxed);
    }
    if (due_us_.load(std::memory_order_relaxed) == kNever) {
      const std::lock_guard lock(mutex_);
      if (interval_ends_us_ == kNever) interval_ends_us_ = now_us + settings_.interval_us;
      BeDueBy(interval_ends_us_);
    }
  }
  if (sign == Sign::kSuccess) {
    if (host.failing_.load(std::memory_order_relaxed)) Clear(host);
    return changes;
  }
  const std::optional<Reason> reason = CountFailure(host, sign);
  if (!reason) return changes;
  const std::lock_guard lock(mutex_);
  if (auto change = Eject(host, *reason, now_us)) changes.push_back(std::move(*change));
  return changes;
}

// Whether such a failure is one of those that are counted as errors.
bool OutlierDetector::Counts(Sign sign) const {
  return sign != Sign::kLocalOrigin || !settings_.split_local_origin_errors;
}

std::optional<OutlierDetector::Reason> OutlierDetector::CountFailure(Host& host, Sign sign) const {
  const auto reached = [](std::atomic<uint32_t>& count, uint32_t most) {
    const uint32_t now = count.fetch_add(1, std::memory_order_relaxed) + 1;
    return most != 0 && now >= most;
  };
  host.failing_.store(true, std::memory_order_relaxed);
  if (!Counts(sign)) {
    if (!reached(host.local_failures_, settings_.consecutive_local_origin_failures)) return {};
    return Reason::kLocalOriginFailures;
  }
  // A reply has come, so there was a connection.
  if (settings_.split_local_origin_errors) host.local_failures_.store(0, std::memory_order_relaxed);
  const bool errors = reached(host.errors_, settings_.consecutive_errors);
  if (sign == Sign::kError) {
    host.gateway_errors_.store(0, std::memory_order_relaxed);
  } else if (reached(host.gateway_errors_, settings_.consecutive_gateway_errors)) {
    return Reason::kGatewayErrors;
  }
  if (!errors) return {};
  return Reason::kErrors;
}

// A failure that another worker counts meanwhile may be lost, as if it had come before.
void OutlierDetector::Clear(Host& host) {
  host.failing_.store(false, std::memory_order_relaxed);
  host.errors_.store(0, std::memory_order_relaxed);
  host.gateway_errors_.store(0, std::memory_order_relaxed);
  host.local_failures_.store(0, std::memory_order_relaxed);
}

// In an outage this is asked of every request that fails, so it looks at no other host.
std::optional<OutlierDetector::Change> OutlierDetector::Eject(Host& host, Reason reason,
                                                              uint64_t now_us) {
  if (host.ejected() || settings_.max_ejection_percent == 0) return {};
  const size_t out = unhealthy_ + ejected_;
  const bool few = (out + 1) * 100 <= present_ * size_t{settings_.max_ejection_percent};
  if (out != 0 && !few) return {};
  // Each interval without an ejection takes one back.
  if (host.returned_us_ != 0 && now_us > host.returned_us_) {
    const uint64_t good = (now_us - host.returned_us_) / settings_.interval_us;
    host.times_ -= static_cast<uint32_t>(std::min<uint64_t>(host.times_, good));
  }
  ++host.times_;
  const uint64_t longest = std::max(settings_.max_ejection_us, settings_.base_ejection_us);
  const uint64_t times = std::min<uint64_t>(host.times_, longest / settings_.base_ejection_us + 1);
  const uint64_t duration = std::min(times * settings_.base_ejection_us, longest);
  host.until_us_ = now_us + duration;
  Clear(host);
  host.ejected_.store(true, std::memory_order_relaxed);
  ++ejected_;
  epoch_.fetch_add(1, std::memory_order_release);
  BeDueBy(host.until_us_);
  return Change{
      .address = host.address(), .ejected = true, .reason = reason, .duration_us = duration};
}

std::vector<OutlierDetector::Change> OutlierDetector::Review(uint64_t now_us) {
  std::vector<Change> changes;
  const std::lock_guard lock(mutex_);
  uint64_t due = kNever;
  ejected_ = 0;
  for (const auto& host : Present()) {
    if (!host->ejected()) continue;
    if (now_us < host->until_us_) {
      ++ejected_;
      due = std::min(due, host->until_us_);
      continue;
    }
    host->ejected_.store(false, std::memory_order_relaxed);
    host->returned_us_ = now_us;
    Clear(*host);
    epoch_.fetch_add(1, std::memory_order_release);
    changes.push_back({.address = host->address()});
  }
  const bool interval_is_over = now_us >= interval_ends_us_;
  if (interval_is_over) interval_ends_us_ = kNever;  // the next one begins with the next request
  due_us_.store(std::min(due, interval_ends_us_), std::memory_order_relaxed);
  if (interval_is_over) EjectByShare(now_us, changes);
  return changes;
}

void OutlierDetector::EjectByShare(uint64_t now_us, std::vector<Change>& changes) {
  struct Seen {
    std::shared_ptr<Host> host;
    uint32_t requests;
    uint32_t failures;
  };
  std::vector<Seen> seen;
  for (const auto& host : Present()) {
    const uint32_t requests = host->requests_.exchange(0, std::memory_order_relaxed);
    const uint32_t failures = host->failures_.exchange(0, std::memory_order_relaxed);
    if (requests >= settings_.failure_percentage_volume && !host->ejected()) {
      seen.push_back({host, requests, failures});
    }
  }
  if (seen.size() < settings_.failure_percentage_hosts) return;
  for (const Seen& each : seen) {
    if (uint64_t{each.failures} * 100 < uint64_t{each.requests} * settings_.failure_percentage) {
      continue;
    }
    auto change = Eject(*each.host, Reason::kPercentage, now_us);
    if (change) changes.push_back(std::move(*change));
  }
}

void OutlierDetector::BeDueBy(uint64_t due_us) {
  if (due_us < due_us_.load(std::memory_order_relaxed)) {
    due_us_.store(due_us, std::memory_order_relaxed);
  }
}

}  // namespace metaprotocol
