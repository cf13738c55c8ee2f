#include "src/observe/metrics.h"

namespace metaprotocol {
namespace {

constexpr std::array<std::string_view, static_cast<size_t>(Counter::kFirstLocalReply)>
    kCounterNames = {
        "requests",
        "one_way",
        "responses_ok",
        "responses_exception",
        "responses_error",
        "late_replies",
        "unsolicited",
        "client_gone",
        "request_bytes",
        "response_bytes",
        "downstream_malformed",
        "upstream_malformed",
        "downstream_heartbeats",
        "upstream_heartbeats",
        "dropped",
        "read_paused",
        "sessions_opened",
        "sessions_refused",
        "slow_clients_closed",
        "idle_sessions_closed",
        "leases_opened",
        "leases_failed",
        "leases_lost",
        "leases_released",
        "leases_reset",
        "mirror_requests",
        "mirror_replies",
        "mirror_failures",
        "mirror_skipped",
        "local_rate_limited",
        "local_rate_limit_shared",
        "concurrency_limited",
        "rate_limit_calls",
        "rate_limit_failures",
        "global_rate_limited",
        "retries",
        "retry_successes",
        "retries_over_budget",
        "retries_not_kept",
        "outlier_ejections",
        "outlier_returns",
        "fault_delays",
        "fault_aborts",
        "authorization_denied",
        "authorization_audited",
        "external_authorization_calls",
        "external_authorization_failures",
        "external_authorization_denied",
        "access_log_entries",
        "access_log_lost",
        "spans",
        "spans_lost",
        "filter_counter",
};

constexpr std::array<std::string_view, kGaugeCount> kGaugeNames = {
    "sessions_active",
    "exchanges_active",
    "leases_active",
};

constexpr std::array<std::string_view, kHistogramCount> kHistogramNames = {"request_time_us",
                                                                           "filter_histogram"};

// A forgotten name would leave the last one empty.
static_assert(!kCounterNames.back().empty() && !kGaugeNames.back().empty() &&
              !kHistogramNames.back().empty());

}  // namespace

std::string CounterName(Counter counter) {
  const auto index = static_cast<size_t>(counter);
  if (index < kCounterNames.size()) return std::string(kCounterNames[index]);
  const auto reply = static_cast<LocalReply>(index - kCounterNames.size());
  return "local_reply_" + std::string(LocalReplyName(reply));
}

std::string_view GaugeName(Gauge gauge) { return kGaugeNames[static_cast<size_t>(gauge)]; }

std::string_view HistogramName(Histogram histogram) {
  return kHistogramNames[static_cast<size_t>(histogram)];
}

}  // namespace metaprotocol
