#include "tests/cpp/envoy_ext/fake_callbacks.h"

#include <atomic>
#include <chrono>

#include "envoy_ext/abi/abi.h"

namespace metaprotocol::test {
namespace {

std::atomic<uint64_t> counted{0};
std::atomic<uint64_t> recorded{0};

}  // namespace

void FakeScheduler::Commit(uint64_t event) {
  const std::lock_guard lock(mutex_);
  events_.push_back(event);
  committed_.notify_one();
}

std::optional<uint64_t> FakeScheduler::Next() {
  std::unique_lock lock(mutex_);
  if (!committed_.wait_for(lock, std::chrono::seconds(60), [&] { return !events_.empty(); })) {
    return std::nullopt;
  }
  const uint64_t event = events_.front();
  events_.pop_front();
  return event;
}

std::optional<uint64_t> FakeScheduler::TryNext() {
  const std::lock_guard lock(mutex_);
  if (events_.empty()) return std::nullopt;
  const uint64_t event = events_.front();
  events_.pop_front();
  return event;
}

FakeScheduler& ClusterScheduler() {
  static FakeScheduler scheduler;
  return scheduler;
}

uint64_t DeliveredToCounters() { return counted.load(); }
uint64_t DeliveredToHistograms() { return recorded.load(); }

}  // namespace metaprotocol::test

namespace metaprotocol::abi {

void NetworkSchedulerCommit(void* scheduler, uint64_t event) {
  static_cast<test::FakeScheduler*>(scheduler)->Commit(event);
}

void* ClusterSchedulerNew(void*) { return &test::ClusterScheduler(); }
void ClusterSchedulerCommit(void* scheduler, uint64_t event) {
  static_cast<test::FakeScheduler*>(scheduler)->Commit(event);
}
void ClusterSchedulerDelete(void*) {}

int ClusterDefineCounter(void*, Buffer, Buffer*, size_t, size_t* id) {
  *id = 0;
  return kSuccess;
}
int ClusterDefineGauge(void*, Buffer, Buffer*, size_t, size_t* id) {
  *id = 1;
  return kSuccess;
}
int ClusterDefineHistogram(void*, Buffer, Buffer*, size_t, size_t* id) {
  *id = 2;
  return kSuccess;
}
int ClusterResolveCounter(void* config, size_t, Buffer*, size_t, void** out) {
  *out = config;
  return kSuccess;
}
int ClusterResolveGauge(void* config, size_t, Buffer*, size_t, void** out) {
  *out = config;
  return kSuccess;
}
int ClusterResolveHistogram(void* config, size_t, Buffer*, size_t, void** out) {
  *out = config;
  return kSuccess;
}
void ClusterCounterAdd(void*, uint64_t value) { test::counted.fetch_add(value); }
void ClusterGaugeSet(void*, uint64_t) {}
void ClusterHistogramRecord(void*, uint64_t value) { test::recorded.fetch_add(value); }

}  // namespace metaprotocol::abi
