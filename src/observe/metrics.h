// Every metric the engine keeps. A *series* is one set of labels (protocol, route, cluster); the
// engine counts in plain per-worker memory and hands differences to the host now and then, so that
// a request costs additions and nothing else.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "src/codec/codec.h"

namespace metaprotocol {

// Of what filters in libraries count by themselves (kFilterCounter, kFilterHistogram) the labels
// are protocol, filter and metric, in the same places.
struct SeriesLabels {
  std::string protocol;  // the proxy configuration's `name`
  std::string route;     // "-" where no route is involved
  std::string cluster;   // "-" where no cluster is involved
};

enum class Counter : uint8_t {
  kRequests,     // requests that expect a reply
  kOneWay,       // one-way messages forwarded
  kResponsesOk,  // replies delivered, by their own status
  kResponsesException,
  kResponsesError,
  kLateReplies,  // replies that came after their request had been answered or abandoned
  kUnsolicited,  // upstream messages that belong to no request
  kClientGone,   // requests whose client connection ended before the reply
  kRequestBytes,
  kResponseBytes,
  kDownstreamMalformed,   // client connections closed for bytes that are not the protocol
  kUpstreamMalformed,     // the same for upstream connections
  kDownstreamHeartbeats,  // answered on behalf of the server
  kUpstreamHeartbeats,    // answered on behalf of the client
  kDropped,               // well-formed messages of kinds that are not routed
  kReadPaused,            // times a session stopped being read
  kSessionsOpened,
  kSessionsRefused,    // over sessions_per_worker
  kSlowClientsClosed,  // sessions closed because replies were not read, or a message did not end
  kIdleSessionsClosed,
  kLeasesOpened,
  kLeasesFailed,    // could not be opened
  kLeasesLost,      // closed by the upstream while in use or idle
  kLeasesReleased,  // given back to Envoy's pool
  kLeasesReset,     // closed by us
  // Labels: the route, and the cluster that gets the copies. Copies are counted here only.
  kMirrorRequests,        // copies made
  kMirrorReplies,         // their replies, dropped
  kMirrorFailures,        // copies that could not be sent, or got no reply
  kMirrorSkipped,         // requests not copied because they were passed on as they arrived
  kLocalRateLimited,      // messages without a token left; also among the over-limit replies
  kLocalRateLimitShared,  // messages whose value had no token bucket of its own
  kConcurrencyLimited,    // requests refused because too many were under way; likewise
  kRateLimitCalls,        // requests that a rate limit service was asked about
  kRateLimitFailures,     // of these: without an answer
  kGlobalRateLimited,     // of these: refused; also among the over-limit replies
  kRetries,               // attempts after the first
  kRetrySuccesses,        // requests whose reply is that of a retry
  kRetriesOverBudget,     // not made, because too many of the cluster's requests were retries
  kRetriesNotKept,        // requests that could not be tried again, because too many were kept
  // Labels: the protocol and the cluster. Of all workers, by the one that has found it out.
  kOutlierEjections,      // hosts left out by the outlier detection
  kOutlierReturns,        // and back
  kFaultDelays,           // requests that a fault filter has made wait
  kFaultAborts,           // requests that a fault filter has failed; also among the fault replies
  kAuthorizationDenied,   // requests that an authorization filter has denied
  kAuthorizationAudited,  // requests that met a policy which only counts
  kExternalAuthorizationCalls,     // requests that an authorization service was asked about
  kExternalAuthorizationFailures,  // of these: without a verdict
  kExternalAuthorizationDenied,    // requests denied by its word, or for want of it
  // Labels: the protocol alone.
  kAccessLogEntries,  // lines for access logs
  kAccessLogLost,     // lines that were not written: too many waited, or the file failed
  kSpans,             // of requests that are traced
  kSpansLost,         // spans that have not arrived: too many waited, or the collector failed
  kFilterCounter,     // what a filter in a library counts
  // One per LocalReply follows, in its order: use LocalReplyCounter().
  kFirstLocalReply,
};
inline constexpr size_t kCounterCount =
    static_cast<size_t>(Counter::kFirstLocalReply) + kLocalReplyCount;

constexpr Counter LocalReplyCounter(LocalReply reply) {
  return static_cast<Counter>(static_cast<size_t>(Counter::kFirstLocalReply) +
                              static_cast<size_t>(reply));
}

enum class Gauge : uint8_t {
  kSessionsActive,
  kExchangesActive,  // requests waiting for their reply
  kLeasesActive,
};
inline constexpr size_t kGaugeCount = 3;

enum class Histogram : uint8_t {
  kRequestTimeUs,  // from when the request was routed (its head, if it is passed on) to the reply's
                   // head
  kFilterHistogram,  // what a filter in a library measures
};
inline constexpr size_t kHistogramCount = 2;

// "requests", "local_reply_no_route", ...: snake case, without prefix.
std::string CounterName(Counter counter);
std::string_view GaugeName(Gauge gauge);
std::string_view HistogramName(Histogram histogram);

}  // namespace metaprotocol
