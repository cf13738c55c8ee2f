// How much processor time each turn of Envoy's event loops takes, from one epoll_wait to the next,
// for bench/scale.py. To be loaded into Envoy with LD_PRELOAD.
//
// Envoy's own clock of its loop counts time: where others want the processor too, its longest turn
// is the longest that somebody else had it. This one counts what the thread has used.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

namespace {

// What is written: for each number of microseconds how many turns took so long, as 64-bit numbers
// of this machine's byte order. The last one has all that took longer.
constexpr size_t kBuckets = 100'000;
constexpr size_t kBytes = kBuckets * sizeof(uint64_t);

// The file that METAPROTOCOL_TURN_CLOCK names; null: there is none.
uint64_t* OpenBuckets() {
  const char* const path = std::getenv("METAPROTOCOL_TURN_CLOCK");
  if (path == nullptr) return nullptr;
  const int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0 || ftruncate(file, kBytes) != 0) return nullptr;
  void* const mapped = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  return mapped == MAP_FAILED ? nullptr : static_cast<uint64_t*>(mapped);
}

uint64_t* const buckets = OpenBuckets();

// Of the calling thread, if it is a worker.
class TurnClock {
 public:
  void End() {
    if (!known_) Know();
    if (!worker_ || began_ns_ == 0) return;
    const size_t us = (UsedNs() - began_ns_) / 1000;
    ++buckets[std::min(us, kBuckets - 1)];  // Envoy is started with one worker
  }
  void Begin() {
    if (worker_) began_ns_ = UsedNs();
  }

 private:
  // At a thread's first wait: it has its name by then.
  void Know() {
    char name[16] = {};
    prctl(PR_GET_NAME, name);
    worker_ = buckets != nullptr && std::string_view(name).starts_with("wrk:");
    known_ = true;
  }
  static uint64_t UsedNs() {
    timespec used{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return static_cast<uint64_t>(used.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(used.tv_nsec);
  }

  bool known_ = false;
  bool worker_ = false;
  uint64_t began_ns_ = 0;
};

thread_local TurnClock turn_clock;

}  // namespace

extern "C" [[gnu::visibility("default")]] int epoll_wait(int epoll, epoll_event* events, int most,
                                                         int timeout) {
  static const auto wait = reinterpret_cast<decltype(&epoll_wait)>(dlsym(RTLD_NEXT, "epoll_wait"));
  turn_clock.End();
  const int ready = wait(epoll, events, most, timeout);
  turn_clock.Begin();
  return ready;
}
