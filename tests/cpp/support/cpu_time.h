// Processor time of the calling thread, for tests that compare costs: unlike time on the wall it
// does not grow when others use the processor.
#pragma once

#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <limits>
#include <thread>

namespace metaprotocol::test {

inline double ThreadCpuNs() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

// The least that `work` took in `attempts` runs, in nanoseconds.
template <class Work>
double LeastCpuNs(int attempts, Work work) {
  double least = std::numeric_limits<double>::max();
  for (int attempt = 0; attempt < attempts; ++attempt) {
    const double start = ThreadCpuNs();
    work();
    least = std::min(least, ThreadCpuNs() - start);
  }
  return least;
}

// What GrowthOfUnitCost stays below if the cost is linear: caches that no longer hold everything
// make up to twice of it.
inline constexpr double kLinear = 4;

// How many times as much each unit costs when there are 16 times as many: about 1 where the cost is
// linear, about 16 where it is quadratic. `make(n)` returns the work on n units, ready to run. Both
// sizes are measured in turns, so that a machine that becomes slower meanwhile is so for both, and
// no bound depends on how fast a machine or a build is.
//
// Others on the same processor can make one of the two look dear, even in processor time: they take
// its caches and its other thread. That passes, while a cost that is not linear does not. So what
// looks linear is believed after three turns, and anything else only after it has looked so for
// seconds, with pauses in which whoever disturbs can finish.
template <class Make>
double GrowthOfUnitCost(size_t few, Make make) {
  constexpr size_t kTimes = 16;
  constexpr int kTurns = 3;
  constexpr int kTurnsIfNotLinear = 60;
  const auto of_few = make(few);
  const auto of_many = make(kTimes * few);
  double least_of_few = std::numeric_limits<double>::max();
  double least_of_many = std::numeric_limits<double>::max();
  double growth = 0;
  for (int turn = 0; turn < kTurnsIfNotLinear; ++turn) {
    // A small work is measured more often: one interruption weighs more there.
    least_of_few = std::min(least_of_few, LeastCpuNs(4, of_few));
    least_of_many = std::min(least_of_many, LeastCpuNs(1, of_many));
    growth = least_of_many / (kTimes * least_of_few);
    if (turn + 1 < kTurns) continue;
    if (growth < kLinear) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return growth;
}

}  // namespace metaprotocol::test
