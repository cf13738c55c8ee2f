// Maglev (Eisenbud et al.: "Maglev: A fast and reliable software network load balancer", NSDI 2016,
// section 3.4), weighted as in Envoy: a table of prime size in which every host holds its share of
// the entries. One load per pick, at the price of moving a few more keys than a ring when hosts
// change.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "src/balance/hash_policy.h"

namespace metaprotocol {

class MaglevBalancer final : public HashBalancer {
 public:
  explicit MaglevBalancer(const BalancePolicy& policy);

  // The smallest prime that is at least `n`, between 3 and Envoy's limit of 5,000,011: with another
  // table size a host's permutation would not reach every entry.
  static uint32_t TableSize(uint32_t n);

 private:
  using Table = std::vector<uint32_t>;  // host indices

  void Rebuild(std::span<const HostInfo> hosts, std::span<const HostSet::Source> sources) override;
  std::optional<uint32_t> HostFor(uint32_t source, uint64_t hash) const override {
    const Table* const table = tables_[source].get();
    if (table == nullptr) return std::nullopt;
    return (*table)[hash % table_size_];
  }
  size_t EntriesFor(const HostSet::Source&) const override { return table_size_; }
  Table MakeTable(std::span<const HostInfo> hosts, const HostSet::Source& source) const;

  const uint32_t table_size_;
  std::vector<TableCache<Table>::Handle> tables_;  // by source
};

}  // namespace metaprotocol
