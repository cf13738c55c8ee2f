// The timer wheel: never early, at most one tick late, whatever is armed and cancelled meanwhile.
#include "src/base/timer_wheel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <random>
#include <vector>

#include "tests/cpp/support/cpu_time.h"

namespace metaprotocol {
namespace {

constexpr uint64_t kTick = TimerWheel::kTickUs;
constexpr uint64_t kRound = kTick * 4096;

struct Owned {
  Owned() : timer(Timer::Kind::kExchange, this) {}
  Timer timer;
  uint64_t deadline = 0;
  std::vector<uint64_t> fired;
};

// Advances in steps, as a host would that keeps its word within `lag`.
void AdvanceTo(TimerWheel& wheel, uint64_t& now, uint64_t end, uint64_t step) {
  while (now < end) {
    now = std::min(end, now + step);
    wheel.Advance(now, [&](Timer& timer) { timer.owner<Owned>().fired.push_back(now); });
  }
}

TEST(TimerWheel, FiresNeverEarlyAndAtMostOneTickLate) {
  std::mt19937_64 random(7);
  uint64_t now = 123456789;
  TimerWheel wheel(now);
  std::deque<Owned> timers(2000);
  for (Owned& owned : timers) {
    owned.deadline = now + random() % (4 * kRound);
    wheel.Arm(owned.timer, owned.deadline);
  }
  const uint64_t step = 100;
  AdvanceTo(wheel, now, now + kRound / 8, step);
  AdvanceTo(wheel, now, now + 4 * kRound + kTick, kTick / 2);
  for (const Owned& owned : timers) {
    ASSERT_EQ(owned.fired.size(), 1u);
    EXPECT_GE(owned.fired[0], owned.deadline);
    EXPECT_LE(owned.fired[0], owned.deadline + kTick + kTick / 2);
  }
}

TEST(TimerWheel, AdvancedWhenItWantsToBeItFiresInTimeWithoutManyWakes) {
  std::mt19937_64 random(8);
  uint64_t now = 1;
  TimerWheel wheel(now);
  std::deque<Owned> timers(50);
  for (Owned& owned : timers) {
    owned.deadline = now + random() % (3 * kRound);
    wheel.Arm(owned.timer, owned.deadline);
  }
  size_t wakes = 0;
  while (wheel.NextWakeUs() != TimerWheel::kNever) {
    ASSERT_GT(wheel.NextWakeUs(), now);
    now = wheel.NextWakeUs();
    wheel.Advance(now, [&](Timer& timer) { timer.owner<Owned>().fired.push_back(now); });
    ASSERT_LT(++wakes, 400u);
  }
  for (const Owned& owned : timers) {
    ASSERT_EQ(owned.fired.size(), 1u);
    EXPECT_GE(owned.fired[0], owned.deadline);
    EXPECT_LE(owned.fired[0], owned.deadline + kTick);
  }
}

TEST(TimerWheel, ArmSaysWhenToAdvance) {
  TimerWheel wheel(0);
  Owned owned;
  const uint64_t wake = wheel.Arm(owned.timer, 10 * kTick + 5);
  EXPECT_GE(wake, 10 * kTick + 5);
  EXPECT_LE(wake, 11 * kTick + 5);
  size_t fired = 0;
  wheel.Advance(wake - 1, [&](Timer&) { ++fired; });
  EXPECT_EQ(fired, 0u);
  wheel.Advance(wake, [&](Timer&) { ++fired; });
  EXPECT_EQ(fired, 1u);
}

TEST(TimerWheel, DeadlineInThePastFiresAtTheNextTick) {
  uint64_t now = 100 * kTick;
  TimerWheel wheel(now);
  wheel.Advance(now, [](Timer&) {});
  Owned owned;
  EXPECT_LE(wheel.Arm(owned.timer, 5), now + kTick);
  AdvanceTo(wheel, now, now + kTick, kTick);
  EXPECT_EQ(owned.fired.size(), 1u);
}

TEST(TimerWheel, SurvivesALongPause) {
  uint64_t now = 0;
  TimerWheel wheel(now);
  Owned soon;
  Owned late;
  wheel.Arm(soon.timer, 3 * kTick);
  wheel.Arm(late.timer, 50 * kRound);
  now = 40 * kRound;
  wheel.Advance(now, [&](Timer& timer) { timer.owner<Owned>().fired.push_back(now); });
  EXPECT_EQ(soon.fired.size(), 1u);
  EXPECT_EQ(late.fired.size(), 0u);
  Owned next;
  wheel.Arm(next.timer, now + 2 * kTick);
  AdvanceTo(wheel, now, 51 * kRound, kTick);
  EXPECT_EQ(next.fired.size(), 1u);
  EXPECT_EQ(late.fired.size(), 1u);
}

TEST(TimerWheel, FarthestDeadlinesDoNotOverflow) {
  TimerWheel wheel(1);
  Owned owned;
  EXPECT_GT(wheel.Arm(owned.timer, TimerWheel::kNever - 1), uint64_t{1} << 60);
  size_t fired = 0;
  wheel.Advance(kRound * 3, [&](Timer&) { ++fired; });
  EXPECT_EQ(fired, 0u);
  EXPECT_TRUE(owned.timer.armed());
}

TEST(TimerWheel, CancelledAndRearmedTimersFireOnceOrNever) {
  TimerWheel wheel(0);
  Owned cancelled;
  Owned moved;
  wheel.Arm(cancelled.timer, 3 * kTick);
  wheel.Arm(moved.timer, 3 * kTick);
  cancelled.timer.Cancel();
  wheel.Arm(moved.timer, 9 * kTick);
  uint64_t now = 0;
  AdvanceTo(wheel, now, 20 * kTick, kTick);
  EXPECT_TRUE(cancelled.fired.empty());
  ASSERT_EQ(moved.fired.size(), 1u);
  EXPECT_GE(moved.fired[0], 9 * kTick);
}

TEST(TimerWheel, TimersMayBeCancelledArmedAndDestroyedWhileOthersFire) {
  TimerWheel wheel(0);
  std::deque<Owned> timers(10);
  auto doomed = std::make_unique<Owned>();
  for (Owned& owned : timers) wheel.Arm(owned.timer, 2 * kTick);
  wheel.Arm(doomed->timer, 2 * kTick);
  size_t fired = 0;
  Owned late;
  wheel.Advance(5 * kTick, [&](Timer& timer) {
    EXPECT_FALSE(timer.armed());
    if (++fired == 1) {
      doomed.reset();
      for (size_t i = 3; i < 10; ++i) timers[i].timer.Cancel();
      wheel.Arm(timers[1].timer, 8 * kTick);  // due now, but put off
      wheel.Arm(late.timer, 0);               // not before the next tick
    }
  });
  EXPECT_EQ(fired, 2u);
  uint64_t now = 5 * kTick;
  AdvanceTo(wheel, now, 20 * kTick, kTick);
  EXPECT_EQ(timers[1].fired.size(), 1u);
  EXPECT_EQ(late.fired.size(), 1u);
  EXPECT_EQ(wheel.NextWakeUs(), TimerWheel::kNever);
}

TEST(TimerWheel, TimerThatIsRearmedEachTimeFiresOncePerTickAtMost) {
  TimerWheel wheel(0);
  Owned owned;
  wheel.Arm(owned.timer, 0);
  size_t fired = 0;
  wheel.Advance(kTick * 10, [&](Timer& timer) {
    ++fired;
    wheel.Arm(timer, 0);
  });
  EXPECT_EQ(fired, 1u) << "no endless loop within one call";
}

TEST(TimerWheel, FindingAFarTimerCostsLittleMoreThanFindingANearOne) {
  TimerWheel wheel(0);
  Owned owned;
  const auto cost = [&](uint64_t deadline) {
    wheel.Arm(owned.timer, deadline);
    return test::LeastCpuNs(5, [&] {
      for (int i = 0; i < 1000; ++i) EXPECT_EQ(wheel.NextWakeUs(), deadline + kTick);
    });
  };
  const double near = cost(10 * kTick);
  EXPECT_LT(cost(kRound - 10 * kTick), 100 * near)
      << "a walk over the slots takes 400 times as long";
}

TEST(TimerWheel, AgreesWithASortedMap) {
  std::mt19937_64 random(99);
  for (int run = 0; run < 20; ++run) {
    uint64_t now = random() % (10 * kRound);
    TimerWheel wheel(now);
    std::deque<Owned> timers(40);
    for (int step = 0; step < 2000; ++step) {
      Owned& owned = timers[random() % timers.size()];
      switch (random() % 4) {
        case 0:
          owned.timer.Cancel();
          break;
        case 1:
        case 2:
          owned.deadline = now + random() % (random() % 8 == 0 ? 3 * kRound : 20 * kTick);
          wheel.Arm(owned.timer, owned.deadline);
          break;
        default:
          now += random() % (random() % 16 == 0 ? 2 * kRound : 4 * kTick);
          wheel.Advance(
              now, [&](Timer& timer) { EXPECT_LE(timer.owner<Owned>().deadline, now) << "early"; });
          uint64_t first_due = TimerWheel::kNever;
          for (const Owned& each : timers) {
            if (!each.timer.armed()) continue;
            EXPECT_GT(each.deadline + kTick, now) << "late";
            first_due = std::min(first_due, (each.deadline / kTick + 1) * kTick);
          }
          // Timers of later rounds wake it early, but at most once a round.
          const uint64_t wake = wheel.NextWakeUs();
          EXPECT_GT(wake, now);
          EXPECT_LE(wake, first_due);
          EXPECT_EQ(wake == TimerWheel::kNever, first_due == TimerWheel::kNever);
      }
    }
  }
}

}  // namespace
}  // namespace metaprotocol
