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
  context.Answer(abort->reply, abort->text.empty() ? std::string_view("a fault on purpose")
                                                   : std::string_view(abort->text));
  return RequestVerdict::kAnswered;
}

}  // namespace metaprotocol
