// What all policies have in common: the host set decides who may be chosen, the policy chooses.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "src/balance/balancer.h"
#include "src/balance/host_set.h"
#include "src/base/random_stream.h"

namespace metaprotocol {

class PolicyBalancer : public Balancer {
 public:
  PolicyBalancer(const BalancePolicy& policy, HostSet::Localities localities)
      : policy_(policy), host_set_(localities) {}

  void Update(std::span<const HostInfo> hosts) final {
    host_set_.Update(hosts, policy_);
    Rebuild(hosts, host_set_.sources());
  }

 protected:
  const BalancePolicy& policy() const { return policy_; }
  HostSet& host_set() { return host_set_; }

  // The sources are new; what the policy keeps for each is made anew. `hosts` is valid during the
  // call only, the sources until the next one.
  virtual void Rebuild(std::span<const HostInfo> hosts,
                       std::span<const HostSet::Source> sources) = 0;

 private:
  const BalancePolicy policy_;
  HostSet host_set_;
};

}  // namespace metaprotocol
