#include "src/base/timer_wheel.h"

#include <algorithm>

namespace metaprotocol {

uint64_t TimerWheel::Arm(Timer& timer, uint64_t deadline_us) {
  timer.Unlink();
  deadline_us = std::min(deadline_us, kLatestUs);
  timer.deadline_us_ = deadline_us;
  const uint64_t tick = std::max(deadline_us / kTickUs, current_tick_);
  slots_[tick % kSlots].PushBack(timer);
  return (tick + 1) * kTickUs;
}

uint64_t TimerWheel::NextWakeUs() const {
  for (uint64_t i = 0; i < kSlots; ++i) {
    const uint64_t tick = current_tick_ + i;
    if (!slots_[tick % kSlots].empty()) return (tick + 1) * kTickUs;
  }
  return kNever;
}

}  // namespace metaprotocol
