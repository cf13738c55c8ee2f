#include "src/exchange/otlp_exporter.h"

#include <algorithm>
#include <utility>

namespace metaprotocol {
namespace {

Counter LostOf(const OtlpTarget& target) {
  return target.signal == OtlpSignal::kSpans ? Counter::kSpansLost : Counter::kAccessLogLost;
}

}  // namespace

void OtlpExporter::Add(const OtlpTarget& target, Bytes record, Series& series) {
  Batch& batch = batches_[target];
  if (batch.records.size() + record.size() > kMostBatchBytes ||
      bytes_ + record.size() > kMostBytes) {
    series.Add(LostOf(target));
    return;
  }
  batch.records.append(record);
  bytes_ += record.size();
  ++batch.shares[&series];
  if (batch.records.size() >= kSendBytes && batch.call == 0) Send(target, batch);
}

void OtlpExporter::SendAll() {
  for (auto& [target, batch] : batches_) {
    if (batch.call == 0 && !batch.records.empty()) Send(target, batch);
  }
  // Nobody may have more for them.
  std::erase_if(batches_, [](const auto& entry) {
    return entry.second.call == 0 && entry.second.records.empty();
  });
}

void OtlpExporter::Send(const OtlpTarget& target, Batch& batch) {
  const std::string message = ExportRequest(target.service_name, batch.records);
  bytes_ -= batch.records.size();
  batch.records = {};
  batch.sent = std::exchange(batch.shares, {});
  batch.call = context_.NewCall();
  context_.host.StartCall(batch.call, nullptr, target.cluster, ExportMethod(target.signal), message,
                          kTimeoutUs);
}

void OtlpExporter::CallDone(CallId call, std::optional<Bytes> reply) {
  const auto found = std::find_if(batches_.begin(), batches_.end(),
                                  [&](const auto& entry) { return entry.second.call == call; });
  if (call == 0 || found == batches_.end()) return;
  Batch& batch = found->second;
  batch.call = 0;
  Shares sent = std::exchange(batch.sent, {});
  Lose(found->first, sent, reply ? RejectedRecords(*reply) : UINT64_MAX);
  if (batch.records.size() >= kSendBytes) Send(found->first, batch);
}

// `most` of them, of whichever protocol where it is not known.
void OtlpExporter::Lose(const OtlpTarget& target, Shares& shares, uint64_t most) {
  for (auto& [series, records] : shares) {
    const uint64_t lost = std::min(records, most);
    if (lost != 0) series->Add(LostOf(target), lost);
    most -= lost;
  }
}

}  // namespace metaprotocol
