#include "envoy_ext/worker_cluster/drainer.h"

#include <chrono>
#include <utility>

#include "envoy_ext/worker/wakeups.h"

namespace metaprotocol::envoy {
namespace {

constexpr auto kStep = std::chrono::milliseconds(20);
constexpr uint64_t kPatienceUs = 5'000'000;

}  // namespace

Drainer::~Drainer() {
  // A second signal ends Envoy while it waits: workers first, then clusters, and what the
  // completion would call is gone by then. With workers left it is the cluster alone that goes, and
  // Envoy waits on.
  if (Wakeups::Get().Broadcast(WorkerEvent::kPublish) == 0) complete_ = nullptr;
  Finish();
}

void Drainer::Start() { Wakeups::Get().Broadcast(WorkerEvent::kDrain); }

void Drainer::WaitThenComplete(void* cluster, abi::EventCallback complete, void* context) {
  if (complete_ != nullptr || abi::ClusterSchedulerNew == nullptr ||
      Wakeups::Get().Broadcast(WorkerEvent::kPublish) == 0) {
    complete(context);
    return;
  }
  complete_ = complete;
  context_ = context;
  scheduler_ = abi::ClusterSchedulerNew(cluster);
  waiter_ = std::thread([scheduler = scheduler_] {
    const uint64_t deadline = Wakeups::NowUs() + kPatienceUs;
    // The first answer may be from before the drain; the second is not.
    for (int quiet = 0; quiet < 2 && Wakeups::NowUs() < deadline;) {
      if (Wakeups::Get().Broadcast(WorkerEvent::kPublish) == 0) break;
      std::this_thread::sleep_for(kStep);
      quiet = Wakeups::Get().exchanges_open() == 0 ? quiet + 1 : 0;
    }
    abi::ClusterSchedulerCommit(scheduler, 0);
  });
}

void Drainer::Finish() {
  if (waiter_.joinable()) waiter_.join();
  if (scheduler_ != nullptr) abi::ClusterSchedulerDelete(std::exchange(scheduler_, nullptr));
  if (complete_ != nullptr) std::exchange(complete_, nullptr)(context_);
}

}  // namespace metaprotocol::envoy
