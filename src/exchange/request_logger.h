// Tells access logs, tracing and metrics of requests that have ended: of each one once, and of none
// before.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "src/base/object_pool.h"
#include "src/engine_context.h"
#include "src/exchange/otlp_exporter.h"
#include "src/router/protocol_state.h"
#include "src/telemetry/request_record.h"
#include "src/telemetry/tracing.h"

namespace metaprotocol {

struct ExchangeOrigin;

class RequestLogger {
 public:
  explicit RequestLogger(EngineContext& context) : context_(context), exporter_(context) {}

  // Null if nobody is told of the request; else to be given back with End. Appends what tracing
  // wants changed in it.
  RequestRecord* Begin(const SnapshotUse& use, const ExchangeOrigin& origin, const Message& message,
                       Mutation& changes);
  // `ended` has the record; its times on the calendar's clock are filled in here.
  void End(SnapshotUse& use, RequestRecord& record, EndedRequest ended);
  // Both at once, for a request that went nowhere.
  void Refused(SnapshotUse& use, const ExchangeOrigin& origin, const Message& message,
               LocalReply reply, std::string_view text);

  // See OtlpExporter.
  void SendRecords() { exporter_.SendAll(); }
  bool has_records() const { return !exporter_.empty(); }
  void CallDone(CallId call, std::optional<Bytes> reply) { exporter_.CallDone(call, reply); }

 private:
  void SendSpans(const Tracing& tracing, SnapshotUse& use, const EndedRequest& ended);
  void Count(SnapshotUse& use, const EndedRequest& ended);

  EngineContext& context_;
  OtlpExporter exporter_;
  ObjectPool<RequestRecord> pool_;
  std::string line_;
};

}  // namespace metaprotocol
