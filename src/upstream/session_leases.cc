#include "src/upstream/session_leases.h"

#include "src/upstream/cluster.h"

namespace metaprotocol {

Lease* SessionLeases::Present(const LeaseOwner& owner, const Cluster& cluster,
                              const std::shared_ptr<const UpstreamProtocol>& protocol) {
  for (Lease* lease : owner.leases) {
    if (lease->usable() && &lease->pool.host.cluster == &cluster &&
        lease->pool.protocol == protocol) {
      return lease;
    }
  }
  return nullptr;
}

}  // namespace metaprotocol
