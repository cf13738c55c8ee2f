// Connections with a memory (a login, a transaction): each belongs to one client connection, which
// has one for each cluster, and goes with it.
#pragma once

#include "src/upstream/lease_pool.h"

namespace metaprotocol {

class Cluster;

class SessionLeases final : public LeasePool {
 public:
  SessionLeases(UpstreamHost& host, std::shared_ptr<const UpstreamProtocol> protocol,
                Priority priority, LeaseOpener& opener)
      : LeasePool(host, std::move(protocol), priority, opener) {}

  // The one that `owner` has in that cluster already, whatever host it leads to.
  static Lease* Present(const LeaseOwner& owner, const Cluster& cluster,
                        const std::shared_ptr<const UpstreamProtocol>& protocol);

  Lease* Take(const LeaseNeed& need) override { return OpenIfRoom(&need.owner); }
};

}  // namespace metaprotocol
