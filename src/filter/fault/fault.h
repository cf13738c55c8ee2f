// Faults on purpose: requests that wait, or fail.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "src/filter/filter.h"

namespace metaprotocol {

// Not members of Fault: clang holds a nested class whose members have initializers for one that
// cannot be default-constructed until the enclosing class is complete, which std::optional asks
// before.
struct FaultDelay {
  uint64_t chance = Route::kAlways;
  uint64_t duration_us = 0;
};

struct FaultAbort {
  uint64_t chance = Route::kAlways;
  LocalReply reply = LocalReply::kFault;
  std::string text = {};
};

class Fault final : public Filter {
 public:
  std::optional<FaultDelay> delay;
  std::optional<FaultAbort> abort;

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
