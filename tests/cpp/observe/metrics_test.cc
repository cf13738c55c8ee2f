#include "src/observe/metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <span>
#include <string>
#include <string_view>

#include "src/host/host.h"
#include "src/observe/metrics_book.h"

namespace metaprotocol {
namespace {

bool IsSnakeCase(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(),
                                      [](char c) { return (c >= 'a' && c <= 'z') || c == '_'; });
}

TEST(Metrics, EveryMetricHasANameOfItsOwn) {
  std::set<std::string> names;
  for (size_t i = 0; i < kCounterCount; ++i) names.insert(CounterName(static_cast<Counter>(i)));
  for (size_t i = 0; i < kGaugeCount; ++i) names.emplace(GaugeName(static_cast<Gauge>(i)));
  for (size_t i = 0; i < kHistogramCount; ++i) {
    names.emplace(HistogramName(static_cast<Histogram>(i)));
  }
  EXPECT_EQ(names.size(), kCounterCount + kGaugeCount + kHistogramCount);
  for (const std::string& name : names) EXPECT_TRUE(IsSnakeCase(name)) << name;
}

TEST(Metrics, CountersAreNamedAsTheirEnumeratorsSay) {
  EXPECT_EQ(CounterName(Counter::kRequests), "requests");
  EXPECT_EQ(CounterName(Counter::kClientGone), "client_gone");
  EXPECT_EQ(CounterName(Counter::kReadPaused), "read_paused");
  EXPECT_EQ(CounterName(Counter::kSessionsOpened), "sessions_opened");
  EXPECT_EQ(CounterName(Counter::kLeasesReset), "leases_reset");
  EXPECT_EQ(CounterName(LocalReplyCounter(LocalReply::kNoContent)), "local_reply_no_content");
  EXPECT_EQ(CounterName(LocalReplyCounter(LocalReply::kShuttingDown)), "local_reply_shutting_down");
  EXPECT_EQ(GaugeName(Gauge::kLeasesActive), "leases_active");
  EXPECT_EQ(HistogramName(Histogram::kRequestTimeUs), "request_time_us");
}

// Counts what is handed over, and in what portions.
class CountingHost final : public Host {
 public:
  void WriteSession(SessionHandle, Bytes) override {}
  void CloseSession(SessionHandle, CloseMode) override {}
  void PauseSession(SessionHandle, bool) override {}
  void OpenLease(LeaseId, std::string_view, std::string_view) override {}
  void WriteLease(LeaseHandle, Bytes) override {}
  void ProbeLease(LeaseHandle) override {}
  void PauseLease(LeaseHandle, bool) override {}
  void ReleaseLease(LeaseId) override {}
  void ResetLease(LeaseId) override {}
  void StartCall(CallId, SessionHandle, std::string_view, std::string_view, Bytes,
                 uint64_t) override {}
  uint64_t NowUs() override { return 0; }
  void SetTimer(uint64_t) override {}
  uint64_t Random() override { return 0; }
  bool LogEnabled(LogLevel) override { return false; }
  void Log(LogLevel, std::string_view) override {}
  void DefineSeries(uint32_t, const SeriesLabels&) override {}
  void AddCounter(uint32_t, Counter, uint64_t) override {}
  void AddGauge(uint32_t, Gauge, int64_t) override {}
  void RecordHistogram(uint32_t, Histogram, std::span<const uint64_t> values) override {
    recorded += values.size();
    largest = std::max(largest, values.size());
  }

  size_t recorded = 0;
  size_t largest = 0;
};

TEST(MetricsBook, ManyValuesAreHandedOverAsTheyComeAndNotAllAtOnce) {
  CountingHost host;
  MetricsBook book(host);
  Series& series = book.Get("dubbo", "route", "cluster");
  for (uint64_t i = 0; i < 100'000; ++i) series.Record(Histogram::kRequestTimeUs, i);
  EXPECT_GT(host.recorded, 99'000u);
  book.Flush();
  EXPECT_EQ(host.recorded, 100'000u);
  EXPECT_LE(host.largest, 256u) << "some ten microseconds of one worker's time";
}

}  // namespace
}  // namespace metaprotocol
