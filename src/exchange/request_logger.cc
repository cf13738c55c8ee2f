#include "src/exchange/request_logger.h"

#include "src/base/out_buffer.h"
#include "src/exchange/exchange.h"

namespace metaprotocol {

RequestRecord* RequestLogger::Begin(const SnapshotUse& use, const ExchangeOrigin& origin,
                                    const Message& message, Mutation& changes) {
  const Telemetry& configured = use.snapshot->telemetry;
  const MatchInput input{message.metadata, origin.connection};
  uint64_t wanted = 0;
  for (size_t i = 0; i < configured.logs.size(); ++i) {
    const AccessLog& log = configured.logs[i];
    if (!log.MayWant(input)) continue;
    const bool drawn =
        log.chance >= Route::kAlways || (log.chance != 0 && context_.Random() >> 32 < log.chance);
    if (drawn) wanted |= uint64_t{1} << i;
  }
  std::string request_id;  // one that has been made
  if (configured.request_ids && !configured.request_ids->In(input)) {
    request_id = MakeRequestId(context_.Random(), context_.Random());
    changes.push_back({MutationOp::Kind::kSet, std::string(kRequestIdKey), request_id});
  }
  std::optional<TraceStart> trace;
  if (configured.tracing != nullptr) {
    trace = configured.tracing->Begin(
        input, [this] { return context_.Random(); }, changes);
  }
  const bool told_of = wanted != 0 || (trace && trace->leaves_span);
  if (!told_of && configured.metrics == nullptr) return nullptr;
  RequestRecord& record = pool_.Acquire();
  record.Begin(configured.keys, input);
  if (!request_id.empty()) record.Replace(configured.request_ids->place(), request_id);
  if (told_of) record.SetRemote(origin.info.remote_address, origin.info.remote_port);
  record.wanted = wanted;
  record.trace = trace;
  return &record;
}

void RequestLogger::End(SnapshotUse& use, RequestRecord& record, EndedRequest ended) {
  const Telemetry& configured = use.snapshot->telemetry;
  ended.protocol = use.snapshot->codec->traits().name;
  ended.ended_us = context_.now_us();
  ended.ended_unix_us = context_.host.UnixTimeUs();
  for (size_t i = 0; i < configured.logs.size(); ++i) {
    const AccessLog& log = configured.logs[i];
    if ((record.wanted >> i & 1) == 0 || !log.Wants(ended)) continue;
    line_.clear();
    use.protocol_series->Add(Counter::kAccessLogEntries);
    if (log.collector) {
      log.format.WriteRecord(ended, line_);
      exporter_.Add(*log.collector, line_, *use.protocol_series);
      continue;
    }
    log.format.Write(ended, line_);
    if (use.logs[i] == nullptr) {
      use.protocol_series->Add(Counter::kAccessLogLost);
    } else {
      use.logs[i]->Write(line_);
    }
  }
  if (record.leaves_span()) SendSpans(*configured.tracing, use, ended);
  if (configured.metrics != nullptr) Count(use, ended);
  pool_.Release(record);
}

void RequestLogger::SendSpans(const Tracing& tracing, SnapshotUse& use, const EndedRequest& ended) {
  const auto send = [&] {
    use.protocol_series->Add(Counter::kSpans);
    exporter_.Add(tracing.target, line_, *use.protocol_series);
  };
  line_.clear();
  tracing.WriteSpan(ended, line_);
  send();
  for (size_t i = 0; i < Tracing::AttemptSpans(ended); ++i) {
    line_.clear();
    tracing.WriteAttempt(ended, i, context_.Random() | 1, line_);
    send();
  }
}

void RequestLogger::Count(SnapshotUse& use, const EndedRequest& ended) {
  const RequestMetrics& metrics = *use.snapshot->telemetry.metrics;
  RequestSample sample;
  sample.series = metrics.SeriesOf(
      metrics.PartsOf(ended), use.request_series, line_, [&](const RequestMetrics::Parts& parts) {
        return context_.metrics.GetRequests(metrics.LabelsOf(parts, context_.host.OwnWorkload()));
      });
  sample.duration_us = ended.ended_us - ended.started_us;
  sample.request_bytes = ended.request_bytes;
  sample.response_bytes = ended.response_bytes;
  context_.metrics.Add(sample);
}

void RequestLogger::Refused(SnapshotUse& use, const ExchangeOrigin& origin, const Message& message,
                            LocalReply reply, std::string_view text) {
  Mutation changes;  // of what is not passed on
  RequestRecord* const record = Begin(use, origin, message, changes);
  if (record == nullptr) return;
  record->SetReason(text);
  EndedRequest ended{.record = *record};
  ended.answered = true;
  ended.reply = reply;
  ended.request_bytes = message.length;
  ended.started_us = context_.now_us();
  End(use, *record, ended);
}

}  // namespace metaprotocol
