// The engine: a whole layer-7 proxy for one worker thread, without any I/O of its own.
//
// Bytes and events go in through the methods below, bytes and commands come out through the Host.
// Everything happens on one thread; two engines share nothing but immutable snapshots, and the
// token buckets in them. See docs/architecture.md for how sessions, exchanges and leases play
// together.
//
// Each method is an event, and any number of events may come in any order but for what is said
// here. An event may call the host. What the host may call meanwhile is said beside the host's
// methods; clusters may change within any event, since whoever is asked to connect may learn of
// them only then. Any other event within an event is a mistake, and those that say so here are
// where debug builds stop. Nothing throws: an engine that runs out of memory ends the process,
// since half an event cannot be taken back.
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

class Session;  // one client connection; the host passes the pointer back, nothing else

class Engine {
 public:
  virtual ~Engine() = default;

  static std::unique_ptr<Engine> Create(Host& host);

  // --- sessions
  // A client connection was accepted under the filter whose configurations `slot` holds. Null: it
  // is refused (limit, draining, no configuration), and the host closes it. Not within another
  // event.
  virtual Session* OpenSession(std::shared_ptr<ConfigSlot> slot, ConnectionInfo info,
                               SessionHandle handle) = 0;
  // Bytes from the client, in `slices`; `end_stream`: the client will send no more (but may still
  // read). Views are used during the call only. The session may be closed (Host::CloseSession)
  // before this returns. Not within another event.
  virtual void SessionData(Session* session, std::span<const Bytes> slices, bool end_stream) = 0;
  // The connection is gone; the engine forgets the session, when the present event is over if this
  // comes within a call about it. Once, unless CloseSession came before.
  virtual void SessionClosed(Session* session) = 0;
  // The bytes written to the session but not taken by the client crossed the high (true) or fell
  // below the low (false) watermark.
  virtual void SessionWriteBufferFull(Session* session, bool full) = 0;

  // --- leases, in answer to Host::OpenLease
  // Events of leases that the engine has already given back or reset are ignored.
  virtual void LeaseReady(LeaseId lease, LeaseHandle handle) = 0;
  // Not within another event.
  virtual void LeaseData(LeaseId lease, std::span<const Bytes> slices) = 0;
  // In answer to Host::ProbeLease.
  virtual void LeaseDrained(LeaseId lease) = 0;
  virtual void LeaseClosed(LeaseId lease, LeaseCloseReason reason) = 0;

  // --- questions, in answer to Host::StartCall
  // The reply's message, or nothing if there was none: no such cluster, no connection, an error,
  // too late. Answers that nobody waits for any more are ignored. Not within another event.
  virtual void CallDone(CallId call, std::optional<Bytes> message) = 0;

  // --- clusters and their hosts, as this worker sees them
  // Adds the cluster or replaces its hosts. A changed `generation` says that the cluster itself was
  // replaced: its leases are not given new requests any more and drain. Also within another event.
  virtual void SetCluster(std::string_view name, uint64_t generation,
                          std::shared_ptr<const ClusterPolicy> policy,
                          std::vector<HostInfo> hosts) = 0;
  // Ignored unless that generation is the present one. Also within another event.
  virtual void RemoveCluster(std::string_view name, uint64_t generation) = 0;

  // --- time
  // As asked for with Host::SetTimer; spurious calls are harmless. Not within another event.
  virtual void Tick() = 0;
  // The turn is over in which Host::Gathers was true; spurious calls are harmless. Not within
  // another event.
  virtual void WriteGathered() = 0;

  // --- life
  // Takes no new requests on any session, tells clients so where the protocol can, and closes each
  // session once its replies are delivered. Not within another event.
  virtual void Drain() = 0;
  // The same for one session, whose listener goes away but not the process: requests that come
  // nevertheless are still served, and it is closed as soon as none is open. Not within another
  // event.
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
