// The leases of one protocol to one host, and the policy by which requests use them: one class for
// each UpstreamMode.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "src/base/request_view.h"
#include "src/config/cluster_policy.h"
#include "src/observe/metrics_book.h"
#include "src/upstream/attempt.h"
#include "src/upstream/lease.h"
#include "src/upstream/upstream_protocol.h"

namespace metaprotocol {

struct UpstreamHost;

// What the choice of a lease depends on.
struct LeaseNeed {
  LeaseOwner& owner;
  const RequestView& request;

  size_t length() const { return request.message.length; }
  // A stream is answered as well.
  bool expects_reply() const { return request.message.kind != MessageKind::kOneWay; }
};

// Opens leases for pools; the worker hub.
class LeaseOpener {
 public:
  virtual ~LeaseOpener() = default;
  // `owner`: whose it alone is; null: anybody's.
  virtual Lease& OpenLease(LeasePool& pool, LeaseOwner* owner) = 0;
};

class LeasePool {
 public:
  static std::unique_ptr<LeasePool> Create(UpstreamHost& host,
                                           std::shared_ptr<const UpstreamProtocol> protocol,
                                           Priority priority, LeaseOpener& opener);
  virtual ~LeasePool() = default;
  LeasePool(const LeasePool&) = delete;
  LeasePool& operator=(const LeasePool&) = delete;

  UpstreamHost& host;
  const std::shared_ptr<const UpstreamProtocol> protocol;
  const Priority priority;     // of the requests
  Series* series = nullptr;    // of protocol and cluster; filled in when it is needed
  std::vector<Lease*> leases;  // all of them, oldest first

  // A lease for a request, opened if need be. Null: none is to be had now.
  virtual Lease* Take(const LeaseNeed& need) = 0;
  // A request of that owner has come onto a lease of the pool and stays for a while; has left it.
  virtual void Joined(Attempt& /*attempt*/, LeaseOwner& /*owner*/) {}
  virtual void Left(Attempt& /*attempt*/) {}
  // No request is on the lease, and it stays.
  virtual void Free(Lease& /*lease*/) {}
  // The lease is not to be taken any more, or not before Free is called again.
  virtual void Withdraw(Lease& /*lease*/) {}

  // --- requests for which there was no lease, in policies that let them wait
  // False: it cannot wait, for the cluster's bound too. `owner`: null if it has gone.
  virtual bool Wait(Attempt& /*attempt*/, LeaseOwner* /*owner*/) { return false; }
  // Likewise for one that another host's pool of the same protocol has handed on: it has its place.
  virtual void WaitOn(Attempt& /*attempt*/, LeaseOwner* /*owner*/) {}
  // It waits no more.
  virtual void StopWaiting(Attempt& /*attempt*/) {}
  // Of those that wait, one for which there is a lease now, and the lease; {}: there is none. It
  // waits no more, and counts as Joined.
  virtual std::pair<Attempt*, Lease*> NextToGo() { return {}; }
  // Hands on those that wait, one by one: the oldest of somebody, and whose it is. Null: none.
  virtual std::pair<Attempt*, LeaseOwner*> TakeWaiting() { return {}; }
  size_t waiting_count() const { return waiting_count_; }

  bool reassign_waiting = false;  // to other hosts
  bool unlocked = false;          // in the hub's list of pools whose waiting requests may go

  bool empty() const { return leases.empty() && waiting_count_ == 0; }

 protected:
  LeasePool(UpstreamHost& host, std::shared_ptr<const UpstreamProtocol> protocol, Priority priority,
            LeaseOpener& opener)
      : host(host), protocol(std::move(protocol)), priority(priority), opener_(opener) {}

  const PriorityBounds& bounds() const;
  // Null: there are as many as may be.
  Lease* OpenIfRoom(LeaseOwner* owner = nullptr);

  size_t waiting_count_ = 0;

 private:
  LeaseOpener& opener_;
};

}  // namespace metaprotocol
