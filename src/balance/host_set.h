// Which hosts of a cluster may take a request at all: priorities, health, panic and localities.
// Every policy asks this first, then chooses among the hosts it is given.
//
// The rules are Envoy's (its documentation's pages on priority levels, degraded endpoints, panic
// threshold and locality weighted load balancing; percentages are whole numbers there, and here).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "src/balance/balancer.h"
#include "src/balance/weighted_turns.h"

namespace metaprotocol {

// What share of the requests each priority level gets, in percent, and whether it ignores health.
struct PriorityLoad {
  struct Level {
    uint32_t hosts = 0;  // set by the caller, as are the next two
    uint32_t healthy_hosts = 0;
    uint32_t degraded_hosts = 0;

    uint32_t healthy_percent = 0;   // of all requests, to this level's healthy hosts
    uint32_t degraded_percent = 0;  // and to its degraded ones
    bool panic = false;             // both go to all hosts of the level instead
  };
  std::vector<Level> levels;  // by priority, best first

  // Fills in the lower half of every level. The percentages add up to 100 unless there is no level.
  void Compute(const BalancePolicy& policy);

 private:
  void SpreadOverAllHosts();
};

class HostSet {
 public:
  // A set of hosts between which the policy decides freely.
  struct Source {
    std::vector<uint32_t> hosts;  // indices into the cluster's hosts
    std::vector<uint32_t> weights;
    // Each host's part of the source's requests, with locality weights folded in. Only with
    // Localities::kFolded, where hosts of localities without weight are left out.
    std::vector<double> shares;
  };

  enum class Localities : uint8_t {
    kTurns,   // a locality is chosen first, in weighted turns; each is a source of its own
    kFolded,  // one source for all localities, as consistent hashing needs it
  };

  explicit HostSet(Localities localities) : localities_(localities) {}

  void Update(std::span<const HostInfo> hosts, const BalancePolicy& policy);

  const std::vector<Source>& sources() const { return sources_; }

  // The source that a request with this random number (or hash) goes to, as an index into
  // sources(); nothing if no host may be used.
  std::optional<uint32_t> Choose(uint64_t random) {
    if (single_source_) return 0;
    return ChooseAmongSeveral(random);
  }

 private:
  // Where one part of the requests goes.
  struct Target {
    static constexpr uint32_t kNone = ~uint32_t{0};
    uint32_t source = kNone;           // the only one, or the first locality's
    std::vector<uint32_t> localities;  // their sources, if there are turns to take
    WeightedTurns turns;
    bool started = false;  // `turns`, at a random place in their cycle
  };
  // The hosts of one level that may be used, and all of it.
  struct Group {
    std::vector<uint32_t> usable;
    std::vector<uint32_t> all;
  };

  std::optional<uint32_t> ChooseAmongSeveral(uint64_t random);
  void AddTarget(std::span<const HostInfo> hosts, const Group& group, bool by_locality,
                 uint32_t overprovisioning_percent);
  uint32_t AddSource(std::span<const HostInfo> hosts, std::vector<uint32_t> indices);
  void FoldLocalities(std::span<const HostInfo> hosts, const Group& group, bool by_locality);

  const Localities localities_;
  bool single_source_ = false;  // everything goes to sources_[0]
  std::vector<Source> sources_;
  std::vector<Target> targets_;
  std::array<uint16_t, 100> target_of_percent_{};
};

}  // namespace metaprotocol
