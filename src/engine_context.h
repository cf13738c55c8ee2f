// What the parts of one engine share: the host, the time, timers, metrics, randomness.
#pragma once

#include <algorithm>
#include <cstdint>

#include "src/base/random_stream.h"
#include "src/base/timer_wheel.h"
#include "src/host/host.h"
#include "src/observe/metrics_book.h"

namespace metaprotocol {

class EngineContext {
 public:
  explicit EngineContext(Host& host)
      : host(host), metrics(host), now_us_(host.NowUs()), wheel_(now_us_), random_(host.Random()) {}

  Host& host;
  MetricsBook metrics;

  // The time when the present event began: one clock reading serves everything it causes.
  uint64_t now_us() const { return now_us_; }
  void ReadClock() { now_us_ = host.NowUs(); }

  // A timer in the past fires at the next tick.
  void Arm(Timer& timer, uint64_t deadline_us) {
    const uint64_t wake = wheel_.Arm(timer, std::max(deadline_us, now_us_));
    if (wake < wake_us_) {
      wake_us_ = wake;
      host.SetTimer(wake);
    }
  }
  // Engine::Tick as soon as the host has served everybody else who is ready.
  void TickSoon() {
    if (wake_us_ <= now_us_ + 1) return;
    wake_us_ = now_us_ + 1;
    host.SetTimer(wake_us_);
  }
  template <typename F>
  void AdvanceTimers(F&& fire) {
    wheel_.Advance(now_us_, fire);
    wake_us_ = wheel_.NextWakeUs();
    host.SetTimer(wake_us_);
  }

  uint64_t Random() { return random_.Next(); }

  // A name for a question to another service.
  CallId NewCall() { return ++last_call_; }

 private:
  uint64_t now_us_;
  TimerWheel wheel_;
  uint64_t wake_us_ = TimerWheel::kNever;  // what the host was last asked for
  RandomStream random_;
  CallId last_call_ = 0;
};

}  // namespace metaprotocol
