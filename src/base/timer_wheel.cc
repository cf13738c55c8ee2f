#include "src/base/timer_wheel.h"

#include <bit>

namespace metaprotocol {

uint64_t TimerWheel::NextWakeUs() {
  const uint64_t here = current_tick_ % kSlots;
  const uint64_t round = current_tick_ - here;
  if (const auto slot = FirstUsedSlot(here, kSlots)) return (round + *slot + 1) * kTickUs;
  if (const auto slot = FirstUsedSlot(0, here)) return (round + kSlots + *slot + 1) * kTickUs;
  return kNever;
}

// Of those from `begin` to before `end`.
std::optional<uint64_t> TimerWheel::FirstUsedSlot(uint64_t begin, uint64_t end) {
  for (uint64_t slot = begin; slot < end;) {
    uint64_t& word = used_[slot / kSlotsPerWord];
    const uint64_t rest = word >> slot % kSlotsPerWord;
    if (rest == 0) {
      slot = (slot / kSlotsPerWord + 1) * kSlotsPerWord;
      continue;
    }
    slot += static_cast<uint64_t>(std::countr_zero(rest));
    if (slot >= end) break;
    if (!slots_[slot].empty()) return slot;
    word &= ~(uint64_t{1} << slot % kSlotsPerWord);
  }
  return std::nullopt;
}

}  // namespace metaprotocol
