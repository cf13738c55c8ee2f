#include "src/config/config_slot.h"

#include <algorithm>
#include <utility>

namespace metaprotocol {

void ConfigSlot::Publish(std::shared_ptr<const Snapshot> snapshot) {
  const std::lock_guard lock(mutex_);
  if (!live_.empty()) snapshot->ContinueWith(*live_.back());
  live_.push_back(std::move(snapshot));
  version_.fetch_add(1, std::memory_order_release);
}

void ConfigSlot::Withdraw(const Snapshot* snapshot) {
  std::shared_ptr<const Snapshot> retired;  // destroyed outside the lock
  const std::lock_guard lock(mutex_);
  if (live_.size() < 2) return;
  const auto it = std::find_if(live_.begin(), live_.end(),
                               [&](const auto& live) { return live.get() == snapshot; });
  if (it == live_.end()) return;
  retired = std::move(*it);
  live_.erase(it);
  version_.fetch_add(1, std::memory_order_release);
}

std::shared_ptr<const Snapshot> ConfigSlot::Current(uint64_t& version) const {
  const std::lock_guard lock(mutex_);
  version = version_.load(std::memory_order_relaxed);
  return live_.empty() ? nullptr : live_.back();
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
