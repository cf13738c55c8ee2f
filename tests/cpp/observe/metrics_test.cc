#include "src/observe/metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

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

}  // namespace
}  // namespace metaprotocol
