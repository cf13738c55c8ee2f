// Where configurations meet running sessions: one slot per filter name, holding that filter's live
// snapshots. Written by the thread that receives configuration, read by every worker.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "src/config/snapshot.h"

namespace metaprotocol {

class ConfigSlot {
 public:
  // Makes `snapshot` the current one; it goes on with the token buckets of the one before.
  void Publish(std::shared_ptr<const Snapshot> snapshot);

  // The owner of `snapshot` is gone (a listener was removed, or never came to be): the newest of
  // the others becomes current. The last one stays current, for the sessions that still run on it.
  void Withdraw(const Snapshot* snapshot);

  // Changes whenever Current() does; cheap enough for every read event.
  uint64_t version() const { return version_.load(std::memory_order_acquire); }

  std::shared_ptr<const Snapshot> Current(uint64_t& version) const;

 private:
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<const Snapshot>> live_;  // oldest first, never empty once published
  std::atomic<uint64_t> version_{0};
};

class ConfigRegistry {
 public:
  // The slot of that filter name, made on first use and kept for good.
  std::shared_ptr<ConfigSlot> Slot(std::string_view name);

 private:
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<ConfigSlot>, std::less<>> slots_;
};

}  // namespace metaprotocol
