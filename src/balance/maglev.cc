#include "src/balance/maglev.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "src/base/prime.h"

namespace metaprotocol {
namespace {

constexpr uint32_t kSmallestTable = 3;
constexpr uint32_t kLargestTable = 5000011;  // itself a prime

constexpr uint32_t kFree = ~uint32_t{0};  // a table entry without host yet

}  // namespace

MaglevBalancer::MaglevBalancer(const BalancePolicy& policy)
    : HashBalancer(policy), table_size_(TableSize(policy.maglev_table_size)) {}

uint32_t MaglevBalancer::TableSize(uint32_t n) {
  n = std::clamp(n, kSmallestTable, kLargestTable);
  while (!IsPrime(n)) ++n;
  return n;
}

void MaglevBalancer::Rebuild(std::span<const HostInfo> hosts,
                             std::span<const HostSet::Source> sources) {
  // The former ones are dropped last: nothing may have changed.
  auto tables =
      TablesFor<Table>(hosts, sources, table_size_, table_size_,
                       [&](const HostSet::Source& source) { return MakeTable(hosts, source); });
  tables_.swap(tables);
}

MaglevBalancer::Table MaglevBalancer::MakeTable(std::span<const HostInfo> hosts,
                                                const HostSet::Source& source) const {
  // Hosts fill the table in turns, each taking the next free entry of its own permutation of the
  // table. The order of the turns must not depend on how the hosts happen to be listed.
  struct Filler {
    uint32_t host;
    double share;
    uint64_t skip;
    uint64_t next;   // entry of the permutation to try
    double due = 0;  // the host has its turn in the first iteration i with i * share >= due
  };
  std::vector<size_t> order(source.hosts.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return hosts[source.hosts[a]].address < hosts[source.hosts[b]].address;
  });
  std::vector<Filler> fillers;
  for (const size_t i : order) {
    const std::string& address = hosts[source.hosts[i]].address;
    fillers.push_back({.host = source.hosts[i],
                       .share = source.shares[i],
                       .skip = HashKey(address, 1) % (table_size_ - 1) + 1,
                       .next = HashKey(address) % table_size_});
  }

  Table table(table_size_, kFree);
  const double most = *std::max_element(source.shares.begin(), source.shares.end());
  uint32_t filled = 0;
  for (uint64_t iteration = 1; filled < table_size_; ++iteration) {
    for (Filler& filler : fillers) {
      if (filled == table_size_) break;
      if (static_cast<double>(iteration) * filler.share < filler.due) continue;
      filler.due += most;
      while (table[filler.next] != kFree) {
        filler.next += filler.skip;
        if (filler.next >= table_size_) filler.next -= table_size_;
      }
      table[filler.next] = filler.host;
      ++filled;
    }
  }
  return table;
}

}  // namespace metaprotocol
