#include "src/filter/filter.h"

namespace metaprotocol {

void Filter::BeforeRoute(Metadata& /*message*/, const ConnectionMetadata& /*connection*/) const {}
void Filter::ContinueWith(const Filter& /*before*/) const {}
bool Filter::WantsWhole(const MatchInput& /*head*/) const { return false; }

// Filters that never stop have nothing to wait for.
RequestVerdict Filter::OnCallDone(FilterContext& /*context*/,
                                  std::optional<Bytes> /*reply*/) const {
  return RequestVerdict::kContinue;
}
RequestVerdict Filter::OnTimer(FilterContext& /*context*/) const {
  return RequestVerdict::kContinue;
}

ResponseVerdict Filter::OnResponse(FilterContext& /*context*/, const ResponseHead& /*head*/) const {
  return ResponseVerdict::kContinue;
}
ResponseVerdict Filter::OnResponseResumed(FilterContext& /*context*/, const ResponseHead& /*head*/,
                                          std::optional<Bytes> /*reply*/) const {
  return ResponseVerdict::kContinue;
}
void Filter::OnEnd(FilterContext& /*context*/, const Outcome& /*outcome*/) const {}

}  // namespace metaprotocol
