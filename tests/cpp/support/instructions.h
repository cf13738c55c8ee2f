// Instructions that a piece of work takes: the same number on every run, whatever else the machine
// does. For comparisons of two ways to do the same; what an instruction costs is another question.
#pragma once

#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <optional>

namespace metaprotocol::test {

// Of one run of `work` in a child process that is stepped through; it must have no effects that
// matter. Nothing where processes may not be traced.
template <class Work>
std::optional<uint64_t> InstructionsOf(Work work) {
  const pid_t child = fork();
  if (child < 0) return std::nullopt;
  if (child == 0) {
    if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(1);
    raise(SIGSTOP);
    work();
    raise(SIGSTOP);
    _exit(0);
  }
  uint64_t steps = 0;
  int status = 0;
  const auto stopped_by = [&](int signal) {
    return waitpid(child, &status, 0) == child && WIFSTOPPED(status) && WSTOPSIG(status) == signal;
  };
  bool done = false;
  if (stopped_by(SIGSTOP)) {
    while (ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr) == 0 && stopped_by(SIGTRAP)) ++steps;
    done = WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP;
  }
  if (WIFSTOPPED(status)) {
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
  }
  if (!done) return std::nullopt;
  return steps;
}

// Of each time that `work(n)` does something, once what happens only at first is over.
template <class Work>
std::optional<double> InstructionsOfEach(Work work) {
  constexpr uint64_t kFew = 1;
  constexpr uint64_t kMany = 3;
  work(kFew);
  const auto few = InstructionsOf([&] { work(kFew); });
  const auto many = InstructionsOf([&] { work(kMany); });
  if (!few || !many) return std::nullopt;
  return static_cast<double>(*many - *few) / static_cast<double>(kMany - kFew);
}

}  // namespace metaprotocol::test
