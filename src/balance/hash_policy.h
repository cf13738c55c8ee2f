// What ring hash and Maglev share: a request's hash (or, without one, its random number) chooses
// both the priority level and the host.
#pragma once

#include "src/balance/policy.h"

namespace metaprotocol {

class HashBalancer : public PolicyBalancer {
 public:
  explicit HashBalancer(const BalancePolicy& policy)
      : PolicyBalancer(policy, HostSet::Localities::kFolded) {}

  std::optional<uint32_t> Pick(const PickInput& input) final {
    const uint64_t hash = input.hash.value_or(input.random);
    const std::optional<uint32_t> source = host_set().Choose(hash);
    if (!source) return std::nullopt;
    return HostFor(*source, hash);
  }

 private:
  virtual uint32_t HostFor(uint32_t source, uint64_t hash) const = 0;
};

}  // namespace metaprotocol
