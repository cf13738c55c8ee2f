// Tells the access logs of requests that have ended: of each one once, and of none before.
#pragma once

#include <string>
#include <string_view>

#include "src/base/object_pool.h"
#include "src/engine_context.h"
#include "src/router/protocol_state.h"
#include "src/telemetry/request_record.h"

namespace metaprotocol {

struct ExchangeOrigin;

class RequestLogger {
 public:
  explicit RequestLogger(EngineContext& context) : context_(context) {}

  // Null if no log wants the request; else to be given back with End.
  RequestRecord* Begin(const SnapshotUse& use, const ExchangeOrigin& origin,
                       const Message& message);
  // `ended` has the record; its times on the calendar's clock are filled in here.
  void End(const SnapshotUse& use, RequestRecord& record, EndedRequest ended);
  // Both at once, for a request that went nowhere.
  void Refused(const SnapshotUse& use, const ExchangeOrigin& origin, const Message& message,
               LocalReply reply, std::string_view text);

 private:
  EngineContext& context_;
  ObjectPool<RequestRecord> pool_;
  std::string line_;
};

}  // namespace metaprotocol
