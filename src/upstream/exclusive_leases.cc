#include "src/upstream/exclusive_leases.h"

#include <algorithm>

#include "src/upstream/cluster.h"
#include "src/upstream/connection_count.h"

namespace metaprotocol {
namespace {

// Takes the lease used last that has room: those used least stay idle long enough to be given back.
Lease* TakeLast(std::vector<Lease*>& idle, size_t length) {
  if (!idle.empty() && idle.back()->HasRoomFor(length)) {  // as nearly always
    Lease* const lease = idle.back();
    idle.pop_back();
    lease->idle = false;
    return lease;
  }
  const auto it = std::find_if(idle.rbegin(), idle.rend(),
                               [&](const Lease* lease) { return lease->HasRoomFor(length); });
  if (it == idle.rend()) return nullptr;
  Lease* lease = *it;
  idle.erase(std::next(it).base());
  lease->idle = false;
  return lease;
}

}  // namespace

// --- shares

LeaseShare* ExclusiveLeases::ShareOf(LeaseOwner* owner) const {
  if (owner == nullptr) return nullptr;
  return owner->shares.Find([this](const LeaseShare& share) { return share.pool == this; });
}

LeaseShare& ExclusiveLeases::MakeShare(LeaseOwner* owner) {
  LeaseShare& share = shares_.Acquire();
  share.pool = this;
  share.owner = owner;
  if (owner != nullptr) owner->shares.PushBack(share);
  return share;
}

void ExclusiveLeases::DropIfUnused(LeaseShare& share) {
  if (share.held != 0 || share.waiting_count != 0) return;
  IntrusiveList<LeaseShare, LeaseShareOfOwnerLink>::Remove(share);
  share.owner = nullptr;
  shares_.Release(share);
}

size_t ExclusiveLeases::LeasesLeft() const {
  const size_t busy = leases.size() - idle_.size() - unconfirmed_.size();
  const PriorityBounds& most = bounds();
  size_t all = most.max_leases_per_host;
  if (most.connections != nullptr) all = std::min<size_t>(all, most.connections->most());
  return busy < all ? all - busy : 0;
}

bool ExclusiveLeases::MayHoldAnother(const LeaseShare* share) const {
  const size_t left = LeasesLeft();
  return left != 0 && (share == nullptr || share->held <= left);
}

void ExclusiveLeases::Joined(Attempt& attempt, LeaseOwner& owner) {
  LeaseShare* share = ShareOf(&owner);
  if (share == nullptr) share = &MakeShare(&owner);
  ++share->held;
  attempt.share_ = share;
}

void ExclusiveLeases::Left(Attempt& attempt) {
  LeaseShare& share = *attempt.share_;
  attempt.share_ = nullptr;
  --share.held;
  DropIfUnused(share);
}

// --- leases

Lease* ExclusiveLeases::Take(const LeaseNeed& need) {
  if (need.request.whole() && !need.expects_reply()) return LeaseForOneWay(need.length());
  const LeaseShare* share = ShareOf(&need.owner);
  if (share != nullptr && share->waiting_count != 0) return nullptr;  // those come first
  return MayHoldAnother(share) ? LeaseForRequest(need.length()) : nullptr;
}

Lease* ExclusiveLeases::LeaseForRequest(size_t length) {
  if (Lease* lease = TakeLast(idle_, length)) return lease;
  if (Lease* lease = OpenIfRoom()) return lease;
  return TakeLast(unconfirmed_, length);
}

Lease* ExclusiveLeases::LeaseForOneWay(size_t length) {
  Lease* lease = TakeLast(unconfirmed_, length);
  if (lease == nullptr && one_way_ != nullptr && one_way_->takes_requests() &&
      one_way_->attempt_count == 0 && one_way_->HasRoomFor(length)) {
    lease = one_way_;
  }
  if (lease == nullptr) lease = TakeLast(idle_, length);
  if (lease == nullptr) lease = OpenIfRoom();
  if (lease != nullptr) one_way_ = lease;
  return lease;
}

void ExclusiveLeases::Free(Lease& lease) {
  if (lease.idle) return;
  lease.idle = true;
  (lease.unconfirmed ? unconfirmed_ : idle_).push_back(&lease);
}

void ExclusiveLeases::Withdraw(Lease& lease) {
  if (one_way_ == &lease) one_way_ = nullptr;
  if (!lease.idle) return;
  lease.idle = false;
  if (std::erase(idle_, &lease) == 0) std::erase(unconfirmed_, &lease);
}

// --- waiting

size_t ExclusiveLeases::WaitingOf(LeaseOwner* owner) const {
  size_t count = 0;
  if (owner == nullptr) return count;
  owner->shares.ForEach([&](const LeaseShare& share) {
    const bool counts =
        &share.pool->host.cluster == &host.cluster && share.pool->priority == priority;
    if (counts) count += share.waiting_count;
  });
  return count;
}

bool ExclusiveLeases::Wait(Attempt& attempt, LeaseOwner* owner) {
  const size_t all = bounds().max_pending_requests;
  const size_t waiting = host.cluster.waiting(priority);
  const size_t left = waiting < all ? all - waiting : 0;
  if (left == 0 || WaitingOf(owner) > left) return false;
  WaitOn(attempt, owner);
  return true;
}

void ExclusiveLeases::WaitOn(Attempt& attempt, LeaseOwner* owner) {
  LeaseShare* share = ShareOf(owner);
  if (share == nullptr) share = &MakeShare(owner);
  attempt.share_ = share;
  share->waiting.PushBack(attempt);
  if (share->waiting_count++ == 0) waiting_.PushBack(*share);
  ++waiting_count_;
  host.cluster.BeginWaiting(priority);
}

void ExclusiveLeases::StopWaiting(Attempt& attempt) {
  LeaseShare& share = *attempt.share_;
  attempt.share_ = nullptr;
  IntrusiveList<Attempt, LeaseAttemptLink>::Remove(attempt);
  --waiting_count_;
  host.cluster.EndWaiting(priority);
  if (--share.waiting_count == 0) IntrusiveList<LeaseShare, LeaseShareLink>::Remove(share);
  DropIfUnused(share);
}

// For the first that waits.
Lease* ExclusiveLeases::LeaseFor(LeaseShare& share) {
  const Attempt& attempt = share.waiting.front();
  if (!attempt.expects_reply_) return LeaseForOneWay(attempt.bytes_);
  return MayHoldAnother(&share) ? LeaseForRequest(attempt.bytes_) : nullptr;
}

std::pair<Attempt*, Lease*> ExclusiveLeases::NextToGo() {
  Lease* lease = nullptr;
  LeaseShare* share = waiting_.Find([&](LeaseShare& candidate) {
    lease = LeaseFor(candidate);
    return lease != nullptr;
  });
  if (share == nullptr) return {};
  Attempt& attempt = share->waiting.front();
  // The others have their turns first.
  IntrusiveList<LeaseShare, LeaseShareLink>::Remove(*share);
  waiting_.PushBack(*share);
  const bool stays = attempt.expects_reply_;
  if (stays) ++share->held;
  StopWaiting(attempt);
  if (stays) attempt.share_ = share;
  return {&attempt, lease};
}

std::pair<Attempt*, LeaseOwner*> ExclusiveLeases::TakeWaiting() {
  if (waiting_.empty()) return {};
  Attempt& attempt = waiting_.front().waiting.front();
  LeaseOwner* owner = attempt.share_->owner;
  StopWaiting(attempt);
  return {&attempt, owner};
}

}  // namespace metaprotocol
