// Brings spans and lines of access logs to their collectors: in batches, by calls that no request
// waits for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

#include "src/engine_context.h"
#include "src/telemetry/otlp.h"

namespace metaprotocol {

// All of one worker. Each collector has one batch under way at most, and behind it one that grows;
// a batch that does not arrive is lost.
class OtlpExporter {
 public:
  // Of one batch, and of all that have not gone out together. What does not fit is lost.
  static constexpr size_t kMostBatchBytes = size_t{1} << 20;
  static constexpr size_t kMostBytes = size_t{4} << 20;
  // So much goes out without waiting for the next second.
  static constexpr size_t kSendBytes = size_t{64} << 10;
  static constexpr uint64_t kTimeoutUs = uint64_t{10} * 1000 * 1000;

  explicit OtlpExporter(EngineContext& context) : context_(context) {}

  // A record as Tracing::WriteSpan or LogFormat::WriteRecord has made it. `series` lives as long as
  // the engine.
  void Add(const OtlpTarget& target, Bytes record, Series& series);
  // To be called about once a second.
  void SendAll();
  // As in Engine; other calls are ignored.
  void CallDone(CallId call, std::optional<Bytes> reply);

  bool empty() const { return batches_.empty(); }

 private:
  using Shares = std::unordered_map<Series*, uint64_t>;  // how many records are whose
  struct Batch {
    std::string records;
    Shares shares;
    CallId call = 0;  // of the batch under way; 0: there is none
    Shares sent;
  };

  void Send(const OtlpTarget& target, Batch& batch);
  static void Lose(const OtlpTarget& target, Shares& shares, uint64_t most);

  EngineContext& context_;
  std::map<OtlpTarget, Batch> batches_;
  size_t bytes_ = 0;
};

}  // namespace metaprotocol
