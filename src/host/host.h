// The host interface: all that the engine wants from the world it runs in. Envoy implements it in
// envoy_ext/, tests implement it with a simulated world.
//
// One Host serves one Engine, on one thread. The engine calls the host from within its own entry
// points only (see src/engine.h), so an implementation may rely on that call stack, and must cope
// with being called while it is itself calling the engine. What it may call meanwhile stands beside
// each method, but for changes of clusters, which may come within any. No call throws.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/codec/bytes.h"
#include "src/host/log_sink.h"
#include "src/observe/metrics.h"
#include "src/observe/request_series.h"

namespace metaprotocol {

// The host's own name for a session's connection: passed to Engine::OpenSession, handed back here.
using SessionHandle = void*;
// The host's own name for a lease's upstream connection: passed to Engine::LeaseReady.
using LeaseHandle = void*;
// The engine's name for a lease: unique within the engine for all time, never 0.
using LeaseId = uint64_t;
// The engine's name for a question to another service; likewise.
using CallId = uint64_t;

// What is known of a client connection besides its bytes.
struct ConnectionInfo {
  std::string remote_address;  // "10.0.0.9"
  uint32_t remote_port = 0;
  std::string local_address;  // "10.0.0.1": where the client connected to
  uint32_t local_port = 0;
  // TLS only.
  std::string sni;
  std::string peer_subject;
  std::vector<std::string> peer_uri_sans;
  std::vector<std::string> peer_dns_sans;
};

enum class LeaseCloseReason : uint8_t {
  kConnectFailed,  // never became ready: refused, timed out, TLS failure
  kNoHost,         // never became ready: the cluster had no host for it
  kNoCluster,      // never became ready: there is no such cluster
  kOverflow,       // never became ready: the cluster's circuit breaker is open
  kRemoteClose,    // the server closed it
  kLocalClose,     // our side closed it: cluster removed, host removed, worker shutting down
};

enum class CloseMode : uint8_t {
  kFlush,  // deliver what was written, then close
  kAbort,  // close at once
};

enum class LogLevel : uint8_t { kTrace, kDebug, kInfo, kWarn, kError };

class Host {
 public:
  virtual ~Host() = default;

  // --- sessions (downstream connections)
  // Queues bytes towards the client; `bytes` is copied, and never empty. Any number of times,
  // between Engine::OpenSession and CloseSession or SessionClosed. May call: SessionWriteBufferFull
  // and SessionClosed of that session.
  virtual void WriteSession(SessionHandle session, Bytes bytes) = 0;
  // Once at most. The engine has forgotten the session when it calls this; no further event of it
  // is wanted, and no call about it follows. Not after SessionClosed.
  virtual void CloseSession(SessionHandle session, CloseMode mode) = 0;
  // Stop or resume delivering bytes from the client. Calls alternate, beginning with `true`. May
  // call: SessionClosed of that session. Bytes that have come meanwhile are delivered after this
  // returns.
  virtual void PauseSession(SessionHandle session, bool paused) = 0;

