// A host in which nothing moves by itself, for tests that count what the engine takes.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "src/host/host.h"

namespace metaprotocol::test {

// Keeps nothing but the beginning of what was written.
class ForgetfulHost final : public Host {
 public:
  LeaseId opened = 0;
  bool probed = false;
  std::string head;
  size_t to_clients = 0;

  void WriteSession(SessionHandle, Bytes bytes) override { to_clients += bytes.size(); }
  void CloseSession(SessionHandle, CloseMode) override {}
  void PauseSession(SessionHandle, bool) override {}
  void OpenLease(LeaseId lease, std::string_view, std::string_view) override { opened = lease; }
  void WriteLease(LeaseHandle, Bytes bytes) override {
    if (head.empty()) head.assign(bytes.substr(0, 13));
  }
  void ProbeLease(LeaseHandle) override { probed = true; }
  void PauseLease(LeaseHandle, bool) override {}
  void ReleaseLease(LeaseId) override {}
  void ResetLease(LeaseId) override {}
  void StartCall(CallId, SessionHandle, std::string_view, std::string_view, Bytes,
                 uint64_t) override {}
  uint64_t NowUs() override { return 1; }
  void SetTimer(uint64_t) override {}
  uint64_t Random() override { return 7; }
  bool LogEnabled(LogLevel) override { return false; }
  void Log(LogLevel, std::string_view) override {}
  void DefineSeries(uint32_t, const SeriesLabels&) override {}
  void AddCounter(uint32_t, Counter, uint64_t) override {}
  void AddGauge(uint32_t, Gauge, int64_t) override {}
  void RecordHistogram(uint32_t, Histogram, std::span<const uint64_t>) override {}
};

}  // namespace metaprotocol::test
