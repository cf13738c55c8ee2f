#include "src/filter/authorization/authorization.h"

namespace metaprotocol {
namespace {

constexpr std::string_view kUndecided = "a value is too long to tell whether this is allowed";
constexpr std::string_view kUnread = "what this asks for cannot be read here, only its server can";
constexpr std::string_view kNotListed = "no authorization policy allows this";

}  // namespace

std::string_view Authorization::Denial(const MatchInput& request) const {
  const bool unread = request.message.unread();
  if (!deny.texts.empty()) {
    const RouteMatch denied = deny.table->Match(request);
    // Either way: which rule it would have been matters to nobody.
    if (denied.undecided) return kUndecided;
    if (denied.route != nullptr) return deny.texts[denied.route->index];
    if (unread && deny.unread->Match(request).route != nullptr) return kUnread;
  }
  if (!only_allowed) return {};
  const RouteMatch allowed = (unread ? allow.unread : allow.table)->Match(request);
  if (allowed.undecided) return kUndecided;
  if (allowed.route != nullptr) return {};
  return unread ? kUnread : kNotListed;
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
