// Many clients' requests on one lease, told apart by correlation id.
//
// The oldest lease that has few requests takes the next one: what shares a lease is written and
// read together, and leases that were opened for more than there is now become idle and go.
#pragma once

#include "src/upstream/lease_pool.h"

namespace metaprotocol {

class SharedLeases final : public LeasePool {
 public:
  SharedLeases(UpstreamHost& host, std::shared_ptr<const UpstreamProtocol> protocol,
               Priority priority, LeaseOpener& opener)
      : LeasePool(host, std::move(protocol), priority, opener) {}

  Lease* Take(const LeaseNeed& need) override;

 private:
  bool PassesBy(const LeaseNeed& need) const;
  Lease* TakeLeastBusy(size_t length);
  Lease* TakeForItself();
};

}  // namespace metaprotocol
