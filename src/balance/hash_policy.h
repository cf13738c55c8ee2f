// What ring hash and Maglev share: a request's hash (or, without one, its random number) chooses
// both the priority level and the host.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "src/balance/policy.h"
#include "src/balance/table_cache.h"

namespace metaprotocol {

class HashBalancer : public PolicyBalancer {
 public:
  explicit HashBalancer(const BalancePolicy& policy)
      : PolicyBalancer(policy, HostSet::Localities::kFolded) {}

  std::optional<uint32_t> Pick(const PickInput& input) final {
    const uint64_t hash = input.hash.value_or(input.random);
    const std::optional<uint32_t> source = host_set().Choose(hash);
    if (!source) return std::nullopt;
    const std::optional<uint32_t> host = HostFor(*source, hash);
    return host ? host : HostByShare(host_set().sources()[*source], hash);
  }

 protected:
  // Tables for all sources: as make(source) makes them, or as somebody else does.
  template <typename Table, typename Make>
  std::vector<typename TableCache<Table>::Handle> TablesFor(
      std::span<const HostInfo> hosts, std::span<const HostSet::Source> sources, uint64_t smallest,
      uint64_t largest, Make make) const {
    TableCache<Table>& cache = TableCache<Table>::Get();
    std::vector<typename TableCache<Table>::Handle> tables;
    for (const HostSet::Source& source : sources) {
      TableKey key(smallest, largest, hosts, source);
      const bool wait = policy().large_tables_made_elsewhere && EntriesFor(source) > kLargeTable;
      tables.push_back(wait ? cache.Wish(std::move(key))
                            : cache.Find(std::move(key), [&] { return make(source); }));
    }
    return tables;
  }

 private:
  // None while there is no table.
  virtual std::optional<uint32_t> HostFor(uint32_t source, uint64_t hash) const = 0;
  // How many entries, about, the table of a source has.
  virtual size_t EntriesFor(const HostSet::Source& source) const = 0;

  // The same one for the same hash, as long as the hosts are the same.
  static uint32_t HostByShare(const HostSet::Source& source, uint64_t hash) {
    double all = 0;
    for (const double share : source.shares) all += share;
    double left = all * (static_cast<double>(hash >> 11) * 0x1p-53);
    size_t i = 0;
    while (i + 1 < source.shares.size() && left >= source.shares[i]) left -= source.shares[i++];
    return source.hosts[i];
  }
};

}  // namespace metaprotocol
