// A hashed timer wheel: arming and cancelling cost a few instructions, however many timers there
// are, because nearly all of them (request timeouts) are cancelled before they fire.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <optional>

#include "src/base/intrusive_list.h"

namespace metaprotocol {

struct TimerLink : ListLink {};

// Something that wants to be told when its time has come. Owned by whoever it is a member of;
// destroying it cancels it.
class Timer : public TimerLink {
 public:
  enum class Kind : uint8_t { kExchange, kExchangeStep, kMirror, kSession, kLease, kMetrics };

  Timer(Kind kind, void* owner) : kind_(kind), owner_(owner) {}
  ~Timer() { Cancel(); }

  Kind kind() const { return kind_; }
  template <typename T>
  T& owner() const {
    return *static_cast<T*>(owner_);
  }
  bool armed() const { return linked(); }
  uint64_t deadline_us() const { return deadline_us_; }
  void Cancel() { Unlink(); }

 private:
  friend class TimerWheel;
  Kind kind_;
  void* owner_;
  uint64_t deadline_us_ = 0;
};

// Times are microseconds of one monotonic clock. A timer fires up to one tick late, never early.
class TimerWheel {
 public:
  static constexpr uint64_t kTickUs = 4096;
  static constexpr uint64_t kNever = std::numeric_limits<uint64_t>::max();
  static constexpr uint64_t kLatestUs = kNever / 2;  // later deadlines are taken for this one

  explicit TimerWheel(uint64_t now_us) : current_tick_(now_us / kTickUs) {}

  // (Re)arms the timer; returns when the wheel wants to be advanced for it.
  uint64_t Arm(Timer& timer, uint64_t deadline_us) {
    timer.Unlink();
    deadline_us = std::min(deadline_us, kLatestUs);
    timer.deadline_us_ = deadline_us;
    const uint64_t tick = std::max(deadline_us / kTickUs, current_tick_);
    const uint64_t slot = tick % kSlots;
    slots_[slot].PushBack(timer);
    used_[slot / kSlotsPerWord] |= uint64_t{1} << slot % kSlotsPerWord;
    return (tick + 1) * kTickUs;
  }

  // Calls fire(Timer&) for every timer whose deadline has passed; it is disarmed before. `fire` may
  // arm and cancel any timer.
  template <typename F>
  void Advance(uint64_t now_us, F&& fire) {
    const uint64_t now_tick = now_us / kTickUs;
    // One round visits every slot; more than that would visit them again for nothing.
    if (now_tick - current_tick_ > kSlots) current_tick_ = now_tick - kSlots;
    IntrusiveList<Timer, TimerLink> due;
    while (current_tick_ < now_tick) {
      auto& slot = slots_[current_tick_ % kSlots];
      ++current_tick_;
      slot.ForEach([&](Timer& timer) {
        if (timer.deadline_us_ > now_us) return;  // of a later round
        timer.Unlink();
        due.PushBack(timer);
      });
    }
    while (!due.empty()) {
      Timer& timer = due.front();
      timer.Unlink();
      fire(timer);
    }
  }

  // When the next Advance can find something: kNever if nothing is armed. Costs as much as there
  // are 64 slots in a round, at most: wheels often hold nothing but far timers.
  uint64_t NextWakeUs();

 private:
  static constexpr uint64_t kSlots = 4096;  // one round is about 17 s
  static constexpr uint64_t kSlotsPerWord = 64;
  static constexpr uint64_t kWords = kSlots / kSlotsPerWord;

  std::optional<uint64_t> FirstUsedSlot(uint64_t begin, uint64_t end);

  // A timer sits in the slot of the tick its deadline falls into; the slot is due when that tick
  // has passed completely.
  std::array<IntrusiveList<Timer, TimerLink>, kSlots> slots_;
  // A bit for each slot; 0: it is empty. Timers that are cancelled leave theirs, until somebody
  // comes by.
  std::array<uint64_t, kWords> used_{};
  uint64_t current_tick_;  // the first tick not yet visited
};

}  // namespace metaprotocol
