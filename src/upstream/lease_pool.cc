#include "src/upstream/lease_pool.h"

#include "src/upstream/cluster.h"
#include "src/upstream/exclusive_leases.h"
#include "src/upstream/session_leases.h"
#include "src/upstream/shared_leases.h"

namespace metaprotocol {

std::unique_ptr<LeasePool> LeasePool::Create(UpstreamHost& host,
                                             std::shared_ptr<const UpstreamProtocol> protocol,
                                             LeaseOpener& opener) {
  switch (protocol->mode) {
    case UpstreamMode::kShared:
      break;
    case UpstreamMode::kExclusive:
      return std::make_unique<ExclusiveLeases>(host, std::move(protocol), opener);
    case UpstreamMode::kPerSession:
      return std::make_unique<SessionLeases>(host, std::move(protocol), opener);
  }
  return std::make_unique<SharedLeases>(host, std::move(protocol), opener);
}

const ClusterPolicy& LeasePool::policy() const { return host.cluster.policy(); }

}  // namespace metaprotocol
