// Random choice, each host as often as its weight says.
#pragma once

#include <vector>

#include "src/balance/policy.h"

namespace metaprotocol {

class RandomBalancer final : public PolicyBalancer {
 public:
  explicit RandomBalancer(const BalancePolicy& policy)
      : PolicyBalancer(policy, HostSet::Localities::kTurns) {}

  std::optional<uint32_t> Pick(const PickInput& input) override;

 private:
  // One slot of an alias table (Walker 1977, Vose 1991): a uniformly chosen slot gives its own host
  // with a probability, and the alias otherwise.
  struct Slot {
    uint64_t own_below;  // of 2^64 equally likely numbers, those that give `own`
    uint32_t own;
    uint32_t alias;
  };
  using AliasTable = std::vector<Slot>;

  void Rebuild(std::span<const HostInfo> hosts, std::span<const HostSet::Source> sources) override;
  static AliasTable MakeTable(const HostSet::Source& source);

  std::vector<AliasTable> tables_;  // by source
};

}  // namespace metaprotocol
