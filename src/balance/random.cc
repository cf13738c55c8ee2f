#include "src/balance/random.h"

#include <limits>

namespace metaprotocol {
namespace {

// As Slot::own_below: the alias is (next to) never taken.
constexpr uint64_t kAlways = std::numeric_limits<uint64_t>::max();

}  // namespace

std::optional<uint32_t> RandomBalancer::Pick(const PickInput& input) {
  const std::optional<uint32_t> source = host_set().Choose(input.random);
  if (!source) return std::nullopt;
  const AliasTable& table = tables_[*source];
  RandomStream random(input.random);
  const Slot& slot = table[random.Below(table.size())];
  return random.Next() < slot.own_below ? slot.own : slot.alias;
}

void RandomBalancer::Rebuild(std::span<const HostInfo>, std::span<const HostSet::Source> sources) {
  tables_.clear();
  for (const HostSet::Source& source : sources) tables_.push_back(MakeTable(source));
}

// Slots hold one unit of probability each; a host has weight * n / sum(weights) units. Slots of
// hosts with less than one are filled up from hosts with more. Whole numbers, in units of
// 1 / sum(weights), so that nothing is lost.
RandomBalancer::AliasTable RandomBalancer::MakeTable(const HostSet::Source& source) {
  const size_t count = source.hosts.size();
  uint64_t sum = 0;
  for (const uint32_t weight : source.weights) sum += weight;
  if (sum == 0) return {};  // no hosts: there are no such sources

  using Wide = unsigned __int128;
  std::vector<Wide> mass;
  std::vector<uint32_t> small;
  std::vector<uint32_t> large;
  for (uint32_t i = 0; i < count; ++i) {
    mass.push_back(Wide{source.weights[i]} * count);
    (mass[i] < sum ? small : large).push_back(i);
  }

  AliasTable table;
  for (const uint32_t host : source.hosts) table.push_back({kAlways, host, host});
  while (!small.empty()) {
    const uint32_t poor = small.back();
    const uint32_t rich = large.back();
    small.pop_back();
    table[poor].own_below = static_cast<uint64_t>((mass[poor] << 64) / sum);
    table[poor].alias = source.hosts[rich];
    mass[rich] -= sum - mass[poor];
    if (mass[rich] < sum) {
      large.pop_back();
      small.push_back(rich);
    }
  }
  return table;
}

}  // namespace metaprotocol
