// Least request: the host with the fewest open requests, without looking at all of them.
//
// As in Envoy with an active request bias of 1: among hosts of equal weight, the least busy of N
// random ones; with different weights, weighted turns in which a host counts for
// weight / (open requests + 1) at the time of its turn.
#pragma once

#include <vector>

#include "src/balance/policy.h"

namespace metaprotocol {

class LeastRequestBalancer final : public PolicyBalancer {
 public:
  explicit LeastRequestBalancer(const BalancePolicy& policy)
      : PolicyBalancer(policy, HostSet::Localities::kTurns) {}

  std::optional<uint32_t> Pick(const PickInput& input) override;

 private:
  // A host's next turn, in a virtual time in which a host of effective weight w has w turns a unit.
  struct Turn {
    double due;
    double weight;
    uint32_t host;
  };
  struct Group {
    std::vector<uint32_t> hosts;
    std::vector<Turn> turns;  // a min-heap by `due`; empty if all weights are equal
    bool started = false;     // the turns have been laid at random places
  };

  void Rebuild(std::span<const HostInfo> hosts, std::span<const HostSet::Source> sources) override;
  uint32_t LeastOfSome(const Group& group, const PickInput& input) const;
  static uint32_t NextTurn(Group& group, const PickInput& input);

  std::vector<Group> groups_;  // by source
};

}  // namespace metaprotocol
