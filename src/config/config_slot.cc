#include "src/config/config_slot.h"

#include <algorithm>
#include <utility>

namespace metaprotocol {

ConfigSlot::Ticket ConfigSlot::Publish(std::shared_ptr<const Snapshot> snapshot) {
  const std::lock_guard lock(mutex_);
  if (!live_.empty()) snapshot->ContinueWith(*live_.back().snapshot);
  const Ticket ticket = next_ticket_++;
  live_.push_back({ticket, std::move(snapshot)});
  version_.fetch_add(1, std::memory_order_release);
  return ticket;
}

void ConfigSlot::InForce(Ticket ticket) {
  std::vector<Live> superseded;  // destroyed outside the lock
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(live_.begin(), live_.end(),
                                  [&](const Live& live) { return live.ticket == ticket; });
  if (found == live_.end() || found->snapshot->listener_name.empty()) return;
  const std::string& listener = found->snapshot->listener_name;
  const auto kept = std::stable_partition(live_.begin(), found, [&](const Live& live) {
    return live.snapshot->listener_name != listener;
  });
  superseded.assign(std::move_iterator(kept), std::move_iterator(found));
  live_.erase(kept, found);
}

void ConfigSlot::Withdraw(Ticket ticket) {
  std::shared_ptr<const Snapshot> retired;  // destroyed outside the lock
  const std::lock_guard lock(mutex_);
  if (live_.size() < 2) return;
  const auto it = std::find_if(live_.begin(), live_.end(),
                               [&](const Live& live) { return live.ticket == ticket; });
  if (it == live_.end()) return;
  retired = std::move(it->snapshot);
  live_.erase(it);
  version_.fetch_add(1, std::memory_order_release);
}

std::shared_ptr<const Snapshot> ConfigSlot::Current(uint64_t& version) const {
  const std::lock_guard lock(mutex_);
  version = version_.load(std::memory_order_relaxed);
  return live_.empty() ? nullptr : live_.back().snapshot;
}

std::shared_ptr<ConfigSlot> ConfigRegistry::Slot(std::string_view name) {
  const std::lock_guard lock(mutex_);
  auto it = slots_.find(name);
  if (it == slots_.end()) {
    it = slots_.emplace(std::string(name), std::make_shared<ConfigSlot>()).first;
  }
  return it->second;
}

}  // namespace metaprotocol
