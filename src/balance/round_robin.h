// Weighted round robin, smooth and exact: in every stretch of sum(weights) requests each host gets
// its weight's number, spread out evenly.
#pragma once

#include <vector>

#include "src/balance/policy.h"

namespace metaprotocol {

class RoundRobinBalancer final : public PolicyBalancer {
 public:
  explicit RoundRobinBalancer(const BalancePolicy& policy)
      : PolicyBalancer(policy, HostSet::Localities::kTurns) {}

  std::optional<uint32_t> Pick(const PickInput& input) override;

 private:
  // Turns up to this length are written out once; longer ones are computed pick by pick.
  static constexpr uint64_t kMaxSchedule = 65536;

  struct Rotation {
    std::vector<uint32_t> schedule;  // host indices, one whole cycle; empty: use `turns`
    size_t next = 0;
    WeightedTurns turns;   // of the source's hosts
    bool started = false;  // at a random place in the cycle
  };

  void Rebuild(std::span<const HostInfo> hosts, std::span<const HostSet::Source> sources) override;
  static Rotation MakeRotation(const HostSet::Source& source);

  std::vector<Rotation> rotations_;  // by source
};

}  // namespace metaprotocol
