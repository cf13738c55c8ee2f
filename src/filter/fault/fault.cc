#include "src/filter/fault/fault.h"

namespace metaprotocol {

RequestVerdict Fault::OnRequest(FilterContext& context) const {
  if (!MayDelay() || !context.Draw(delay->chance)) return OnTimer(context);
  context.StartTimer(delay->duration_us);
  context.Count(Counter::kFaultDelays);
  return RequestVerdict::kStop;
}

RequestVerdict Fault::OnTimer(FilterContext& context) const {
  if (!MayAbort() || !context.Draw(abort->chance)) return RequestVerdict::kContinue;
  context.Count(Counter::kFaultAborts);
  context.Answer(abort->reply, abort->text.empty() ? "a fault on purpose" : abort->text);
  return RequestVerdict::kAnswered;
}

}  // namespace metaprotocol
