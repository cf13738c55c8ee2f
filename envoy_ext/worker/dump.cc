#include "envoy_ext/worker/dump.h"

#include <chrono>
#include <memory>
#include <utility>

#include "envoy_ext/worker/wakeups.h"

namespace metaprotocol::envoy {

DumpRequest& DumpRequest::Get() {
  static DumpRequest* const instance = std::unique_ptr<DumpRequest>(new DumpRequest()).release();
  return *instance;
}

std::vector<std::string> DumpRequest::Collect() {
  const std::lock_guard one_at_a_time(one_at_a_time_);
  std::unique_lock lock(mutex_);
  answers_.clear();
  ++question_;
  const size_t asked = Wakeups::Get().Broadcast(WorkerEvent::kDump, question_);
  answered_.wait_for(lock, std::chrono::milliseconds(500),
                     [&] { return answers_.size() >= asked; });
  return std::exchange(answers_, {});
}

void DumpRequest::Answer(uint64_t question, std::string json) {
  const std::lock_guard lock(mutex_);
  if (question != question_) return;  // too late
  answers_.push_back(std::move(json));
  answered_.notify_one();
}

}  // namespace metaprotocol::envoy
