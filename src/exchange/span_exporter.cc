#include "src/exchange/span_exporter.h"

#include <algorithm>

namespace metaprotocol {

void SpanExporter::Add(const Tracing& tracing, Bytes span, Series& series) {
  series.Add(Counter::kSpans);
  Batch& batch = batches_[{tracing.cluster, tracing.service_name}];
  if (batch.spans.size() + span.size() > kMostBatchBytes || bytes_ + span.size() > kMostBytes) {
    series.Add(Counter::kSpansLost);
    return;
  }
  batch.spans.append(span);
  bytes_ += span.size();
  ++batch.shares[&series];
  if (batch.spans.size() >= kSendBytes && batch.call == 0) {
    Send({tracing.cluster, tracing.service_name}, batch);
  }
}

void SpanExporter::SendAll() {
  for (auto& [collector, batch] : batches_) {
    if (batch.call == 0 && !batch.spans.empty()) Send(collector, batch);
  }
  // Nobody may have more for them.
  std::erase_if(batches_, [](const auto& entry) {
    return entry.second.call == 0 && entry.second.spans.empty();
  });
}

void SpanExporter::Send(const Collector& collector, Batch& batch) {
  const std::string message = ExportSpansRequest(collector.second, batch.spans);
  bytes_ -= batch.spans.size();
  batch.spans = {};
  batch.sent = std::exchange(batch.shares, {});
  batch.call = context_.NewCall();
  context_.host.StartCall(batch.call, nullptr, collector.first, kExportSpans, message, kTimeoutUs);
}

void SpanExporter::CallDone(CallId call, std::optional<Bytes> reply) {
  const auto found = std::find_if(batches_.begin(), batches_.end(),
                                  [&](const auto& entry) { return entry.second.call == call; });
  if (call == 0 || found == batches_.end()) return;
  Batch& batch = found->second;
  batch.call = 0;
  Shares sent = std::exchange(batch.sent, {});
  Lose(sent, reply ? RejectedSpans(*reply) : UINT64_MAX);
  if (batch.spans.size() >= kSendBytes) Send(found->first, batch);
}

// `most` of them, of whichever protocol where it is not known.
void SpanExporter::Lose(Shares& shares, uint64_t most) {
  for (auto& [series, spans] : shares) {
    const uint64_t lost = std::min(spans, most);
    if (lost != 0) series->Add(Counter::kSpansLost, lost);
    most -= lost;
  }
}

}  // namespace metaprotocol
