// One answer from each worker to the question what it holds, collected on another thread.
#pragma once

#include <condition_variable>
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

  void Answer(std::string json);

 private:
  DumpRequest() = default;

  std::mutex one_at_a_time_;
  std::mutex mutex_;
  std::condition_variable answered_;
  std::vector<std::string> answers_;
};

}  // namespace metaprotocol::envoy
