// One answer from each worker to the question what it holds, collected on another thread.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

namespace metaprotocol::envoy {

class DumpRequest {
 public:
  // The process's only one; never destroyed.
  static DumpRequest& Get();

  // Asks every worker and waits for the answers, half a second at most: a busy worker's may be
  // missing. Not to be called on a worker.
  std::vector<std::string> Collect();

  // To the question of that number, which came with WorkerEvent::kDump.
  void Answer(uint64_t question, std::string json);

 private:
  DumpRequest() = default;

  std::mutex one_at_a_time_;
  std::mutex mutex_;
  std::condition_variable answered_;
  uint64_t question_ = 0;  // the latest
  std::vector<std::string> answers_;
};

}  // namespace metaprotocol::envoy
