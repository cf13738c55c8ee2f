// One request at a time on a lease. What cannot be served at once waits.
//
// Requests come from many clients, and one that sends thousands ahead must not take all leases of
// the host. So each client (LeaseOwner) has a share: it may take another lease as long as it holds
// no more than are left for all others. One alone thus gets about half of them, two a third each,
// and somebody who comes late always finds one (dynamic thresholds, as in shared switch buffers:
// Choudhury, Hahne: "Dynamic queue length thresholds for shared-memory packet switches", 1998). The
// same rule holds for places to wait, which are the cluster's, and those who wait take turns by
// client.
#pragma once

#include "src/base/intrusive_list.h"
#include "src/base/object_pool.h"
#include "src/upstream/lease_pool.h"

namespace metaprotocol {

struct LeaseShareLink : ListLink {};

// What one owner has in one pool, as long as that is anything.
struct LeaseShare : LeaseShareLink, LeaseShareOfOwnerLink {
  const LeasePool* pool = nullptr;
  LeaseOwner* owner = nullptr;                       // null: it has gone
  size_t held = 0;                                   // leases with a request of its own
  IntrusiveList<Attempt, LeaseAttemptLink> waiting;  // oldest first
  size_t waiting_count = 0;
};

class ExclusiveLeases final : public LeasePool {
 public:
  ExclusiveLeases(UpstreamHost& host, std::shared_ptr<const UpstreamProtocol> protocol,
                  Priority priority, LeaseOpener& opener)
      : LeasePool(host, std::move(protocol), priority, opener) {}

  Lease* Take(const LeaseNeed& need) override;
  void Joined(Attempt& attempt, LeaseOwner& owner) override;
  void Left(Attempt& attempt) override;
  void Free(Lease& lease) override;
  void Withdraw(Lease& lease) override;
  bool Wait(Attempt& attempt, LeaseOwner* owner) override;
  void WaitOn(Attempt& attempt, LeaseOwner* owner) override;
  void StopWaiting(Attempt& attempt) override;
  std::pair<Attempt*, Lease*> NextToGo() override;
  std::pair<Attempt*, LeaseOwner*> TakeWaiting() override;

 private:
  LeaseShare* ShareOf(LeaseOwner* owner) const;
  LeaseShare& MakeShare(LeaseOwner* owner);
  void DropIfUnused(LeaseShare& share);
  // Leases that nobody holds, whether they are open or could be.
  size_t LeasesLeft() const;
  bool MayHoldAnother(const LeaseShare* share) const;
  // Requests of the owner that wait for any of the cluster's hosts, with this priority.
  size_t WaitingOf(LeaseOwner* owner) const;
  Lease* LeaseFor(LeaseShare& share);
  Lease* LeaseForRequest(size_t length);
  Lease* LeaseForOneWay(size_t length);

  ObjectPool<LeaseShare> shares_;
  // Leases without a request; the last used is last. What was written last to the unconfirmed ones
  // needs no reply, so that nothing tells whether their servers are done with it: whoever waits
  // for a reply gets another one if possible, and further messages without reply get these.
  std::vector<Lease*> idle_;
  std::vector<Lease*> unconfirmed_;
  Lease* one_way_ = nullptr;  // got the last message without reply, and may not be idle yet
  IntrusiveList<LeaseShare, LeaseShareLink> waiting_;  // shares with waiting requests, in turns
};

}  // namespace metaprotocol
