#include "src/upstream/lease_pool.h"

#include "src/upstream/cluster.h"
#include "src/upstream/connection_count.h"
#include "src/upstream/exclusive_leases.h"
#include "src/upstream/session_leases.h"
#include "src/upstream/shared_leases.h"

namespace metaprotocol {

std::unique_ptr<LeasePool> LeasePool::Create(UpstreamHost& host,
                                             std::shared_ptr<const UpstreamProtocol> protocol,
                                             Priority priority, LeaseOpener& opener) {
  switch (protocol->mode) {
    case UpstreamMode::kShared:
      break;
    case UpstreamMode::kExclusive:
      return std::make_unique<ExclusiveLeases>(host, std::move(protocol), priority, opener);
    case UpstreamMode::kPerSession:
      return std::make_unique<SessionLeases>(host, std::move(protocol), priority, opener);
  }
  return std::make_unique<SharedLeases>(host, std::move(protocol), priority, opener);
}

const PriorityBounds& LeasePool::bounds() const { return host.cluster.policy().Of(priority); }

Lease* LeasePool::OpenIfRoom(LeaseOwner* owner) {
  const PriorityBounds& most = bounds();
  if (leases.size() >= most.max_leases_per_host) return nullptr;
  ConnectionToken token;
  if (most.connections != nullptr && !token.Take(most.connections, leases.empty())) return nullptr;
  Lease& opened = opener_.OpenLease(*this, owner);
  opened.connection = std::move(token);
  return &opened;
}

}  // namespace metaprotocol
