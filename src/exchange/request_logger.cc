#include "src/exchange/request_logger.h"

#include "src/base/out_buffer.h"
#include "src/exchange/exchange.h"

namespace metaprotocol {

RequestRecord* RequestLogger::Begin(const SnapshotUse& use, const ExchangeOrigin& origin,
                                    const Message& message) {
  const AccessLogs& configured = use.snapshot->access_logs;
  const MatchInput input{message.metadata, origin.connection};
  uint64_t wanted = 0;
  for (size_t i = 0; i < configured.logs.size(); ++i) {
    const AccessLog& log = configured.logs[i];
    if (!log.MayWant(input)) continue;
    const bool drawn =
        log.chance >= Route::kAlways || (log.chance != 0 && context_.Random() >> 32 < log.chance);
    if (drawn) wanted |= uint64_t{1} << i;
  }
  if (wanted == 0) return nullptr;
  RequestRecord& record = pool_.Acquire();
  record.Begin(configured.keys, input);
  record.SetRemote(origin.info.remote_address, origin.info.remote_port);
  record.wanted = wanted;
  return &record;
}

void RequestLogger::End(const SnapshotUse& use, RequestRecord& record, EndedRequest ended) {
  const AccessLogs& configured = use.snapshot->access_logs;
  ended.protocol = use.snapshot->codec->traits().name;
  ended.ended_us = context_.now_us();
  ended.ended_unix_us = context_.host.UnixTimeUs();
  for (size_t i = 0; i < configured.logs.size(); ++i) {
    if ((record.wanted >> i & 1) == 0 || !configured.logs[i].Wants(ended)) continue;
    line_.clear();
    configured.logs[i].format.Write(ended, line_);
    use.protocol_series->Add(Counter::kAccessLogEntries);
    if (use.logs[i] == nullptr) {
      use.protocol_series->Add(Counter::kAccessLogLost);
    } else {
      use.logs[i]->Write(line_);
    }
  }
  pool_.Release(record);
}

void RequestLogger::Refused(const SnapshotUse& use, const ExchangeOrigin& origin,
                            const Message& message, LocalReply reply, std::string_view text) {
  RequestRecord* const record = Begin(use, origin, message);
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
