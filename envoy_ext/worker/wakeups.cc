#include "envoy_ext/worker/wakeups.h"

#include <time.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <thread>

#include "envoy_ext/abi/abi.h"

namespace metaprotocol::envoy {

Wakeups& Wakeups::Get() {
  static Wakeups* const instance = std::unique_ptr<Wakeups>(new Wakeups()).release();
  return *instance;
}

uint64_t Wakeups::NowUs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000 + static_cast<uint64_t>(now.tv_nsec) / 1000;
}

Wakeups::Entry* Wakeups::Add() {
  auto entry = std::make_unique<Entry>();
  const std::lock_guard lock(mutex_);
  entries_.push_back(entry.get());
  return entry.release();
}

void Wakeups::Remove(Entry* entry) {
  const std::unique_ptr<Entry> owned(entry);
  const std::lock_guard lock(mutex_);
  std::erase(entries_, entry);
}

void Wakeups::SetScheduler(Entry* entry, void* scheduler) {
  const std::lock_guard lock(mutex_);
  entry->scheduler = scheduler;
  if (scheduler == nullptr) return;
  if (!running_) {
    running_ = true;
    std::thread([this] { Run(); }).detach();
  }
  // A deadline may have passed while there was nobody to tell.
  if (entry->armed_us.load(std::memory_order_relaxed) != kNever) changed_.notify_one();
}

void Wakeups::SetDeadline(Entry* entry, uint64_t at_us) {
  if (at_us >= entry->armed_us.load(std::memory_order_relaxed)) return;
  const std::lock_guard lock(mutex_);
  entry->armed_us.store(at_us, std::memory_order_relaxed);
  if (at_us < next_us_) changed_.notify_one();
}

size_t Wakeups::Broadcast(WorkerEvent event, uint64_t argument) {
  const std::lock_guard lock(mutex_);
  size_t reached = 0;
  for (const Entry* entry : entries_) {
    if (entry->scheduler == nullptr) continue;
    abi::NetworkSchedulerCommit(entry->scheduler, CommittedEvent(event, argument).value());
    ++reached;
  }
  return reached;
}

uint64_t Wakeups::exchanges_open() {
  const std::lock_guard lock(mutex_);
  uint64_t sum = 0;
  for (const Entry* entry : entries_) sum += entry->exchanges_open.load(std::memory_order_relaxed);
  return sum;
}

void Wakeups::Run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    const uint64_t now = NowUs();
    uint64_t next = kNever;
    for (Entry* entry : entries_) {
      if (entry->scheduler == nullptr) continue;
      const uint64_t at = entry->armed_us.load(std::memory_order_relaxed);
      if (at > now) {
        next = std::min(next, at);
        continue;
      }
      entry->armed_us.store(kNever, std::memory_order_relaxed);
      abi::NetworkSchedulerCommit(entry->scheduler, CommittedEvent(WorkerEvent::kTick).value());
    }
    next_us_ = next;
    if (next == kNever) {
      changed_.wait(lock);
    } else {
      changed_.wait_for(lock, std::chrono::microseconds(next - now));
    }
  }
}

}  // namespace metaprotocol::envoy
