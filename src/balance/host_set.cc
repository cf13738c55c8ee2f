#include "src/balance/host_set.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <string_view>

#include "src/base/random_stream.h"

namespace metaprotocol {
namespace {

uint32_t WeightOf(const HostInfo& host) { return std::max<uint32_t>(host.weight, 1); }

// One locality within a level.
struct Locality {
  uint32_t weight = 0;
  uint32_t hosts = 0;
  std::vector<uint32_t> usable;
};

// By name, so that the order in which hosts are listed does not matter.
std::map<std::string_view, Locality> ByLocality(std::span<const HostInfo> hosts,
                                                std::span<const uint32_t> usable,
                                                std::span<const uint32_t> all) {
  std::map<std::string_view, Locality> localities;
  for (const uint32_t i : all) {
    Locality& locality = localities[hosts[i].zone];
    locality.weight = std::max(locality.weight, hosts[i].locality_weight);
    ++locality.hosts;
  }
  for (const uint32_t i : usable) localities[hosts[i].zone].usable.push_back(i);
  return localities;
}

// Hands out `left` percent to the levels in their order, to each as much as its availability allows
// once all availabilities are scaled to add up to 100. Returns what is left.
uint32_t Distribute(std::span<const uint32_t> availability, uint32_t total_availability,
                    uint32_t left, std::span<uint32_t> percent) {
  for (size_t i = 0; i < availability.size(); ++i) {
    percent[i] = std::min(left, availability[i] * 100 / total_availability);
    left -= percent[i];
  }
  return left;
}

std::optional<size_t> FirstNonZero(std::span<const uint32_t> values) {
  const auto it = std::find_if(values.begin(), values.end(), [](uint32_t v) { return v != 0; });
  if (it == values.end()) return std::nullopt;
  return static_cast<size_t>(it - values.begin());
}

}  // namespace

void PriorityLoad::Compute(const BalancePolicy& policy) {
  if (levels.empty()) return;
  const auto available = [&](uint32_t usable, uint32_t hosts) -> uint32_t {
    if (hosts == 0) return 0;
    return static_cast<uint32_t>(
        std::min<uint64_t>(100, uint64_t{policy.overprovisioning_percent} * usable / hosts));
  };
  std::vector<uint32_t> healthy;
  std::vector<uint32_t> degraded;
  for (const Level& level : levels) {
    healthy.push_back(available(level.healthy_hosts, level.hosts));
    degraded.push_back(available(level.degraded_hosts, level.hosts));
  }
  const uint64_t sum = std::accumulate(healthy.begin(), healthy.end(), uint64_t{0}) +
                       std::accumulate(degraded.begin(), degraded.end(), uint64_t{0});
  const auto total = static_cast<uint32_t>(std::min<uint64_t>(100, sum));

  if (total > 0) {
    std::vector<uint32_t> to_healthy(levels.size());
    std::vector<uint32_t> to_degraded(levels.size());
    uint32_t left = Distribute(healthy, total, 100, to_healthy);
    left = Distribute(degraded, total, left, to_degraded);
    // What rounding down has left over goes to the first level that has anything.
    if (const auto first = FirstNonZero(healthy)) {
      to_healthy[*first] += left;
    } else {
      to_degraded[*FirstNonZero(degraded)] += left;
    }
    for (size_t i = 0; i < levels.size(); ++i) {
      levels[i].healthy_percent = to_healthy[i];
      levels[i].degraded_percent = to_degraded[i];
    }
  }

  // Panic is per level, but only when all levels together cannot take the load.
  const auto threshold =
      static_cast<uint32_t>(std::clamp(policy.panic_threshold_percent, 0.0, 100.0));
  bool all_panic = true;
  for (Level& level : levels) {
    const double usable = level.healthy_hosts + level.degraded_hosts;
    const double percent = level.hosts == 0 ? 0.0 : 100.0 * usable / level.hosts;
    level.panic = total < 100 && percent < threshold;
    all_panic = all_panic && level.panic;
  }
  if (all_panic) {
    SpreadOverAllHosts();
  } else if (total == 0) {
    levels[0].healthy_percent = 100;  // where nobody is; without panic there is no better place
  }
}

// With every level in panic health says nothing, so the number of hosts decides.
void PriorityLoad::SpreadOverAllHosts() {
  uint64_t all_hosts = 0;
  for (const Level& level : levels) all_hosts += level.hosts;
  if (all_hosts == 0) {
    levels[0].healthy_percent = 100;
    return;
  }
  uint32_t left = 100;
  for (Level& level : levels) {
    level.healthy_percent = static_cast<uint32_t>(uint64_t{100} * level.hosts / all_hosts);
    level.degraded_percent = 0;
    left -= level.healthy_percent;
  }
  const auto first = std::find_if(levels.begin(), levels.end(),
                                  [](const Level& level) { return level.hosts > 0; });
  first->healthy_percent += left;
}

void HostSet::Update(std::span<const HostInfo> hosts, const BalancePolicy& policy) {
  sources_.clear();
  targets_.clear();
  single_source_ = false;

  // Levels without hosts would get no load, so only those with hosts are made.
  struct LevelHosts {
    std::vector<uint32_t> all;
    std::vector<uint32_t> healthy;
    std::vector<uint32_t> degraded;
    bool by_locality = false;
  };
  std::map<uint32_t, LevelHosts> by_priority;
  for (uint32_t i = 0; i < hosts.size(); ++i) {
    LevelHosts& level = by_priority[hosts[i].priority];
    level.all.push_back(i);
    if (hosts[i].health == HostHealth::kHealthy) level.healthy.push_back(i);
    if (hosts[i].health == HostHealth::kDegraded) level.degraded.push_back(i);
    if (hosts[i].locality_weight > 0) level.by_locality = true;
  }
  if (by_priority.empty()) return;

  PriorityLoad load;
  for (const auto& [priority, level] : by_priority) {
    load.levels.push_back({.hosts = static_cast<uint32_t>(level.all.size()),
                           .healthy_hosts = static_cast<uint32_t>(level.healthy.size()),
                           .degraded_hosts = static_cast<uint32_t>(level.degraded.size())});
  }
  load.Compute(policy);

  // Healthy hosts of all levels first, then degraded ones: the order in which a request's random
  // number (or hash) is laid over the percentages is part of what Envoy does.
  size_t percent = 0;
  for (const bool degraded : {false, true}) {
    auto level = by_priority.begin();
    for (const PriorityLoad::Level& part : load.levels) {
      const LevelHosts& in_level = (level++)->second;
      const uint32_t share = degraded ? part.degraded_percent : part.healthy_percent;
      if (share == 0) continue;
      const auto target = static_cast<uint16_t>(targets_.size());
      for (uint32_t i = 0; i < share; ++i) target_of_percent_[percent++] = target;
      if (!part.panic) {
        AddTarget(hosts, {degraded ? in_level.degraded : in_level.healthy, in_level.all},
                  in_level.by_locality, policy.overprovisioning_percent);
      } else if (policy.fail_on_panic) {
        targets_.emplace_back();
      } else {
        const bool by_locality = in_level.by_locality && localities_ == Localities::kFolded;
        AddTarget(hosts, {in_level.all, in_level.all}, by_locality,
                  policy.overprovisioning_percent);
      }
    }
  }
  single_source_ =
      targets_.size() == 1 && targets_[0].localities.empty() && targets_[0].source != Target::kNone;
}

std::optional<uint32_t> HostSet::ChooseAmongSeveral(uint64_t random) {
  if (targets_.empty()) return std::nullopt;
  Target& target = targets_[target_of_percent_[random % 100]];
  if (target.source == Target::kNone) return std::nullopt;
  if (target.localities.empty()) return target.source;
  if (!target.started) {
    RandomStream stream(random);
    target.turns.BeginAnywhere(stream);
    target.started = true;
  }
  return target.localities[target.turns.Next()];
}

void HostSet::AddTarget(std::span<const HostInfo> hosts, const Group& group, bool by_locality,
                        uint32_t overprovisioning_percent) {
  Target& target = targets_.emplace_back();
  if (group.usable.empty()) return;
  if (localities_ == Localities::kFolded) {
    target.source = static_cast<uint32_t>(sources_.size());
    FoldLocalities(hosts, group, by_locality);
    return;
  }

  std::vector<double> effective;  // weight times availability, of each locality that has any
  std::map<std::string_view, Locality> localities;
  if (by_locality) localities = ByLocality(hosts, group.usable, group.all);
  for (auto& [zone, locality] : localities) {
    if (locality.weight == 0 || locality.usable.empty()) continue;
    const double available = static_cast<double>(locality.usable.size()) / locality.hosts;
    effective.push_back(locality.weight *
                        std::min(1.0, overprovisioning_percent / 100.0 * available));
    target.localities.push_back(AddSource(hosts, std::move(locality.usable)));
  }
  if (target.localities.empty()) {
    // No locality weights, or none that applies to a usable host.
    target.source = AddSource(hosts, group.usable);
    return;
  }
  target.source = target.localities.front();
  if (target.localities.size() == 1) {
    target.localities.clear();
    return;
  }
  const double scale = (1 << 30) / *std::max_element(effective.begin(), effective.end());
  std::vector<uint32_t> weights;
  weights.reserve(effective.size());
  for (const double weight : effective) weights.push_back(static_cast<uint32_t>(weight * scale));
  target.turns = WeightedTurns(weights);
}

uint32_t HostSet::AddSource(std::span<const HostInfo> hosts, std::vector<uint32_t> indices) {
  Source& source = sources_.emplace_back();
  source.hosts = std::move(indices);
  for (const uint32_t i : source.hosts) source.weights.push_back(WeightOf(hosts[i]));
  return static_cast<uint32_t>(sources_.size() - 1);
}

// A host's share is its part of its locality's weight, and the locality's part of all localities'.
// Availability does not change a locality's part here, as it does not in Envoy's hash policies:
// the shares, and with them the keys' hosts, stay still when single hosts come and go.
void HostSet::FoldLocalities(std::span<const HostInfo> hosts, const Group& group,
                             bool by_locality) {
  std::map<std::string_view, Locality> localities;
  if (by_locality) localities = ByLocality(hosts, group.usable, group.all);
  uint64_t all_weights = 0;
  bool any = false;
  for (const auto& [zone, locality] : localities) {
    all_weights += locality.weight;
    any = any || (locality.weight > 0 && !locality.usable.empty());
  }
  if (!any) {
    localities.clear();
    localities[{}] = {.weight = 1, .hosts = 0, .usable = group.usable};
    all_weights = 1;
  }

  std::vector<uint32_t> indices;
  std::vector<double> shares;
  for (const auto& [zone, locality] : localities) {
    if (locality.weight == 0) continue;
    uint64_t host_weights = 0;
    for (const uint32_t i : locality.usable) host_weights += WeightOf(hosts[i]);
    const double part = static_cast<double>(locality.weight) / static_cast<double>(all_weights);
    for (const uint32_t i : locality.usable) {
      indices.push_back(i);
      shares.push_back(WeightOf(hosts[i]) * part / static_cast<double>(host_weights));
    }
  }
  sources_[AddSource(hosts, std::move(indices))].shares = std::move(shares);
}

}  // namespace metaprotocol
