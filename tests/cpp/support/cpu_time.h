// Processor time of the calling thread, for tests that compare costs: unlike time on the wall it
// does not grow when others use the processor.
#pragma once

#include <time.h>

#include <algorithm>
#include <limits>

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

}  // namespace metaprotocol::test
