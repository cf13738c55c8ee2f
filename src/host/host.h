// The host interface: all that the engine wants from the world it runs in. Envoy implements it in
// envoy_ext/, tests implement it with a simulated world.
//
// One Host serves one Engine, on one thread. The engine calls the host from within its own entry
// points only (see src/engine.h), so an implementation may rely on that call stack, and must cope
// with being called while it is itself calling the engine.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

#include "src/codec/bytes.h"
#include "src/observe/metrics.h"

namespace metaprotocol {

// The host's own name for a session's connection: passed to Engine::OpenSession, handed back here.
using SessionHandle = void*;
// The host's own name for a lease's upstream connection: passed to Engine::LeaseReady.
using LeaseHandle = void*;
// The engine's name for a lease: unique within the engine for all time, never 0.
using LeaseId = uint64_t;
// The engine's name for a question to another service; likewise.
using CallId = uint64_t;

enum class CloseMode : uint8_t {
  kFlush,  // deliver what was written, then close
  kAbort,  // close at once
};

enum class LogLevel : uint8_t { kTrace, kDebug, kInfo, kWarn, kError };

class Host {
 public:
  virtual ~Host() = default;

  // --- sessions (downstream connections)
  // Queues bytes towards the client; `bytes` is copied.
  virtual void WriteSession(SessionHandle session, Bytes bytes) = 0;
  // The engine has forgotten the session when it calls this; no further event of it is wanted.
  virtual void CloseSession(SessionHandle session, CloseMode mode) = 0;
  // Stop or resume delivering bytes from the client. Calls alternate, beginning with `true`.
  virtual void PauseSession(SessionHandle session, bool paused) = 0;

  // --- leases (upstream connections)
  // Asks for a connection to `host_address` ("10.0.0.1:20880") of `cluster`; answered by
  // Engine::LeaseReady or Engine::LeaseClosed, either possibly before this returns. An empty
  // address leaves the choice of the host to the cluster's own load balancer.
  virtual void OpenLease(LeaseId lease, std::string_view cluster,
                         std::string_view host_address) = 0;
  // Queues bytes towards the server; `bytes` is copied. Only between LeaseReady and LeaseClosed.
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
  // The connection is quiet and clean: back to the pool it came from, open. The engine has
  // forgotten the lease.
  virtual void ReleaseLease(LeaseId lease) = 0;
  // Close the connection, or give up opening it. The engine has forgotten the lease.
  virtual void ResetLease(LeaseId lease) = 0;

  // --- questions to other services
  // Calls the unary gRPC method `path` ("/package.Service/Method") in `cluster`, for that session:
  // the call need not outlive it. Answered by one Engine::CallDone, not before this returns, and
  // within about `timeout_us`. `message` is copied.
  virtual void StartCall(CallId call, SessionHandle session, std::string_view cluster,
                         std::string_view path, Bytes message, uint64_t timeout_us) = 0;

  // --- time
  // Monotonic, microseconds.
  virtual uint64_t NowUs() = 0;
  static constexpr uint64_t kNoTimer = std::numeric_limits<uint64_t>::max();
  // Engine::Tick wanted at `at_us` or soon after. Replaces the wish before; kNoTimer: none.
  virtual void SetTimer(uint64_t at_us) = 0;

  // --- the rest
  virtual uint64_t Random() = 0;
  virtual bool LogEnabled(LogLevel level) = 0;
  virtual void Log(LogLevel level, std::string_view text) = 0;

  // --- metrics
  // `series` is the engine's number for a set of labels, dense from 0; announced once, before any
  // value of it.
  virtual void DefineSeries(uint32_t series, const SeriesLabels& labels) = 0;
  virtual void AddCounter(uint32_t series, Counter counter, uint64_t delta) = 0;
  virtual void AddGauge(uint32_t series, Gauge gauge, int64_t delta) = 0;
  virtual void RecordHistogram(uint32_t series, Histogram histogram,
                               std::span<const uint64_t> values) = 0;
};

}  // namespace metaprotocol
