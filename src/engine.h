// The engine: a whole layer-7 proxy for one worker thread, without any I/O of its own.
//
// Bytes and events go in through the methods below, bytes and commands come out through the Host.
// Everything happens on one thread; two engines share nothing but immutable snapshots, and the
// token buckets in them. See docs/architecture.md for how sessions, exchanges and leases play
// together.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/balance/balancer.h"
#include "src/config/config_slot.h"
#include "src/config/snapshot.h"
#include "src/host/host.h"

namespace metaprotocol {

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

class Session;  // one client connection; the host passes the pointer back, nothing else

class Engine {
 public:
  virtual ~Engine() = default;

  static std::unique_ptr<Engine> Create(Host& host);

  // --- sessions
  // A client connection was accepted under the filter whose configurations `slot` holds. Null: it
  // is refused (limit, draining, no configuration), and the host closes it.
  virtual Session* OpenSession(std::shared_ptr<ConfigSlot> slot, ConnectionInfo info,
                               SessionHandle handle) = 0;
  // Bytes from the client, in `slices`; `end_stream`: the client will send no more (but may still
  // read). Views are used during the call only. The session may be closed (Host::CloseSession)
  // before this returns.
  virtual void SessionData(Session* session, std::span<const Bytes> slices, bool end_stream) = 0;
  // The connection is gone; the engine forgets the session.
  virtual void SessionClosed(Session* session) = 0;
  // The bytes written to the session but not taken by the client crossed the high (true) or fell
  // below the low (false) watermark.
  virtual void SessionWriteBufferFull(Session* session, bool full) = 0;

  // --- leases, in answer to Host::OpenLease
  // Events of leases that the engine has already given back or reset are ignored.
  virtual void LeaseReady(LeaseId lease, LeaseHandle handle) = 0;
  virtual void LeaseData(LeaseId lease, std::span<const Bytes> slices) = 0;
  // In answer to Host::ProbeLease.
  virtual void LeaseDrained(LeaseId lease) = 0;
  virtual void LeaseClosed(LeaseId lease, LeaseCloseReason reason) = 0;

  // --- questions, in answer to Host::StartCall
  // The reply's message, or nothing if there was none: no such cluster, no connection, an error,
  // too late. Answers that nobody waits for any more are ignored.
  virtual void CallDone(CallId call, std::optional<Bytes> message) = 0;

  // --- clusters and their hosts, as this worker sees them
  // Adds the cluster or replaces its hosts. A changed `generation` says that the cluster itself was
  // replaced: its leases are not given new requests any more and drain.
  virtual void SetCluster(std::string_view name, uint64_t generation,
                          std::shared_ptr<const ClusterPolicy> policy,
                          std::vector<HostInfo> hosts) = 0;
  // Ignored unless that generation is the present one.
  virtual void RemoveCluster(std::string_view name, uint64_t generation) = 0;

  // --- time
  virtual void Tick() = 0;  // as asked for with Host::SetTimer; spurious calls are harmless

  // --- life
  // Takes no new requests on any session, tells clients so where the protocol can, and closes each
  // session once its replies are delivered.
  virtual void Drain() = 0;
  // The same for one session, whose listener goes away but not the process: requests that come
  // nevertheless are still served, and it is closed as soon as none is open.
  virtual void DrainSession(Session* session) = 0;
  // Requests still waiting for a reply: 0 means that draining is complete.
  virtual size_t exchanges_open() const = 0;
  virtual size_t sessions_open() const = 0;

  // Hands all metric differences to the host now; Tick does it about once a second.
  virtual void FlushMetrics() = 0;

  // A JSON object of what this engine holds: sessions, leases per host, clusters, snapshots.
  virtual std::string DumpJson() const = 0;
};

}  // namespace metaprotocol
