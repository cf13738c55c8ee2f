#include "src/upstream/shared_leases.h"

#include "src/upstream/cluster.h"

namespace metaprotocol {
namespace {

// A message that is passed on in pieces may share a lease if all of it is there and it has no more
// than so many times the bytes from which on messages are: what Envoy reads at once, by default.
constexpr size_t kPassingBy = 4;

// With fewer requests than this a lease takes the next one whatever the others have.
uint32_t FewRequests(const ClusterPolicy& policy) { return policy.exchanges_per_shared_lease / 4; }

bool Suits(const Lease& lease, size_t length) {
  return lease.takes_requests() && lease.HasRoomFor(length);
}

}  // namespace

Lease* SharedLeases::Take(const LeaseNeed& need) {
  if (!need.request.whole() && !PassesBy(need)) return TakeForItself();
  // Nearly always the first one.
  Lease* const first = leases.empty() ? nullptr : leases.front();
  const bool at_once = first != nullptr &&
                       first->attempt_count < FewRequests(host.cluster.policy()) &&
                       Suits(*first, need.length());
  return at_once ? first : TakeLeastBusy(need.length());
}

// What is not there of it comes at once, and is not much.
bool SharedLeases::PassesBy(const LeaseNeed& need) const {
  return need.request.arrived && need.length() / kPassingBy <= protocol->stream_message_bytes;
}

Lease* SharedLeases::TakeLeastBusy(size_t length) {
  const ClusterPolicy& policy = host.cluster.policy();
  const uint32_t few = FewRequests(policy);
  Lease* best = nullptr;
  uint32_t considered = 0;
  for (Lease* lease : leases) {
    if (!Suits(*lease, length)) continue;
    if (best == nullptr || lease->attempt_count < best->attempt_count) best = lease;
    if (best->attempt_count < few) return best;
    if (++considered >= policy.max_shared_leases_per_host) break;
  }
  const bool full = best != nullptr && best->attempt_count >= policy.exchanges_per_shared_lease &&
                    considered < policy.max_shared_leases_per_host;
  if (best != nullptr && !full) return best;
  Lease* opened = OpenIfRoom();
  return opened != nullptr ? opened : best;
}

// A client that sends its body slowly, or dies in the middle, must hurt nobody, and nobody should
// have to wait for a very large one: it gets a connection with nothing else on it.
Lease* SharedLeases::TakeForItself() {
  for (auto it = leases.rbegin(); it != leases.rend(); ++it) {
    if ((*it)->takes_requests() && (*it)->attempt_count == 0) return *it;
  }
  return OpenIfRoom();
}

}  // namespace metaprotocol
