#include "src/filter/authorization/authorization.h"

namespace metaprotocol {
namespace {

constexpr std::string_view kUndecided = "a value is too long to tell whether this is allowed";
constexpr std::string_view kNotListed = "no authorization policy allows this";

}  // namespace

std::string_view Authorization::Denial(const MatchInput& request) const {
  if (!deny.texts.empty()) {
    const RouteMatch denied = deny.table->Match(request);
    // Either way: which rule it would have been matters to nobody.
    if (denied.undecided) return kUndecided;
    if (denied.route != nullptr) return deny.texts[denied.route->index];
  }
  if (!only_allowed) return {};
  const RouteMatch allowed = allow.table->Match(request);
  if (allowed.undecided) return kUndecided;
  return allowed.route != nullptr ? std::string_view() : kNotListed;
}

RequestVerdict Authorization::OnRequest(FilterContext& context) const {
  const MatchInput request = context.input();
  if (!audit.texts.empty() && audit.table->Match(request).route != nullptr) {
    context.Count(Counter::kAuthorizationAudited);
  }
  const std::string_view denial = Denial(request);
  if (denial.empty()) return RequestVerdict::kContinue;
  context.Count(Counter::kAuthorizationDenied);
  context.Answer(LocalReply::kDenied, denial);
  return RequestVerdict::kAnswered;
}

}  // namespace metaprotocol
