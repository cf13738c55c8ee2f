#include "src/upstream/cluster.h"

#include <algorithm>

namespace metaprotocol {

HostPool& UpstreamHost::PoolFor(ProtocolState& protocol, uint32_t upstream_kind) {
  for (const auto& pool : pools) {
    if (&pool->protocol == &protocol && pool->upstream_kind == upstream_kind) return *pool;
  }
  return *pools.emplace_back(std::make_unique<HostPool>(*this, protocol, upstream_kind));
}

bool UpstreamHost::idle() const {
  return active == 0 && std::all_of(pools.begin(), pools.end(), [](const auto& pool) {
           return pool->leases.empty() && pool->waiting.empty();
         });
}

void Cluster::ForgetIdleHosts() {
  std::erase_if(hosts_, [](const auto& entry) {
    UpstreamHost& host = *entry.second;
    std::erase_if(host.pools, [](const auto& pool) {
      return !pool->current() && pool->leases.empty() && pool->waiting.empty();
    });
    return host.index == UpstreamHost::kNoIndex && host.idle();
  });
}

}  // namespace metaprotocol
