// One cluster's part of the configuration.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "src/balance/balancer.h"
#include "src/balance/slow_start.h"
#include "src/base/priority.h"

namespace metaprotocol {

class ConnectionCount;
class OutlierDetector;

// How a protocol's requests use upstream connections.
enum class UpstreamMode : uint8_t {
  kShared,      // many clients' requests on one connection, told apart by correlation id
  kExclusive,   // one request at a time on a connection, reused afterwards
  kPerSession,  // a connection (per cluster) belongs to one client connection
};

// What the requests of one priority may use. Those of the other have their own connections, and
// are not counted here.
struct PriorityBounds {
  // Per worker and host.
  uint32_t max_leases_per_host = 1024;
  // Shared by all workers; null: any number. Each worker may have one to each host anyway, so that
  // nobody waits for what others leave.
  std::shared_ptr<ConnectionCount> connections;
  uint32_t max_requests_in_flight = 65536;  // per worker; above: over-limit reply
  uint32_t max_pending_requests = 4096;     // waiting for exclusive leases to all hosts; likewise
  // Retries under way, of the requests under way, and so many in any case.
  double retry_budget_percent = 20;
  uint32_t min_retries_in_flight = 10;
};

// One cluster's part, which travels in its load balancing policy's configuration. Its own bounds
// are those of requests without a priority.
struct ClusterPolicy : PriorityBounds {
  BalancePolicy balance;
  PriorityBounds high;
  // Shared leases: another one is opened when every present one has this many open exchanges, up to
  // max_shared_leases_per_host.
  uint32_t exchanges_per_shared_lease = 128;
  uint32_t max_shared_leases_per_host = 4;
  size_t max_bytes_in_flight = size_t{256} << 20;       // request bytes without reply; likewise
  size_t max_lease_bytes_in_flight = size_t{16} << 20;  // above: another lease, or over-limit
  uint32_t max_requests_per_connection = 0;             // 0: any number
  uint64_t lease_idle_timeout_us = uint64_t{1} * 1000 * 1000;  // then it goes back to the pool
  uint64_t connect_timeout_us = uint64_t{5} * 1000 * 1000;     // for a lease to become ready
  // Shared by all workers; null: every host is as its owner says.
  std::shared_ptr<OutlierDetector> outliers;
  std::optional<SlowStart> slow_start = {};  // of hosts that are new; nothing: all are alike

  const PriorityBounds& Of(Priority priority) const {
    return priority == Priority::kHigh ? high : *this;
  }
};

}  // namespace metaprotocol