  // --- leases (upstream connections)
  // Asks for a connection to `host_address` ("10.0.0.1:20880") of `cluster`; once for each `lease`.
  // Answered by Engine::LeaseReady or Engine::LeaseClosed, unless ResetLease comes first. May call:
  // both. An empty address leaves the choice of the host to the cluster's own load balancer.
  virtual void OpenLease(LeaseId lease, std::string_view cluster,
                         std::string_view host_address) = 0;
  // Queues bytes towards the server; `bytes` is copied, and never empty. Any number of times,
  // between LeaseReady and LeaseClosed, ReleaseLease or ResetLease.
  virtual void WriteLease(LeaseHandle lease, Bytes bytes) = 0;
  // Asks to be told, by one Engine::LeaseDrained not before this returns, when what was written to
  // the lease so far has gone to the kernel, but for about as much as the host's own write buffer
  // holds in any case (Envoy: 1 MiB unless the cluster says otherwise). The answer comes soon where
  // the server reads, and when it does where it does not. Not again before the answer.
  virtual void ProbeLease(LeaseHandle lease) = 0;
  // Stop or resume reading from the server, soon: bytes that are on their way still come. Calls
  // alternate, beginning with `true`. It costs as much as passing on 64 KiB, so it is for replies
  // that somebody does not take, not for each one.
  virtual void PauseLease(LeaseHandle lease, bool paused) = 0;
  // The connection is quiet and clean: back to the pool it came from, open. Once at most, after
  // LeaseReady; the engine has forgotten the lease, and ignores events of it.
  virtual void ReleaseLease(LeaseId lease) = 0;
  // Close the connection, or give up opening it. Once at most; as ReleaseLease.
  virtual void ResetLease(LeaseId lease) = 0;

  // --- questions to other services
  // Calls the unary gRPC method `path` ("/package.Service/Method") in `cluster`. For that session:
  // the call need not outlive it. For none (null): it goes on whoever leaves. Answered by one
  // Engine::CallDone, not before this returns, and within about `timeout_us`. `message` is copied.
  virtual void StartCall(CallId call, SessionHandle session, std::string_view cluster,
                         std::string_view path, Bytes message, uint64_t timeout_us) = 0;

  // --- time
  // Monotonic, microseconds. Once for each event.
  virtual uint64_t NowUs() = 0;
  static constexpr uint64_t kNoTimer = std::numeric_limits<uint64_t>::max();
  // Engine::Tick wanted once, at `at_us` or soon after. Replaces the wish before; kNoTimer: none.
  virtual void SetTimer(uint64_t at_us) = 0;

  // All that happens in one turn of the host's loop of events keeps everybody else waiting. The
  // number of the present turn: it may be the former one's for a few more events, never the next
  // one's. A host that has no such loop has a turn for each question.
  virtual uint64_t Turn() { return ++turn_; }
  // Whether what goes to servers may gather, because more events come in the present turn: then
  // the host calls Engine::WriteGathered when that is over.
  virtual bool Gathers() { return false; }

  // Microseconds since 1970, for people. 0 where there is no calendar.
  virtual uint64_t UnixTimeUs() { return 0; }

  // --- the rest
  virtual uint64_t Random() = 0;
  virtual bool LogEnabled(LogLevel level) = 0;
  virtual void Log(LogLevel level, std::string_view text) = 0;

  // What is written to the file of that name, by all that have it open; "/dev/stdout" and
  // "/dev/stderr" are the process's own. Null: there are no such files here.
  virtual std::shared_ptr<LogSink> OpenLog(std::string_view /*path*/) { return nullptr; }

  // --- metrics
  // All from Engine::FlushMetrics and Tick, about once a second. `series` is the engine's number
  // for a set of labels, dense from 0; announced once, before any value of it.
  virtual void DefineSeries(uint32_t series, const SeriesLabels& labels) = 0;
  virtual void AddCounter(uint32_t series, Counter counter, uint64_t delta) = 0;
  virtual void AddGauge(uint32_t series, Gauge gauge, int64_t delta) = 0;
  virtual void RecordHistogram(uint32_t series, Histogram histogram,
                               std::span<const uint64_t> values) = 0;
  // The same for series of requests, which are numbered by themselves; samples may be put in
  // another order. For whoever has no use for them nothing happens.
  virtual void DefineRequestSeries(uint32_t /*series*/, const RequestSeriesLabels& /*labels*/) {}
  virtual void RecordRequests(std::span<RequestSample> /*samples*/) {}
  // Whom this proxy stands beside. Stays as it is.
  virtual const Workload& OwnWorkload() {
    static const Workload kUnknown;
    return kUnknown;
  }

 private:
  uint64_t turn_ = 0;
};

}  // namespace metaprotocol
