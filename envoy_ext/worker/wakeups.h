// How other threads reach a worker: an event committed to one of its schedulers, which Envoy then
// delivers on the worker itself. One thread of the process turns deadlines into such events, since
// network filters have no timers.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <vector>

namespace metaprotocol::envoy {

// Event ids of the network filter's `scheduled` hook.
enum class WorkerEvent : uint64_t {
  kWake,     // something was put off until Envoy is off the stack
  kTick,     // a deadline has passed
  kDrain,    // see Engine::Drain
  kPublish,  // say how many exchanges are open
  kDump,     // describe yourself, in answer to the question of that number
  // Drain the connections whose listener has been replaced or removed.
  kDrainReplaced,
};

// A WorkerEvent as it is committed: with a number of less than 2^56.
class CommittedEvent {
 public:
  explicit CommittedEvent(uint64_t value) : value_(value) {}
  explicit CommittedEvent(WorkerEvent kind, uint64_t argument = 0)
      : value_(static_cast<uint64_t>(kind) | argument << 8) {}

  uint64_t value() const { return value_; }
  WorkerEvent kind() const { return static_cast<WorkerEvent>(value_ & 0xff); }
  uint64_t argument() const { return value_ >> 8; }

 private:
  uint64_t value_;
};

class Wakeups {
 public:
  // One worker's place. Only Wakeups looks inside.
  struct Entry {
    void* scheduler = nullptr;  // guarded by mutex_; null: unreachable for now
    // When the thread will wake for this worker: written by both under mutex_, read without.
    std::atomic<uint64_t> armed_us{kNever};
    std::atomic<uint64_t> exchanges_open{0};
  };
  static constexpr uint64_t kNever = UINT64_MAX;

  // The process's only one. Never destroyed: its thread runs until the process ends.
  static Wakeups& Get();

  Entry* Add();
  void Remove(Entry* entry);

  // Events go to `scheduler` from now on; the caller keeps it alive until it says otherwise, and
  // its connection, too: while an event is committed Envoy may hold the connection, which then ends
  // on the committing thread if its worker lets go of it. Once this returns nobody is about to
  // commit to the one before. The first one starts the thread.
  void SetScheduler(Entry* entry, void* scheduler);

  // A kTick is wanted at `at_us` (CLOCK_MONOTONIC) at the latest. May come early; moving a deadline
  // back costs nothing, so that it comes at the earlier time still.
  void SetDeadline(Entry* entry, uint64_t at_us);

  // Sends `event` to every worker that can be reached, and returns to how many.
  size_t Broadcast(WorkerEvent event, uint64_t argument = 0);
  // Over all workers, as of their last kPublish.
  uint64_t exchanges_open();

  static uint64_t NowUs();

 private:
  Wakeups() = default;
  void Run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Entry*> entries_;
  uint64_t next_us_ = 0;  // when the thread will wake by itself
  bool running_ = false;
};

}  // namespace metaprotocol::envoy
