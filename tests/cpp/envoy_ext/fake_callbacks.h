// The few callbacks of Envoy that threads of ours use, so that they can run under the thread
// sanitizer, which a stock Envoy cannot.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>

namespace metaprotocol::test {

// What a scheduler hands to Envoy: events, delivered on the thread that takes them.
class FakeScheduler {
 public:
  void Commit(uint64_t event);
  // The next event; nothing if none comes for a long time.
  std::optional<uint64_t> Next();
  // The same, but nothing if there is none yet.
  std::optional<uint64_t> TryNext();
  // What abi::NetworkSchedulerDelete does.
  void Delete() { deleted_ = true; }
  bool deleted() const { return deleted_; }

 private:
  std::atomic<bool> deleted_{false};
  std::mutex mutex_;
  std::condition_variable committed_;
  std::deque<uint64_t> events_;
};

// What abi::ClusterSchedulerNew gives for any cluster.
FakeScheduler& ClusterScheduler();

// Sums over all that was delivered to Envoy's metrics.
uint64_t DeliveredToCounters();
uint64_t DeliveredToHistograms();

}  // namespace metaprotocol::test
