// The worker hub: all clusters and leases of one worker, and the exchanges on them.
//
// Requests come in through Dispatch and SendBody; what becomes of them goes to the ReplySink. The
// hub decides which host and which lease a request takes, when leases are opened, shared, given
// back or closed, and which reply belongs to which request.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "src/engine.h"
#include "src/engine_context.h"
#include "src/session/exchange.h"
#include "src/upstream/cluster.h"
#include "src/upstream/lease.h"

namespace metaprotocol {

// Where replies go: the session side of the engine.
class ReplySink {
 public:
  virtual ~ReplySink() = default;

  // A reply to `exchange` has come, or its head: `bytes` is what is there of it. Returns false to
  // be asked again when the whole message is there. If bytes.size() < message.length, ReplyBody
  // follows; otherwise the exchange is finished by the time this returns.
  virtual bool Reply(Exchange& exchange, const Codec& codec, const Message& message,
                     Bytes bytes) = 0;
  // More of the reply's body; after the `last` the exchange is finished.
  virtual void ReplyBody(Exchange& exchange, Bytes bytes, bool last) = 0;
  // A request without reply that had to wait for a lease is on its way; finished as above.
  virtual void Sent(Exchange& exchange) = 0;
  // There will be no (more of a) reply. The exchange is not on any lease any more, and is finished
  // by the time this returns.
  virtual void Failed(Exchange& exchange, LocalReply reply, std::string_view text) = 0;
};

class WorkerHub {
 public:
  WorkerHub(EngineContext& context, ReplySink& sink) : context_(context), sink_(sink) {}
  ~WorkerHub();

  // --- clusters
  void SetCluster(std::string_view name, uint64_t generation,
                  std::shared_ptr<const ClusterPolicy> policy, std::vector<HostInfo> hosts);
  void RemoveCluster(std::string_view name, uint64_t generation);
  // Null if there is none. The answer holds while clusters_epoch() stays the same.
  Cluster* FindCluster(std::string_view name);
  uint64_t clusters_epoch() const { return clusters_epoch_; }

  // --- requests
  struct Request {
    ProtocolState& protocol;
    LeaseOwner& owner;  // whose leases to use under UpstreamMode::kPerSession
    Cluster& cluster;
    const Message& message;
    Bytes bytes;                   // of the message; the rest follows through SendBody
    std::optional<uint64_t> hash;  // of the route's hash policy
    bool arrived = true;           // what follows does so within the present event
  };
  // Puts the request on its way. Returns the reply to make instead if that can't be; otherwise the
  // exchange is now the hub's until it is finished or abandoned. Exchanges that expect no reply are
  // finished (detached from the hub) as soon as their last byte is written.
  std::optional<LocalReply> Dispatch(Exchange& exchange, const Request& request);
  // More of the body of an exchange in State::kSending.
  void SendBody(Exchange& exchange, Bytes bytes, bool last);
  // The reply was delivered: frees what the exchange occupied upstream.
  void Finish(Exchange& exchange);
  // The reply is not wanted any more (client gone, timeout). Whatever it takes to keep other
  // exchanges from getting it is done.
  void Abandon(Exchange& exchange);
  // The owner goes away, with its leases.
  void ReleaseOwner(LeaseOwner& owner);
  // No lease of that protocol takes new exchanges any more: its codec has changed.
  void DrainProtocol(ProtocolState& protocol);

  // --- events
  void LeaseReady(LeaseId id, LeaseHandle handle);
  void LeaseData(LeaseId id, std::span<const Bytes> slices);
  void LeaseClosed(LeaseId id, LeaseCloseReason reason);
  void LeaseTimer(Lease& lease);

  // Writes what has gathered and looks after leases that have become idle. Called at the end of
  // each event of the engine, until nobody is unsettled.
  void Settle();
  bool unsettled() const { return !settling_.empty() || !unlocked_.empty() || !dirty_.empty(); }
  // The present event is over.
  void FreeGone();

  size_t lease_count() const { return lease_count_; }
  void ForEachCluster(const std::function<void(Cluster&)>& f) const;

 private:
  Lease* PickLease(Exchange& exchange, const Request& request, HostPool& pool);
  Lease* PickSharedLease(const Exchange& exchange, const Request& request, HostPool& pool);
  Lease* PickSessionLease(const Exchange& exchange, const Request& request, UpstreamHost*& host);
  Lease* TakeIdle(HostPool& pool);
  void LeaveIdle(Lease& lease);
  Lease& OpenLease(HostPool& pool, const SnapshotUse& snapshot, LeaseOwner* owner);
  void AnnounceOpening(Lease& lease);
  void Assign(Exchange& exchange, Lease& lease);
  void Detach(Exchange& exchange);
  void DispatchWaiting(HostPool& pool);
  void ReassignWaiting(HostPool& pool);
  uint64_t NextExclusiveId(const Exchange& exchange);

  void Append(Lease& lease, Bytes bytes);
  void FinishSending(Lease& lease);
  void MarkDirty(Lease& lease);
  void MarkSettling(Lease& lease);
  void SettleLease(Lease& lease);
  void SettleDrained(Lease& lease);
  void Flush(Lease& lease);

  size_t ParseUpstream(Lease& lease, Bytes bytes);
  bool HandleUpstreamMessage(Lease& lease, Message& message, Bytes bytes);
  bool HandleResponse(Lease& lease, Message& message, Bytes bytes);
  void HandleStray(Lease& lease);
  void StreamFromUpstream(Lease& lease, Bytes& bytes);
  void RejectUpstream(Lease& lease, std::string_view why);

  void DrainLease(Lease& lease);
  void Break(Lease& lease);
  void DrainHost(UpstreamHost& host);
  void Release(Lease& lease);
  void Reset(Lease& lease);
  // Takes the lease out of all books; its exchanges fail with `reply`.
  void Discard(Lease& lease, LocalReply reply, std::string_view text);
  void FailExchanges(Lease& lease, LocalReply reply, std::string_view text);
  Lease* Find(LeaseId id) const;
  Series& SeriesOf(HostPool& pool);

  EngineContext& context_;
  ReplySink& sink_;

  std::unordered_map<std::string, std::unique_ptr<Cluster>> clusters_;
  std::vector<std::unique_ptr<Cluster>> retired_;  // removed, with exchanges or leases left
  uint64_t clusters_epoch_ = 1;
  bool hosts_changed_ = false;  // some host may be forgotten

  // A lease id is its slot's index and how often that slot has been used.
  struct Slot {
    std::unique_ptr<Lease> lease;
    uint32_t uses = 0;
  };
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_slots_;
  std::vector<std::unique_ptr<Lease>> gone_;  // freed when the present event is over
  size_t lease_count_ = 0;

  std::vector<Lease*> dirty_;
  std::vector<Lease*> settling_;
  std::vector<HostPool*> unlocked_;  // pools with room for exchanges that wait
  Message message_;                  // reused for every response
};

inline void WorkerHub::MarkDirty(Lease& lease) {
  if (lease.dirty) return;
  lease.dirty = true;
  dirty_.push_back(&lease);
}

inline void WorkerHub::MarkSettling(Lease& lease) {
  if (lease.settling) return;
  lease.settling = true;
  settling_.push_back(&lease);
}

}  // namespace metaprotocol
