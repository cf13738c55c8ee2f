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
  // A snapshot that was published. Never reused.
  using Ticket = uint64_t;

  // Makes `snapshot` the current one; it goes on with the token buckets of the one before.
  Ticket Publish(std::shared_ptr<const Snapshot> snapshot);

  // A connection was accepted under that snapshot's configuration, so it is what its listener has
  // now. What that listener had before is of no more use, whoever may still own it: such owners
  // live as long as the connections that were accepted under them. Only for snapshots that name
  // their listener.
  void InForce(Ticket ticket);

  // The owner of the snapshot is gone (a listener was removed, or never came to be): the newest of
  // the others becomes current. The last one stays current, for the sessions that still run on it.
  void Withdraw(Ticket ticket);

  // Changes whenever Current() does; cheap enough for every read event.
  uint64_t version() const { return version_.load(std::memory_order_acquire); }

  std::shared_ptr<const Snapshot> Current(uint64_t& version) const;

 private:
  struct Live {
    Ticket ticket;
    std::shared_ptr<const Snapshot> snapshot;
  };

  mutable std::mutex mutex_;
  std::vector<Live> live_;  // oldest first, never empty once published
  Ticket next_ticket_ = 1;
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
