// Who may send which requests.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "src/filter/filter.h"

namespace metaprotocol {

class Authorization final : public Filter {
 public:
  // The rules of all policies with one action.
  struct Rules {
    std::unique_ptr<const RouteTable> table;
    // The same for requests that nobody here can read: with DENY what remains of the rules if they
    // say what is denied, with ALLOW the rules that need nothing of the kind.
    std::unique_ptr<const RouteTable> unread;
    std::vector<std::string> texts;  // for denials, by Route::index in `table`
  };
  Rules deny;
  Rules allow;
  Rules audit;
  bool only_allowed = false;  // there is a policy that allows, even if nobody meets it

  // Why the request is denied; empty: it is not.
  std::string_view Denial(const MatchInput& request) const;

  std::string_view name() const override { return "authorization"; }
  FilterNeeds needs() const override {
    return {.request = only_allowed || !deny.texts.empty() || !audit.texts.empty()};
  }
  RequestVerdict OnRequest(FilterContext& context) const override;
};

}  // namespace metaprotocol
