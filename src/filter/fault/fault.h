// Faults on purpose: requests that wait, or fail.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "src/filter/filter.h"
#include "src/route/match_input.h"

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

// Faults that requests ask for.
struct RequestedFaults {
  KeyRef delay;
  KeyRef delay_percent;
  KeyRef abort;
  KeyRef abort_percent;
  uint64_t max_delay_us = 0;
  uint64_t max_chance = Route::kAlways;

  // What this request asks for; nothing: it asks for none, or what it says is no such thing.
  std::optional<FaultDelay> DelayOf(const MatchInput& request) const;
  std::optional<FaultAbort> AbortOf(const MatchInput& request) const;

 private:
  uint64_t ChanceOf(const KeyRef& key, const MatchInput& request) const;
};

class Fault final : public Filter {
 public:
  std::optional<FaultDelay> delay;
  std::optional<FaultAbort> abort;
  std::optional<RequestedFaults> requested;

  std::string_view name() const override { return "fault"; }
  FilterNeeds needs() const override { return {.request = MayDelay() || MayAbort() || requested}; }
  bool WantsWhole(const MatchInput& head) const override {
    return MayDelay() || (requested && requested->DelayOf(head));
  }
  RequestVerdict OnRequest(FilterContext& context) const override;
  RequestVerdict OnTimer(FilterContext& context) const override;

 private:
  bool MayDelay() const { return delay && delay->chance != 0; }
  bool MayAbort() const { return abort && abort->chance != 0; }
};

}  // namespace metaprotocol
