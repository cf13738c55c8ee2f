// Faults on purpose: requests that wait, or fail.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "src/filter/filter.h"

namespace metaprotocol {

class Fault final : public Filter {
 public:
  struct Delay {
    uint64_t chance = Route::kAlways;
    uint64_t duration_us = 0;
  };
  struct Abort {
    uint64_t chance = Route::kAlways;
    LocalReply reply = LocalReply::kFault;
    std::string text = {};
  };
  std::optional<Delay> delay;
  std::optional<Abort> abort;

  std::string_view name() const override { return "fault"; }
  FilterNeeds needs() const override { return {.request = MayDelay() || MayAbort()}; }
  bool WantsWhole(const MatchInput& /*head*/) const override { return MayDelay(); }
  RequestVerdict OnRequest(FilterContext& context) const override;
  RequestVerdict OnTimer(FilterContext& context) const override;

 private:
  bool MayDelay() const { return delay && delay->chance != 0; }
  bool MayAbort() const { return abort && abort->chance != 0; }
};

}  // namespace metaprotocol
