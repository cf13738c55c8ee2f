// Snapshots: one immutable, completely checked configuration each.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "src/balance/balancer.h"
#include "src/codec/codec.h"
#include "src/codec/registry.h"
#include "src/config/config_error.h"
#include "src/limit/global_rate_limit.h"
#include "src/limit/local_rate_limit.h"
#include "src/route/route_table.h"

namespace metaprotocol {

// How a protocol's requests use upstream connections.
enum class UpstreamMode : uint8_t {
  kShared,      // many clients' requests on one connection, told apart by correlation id
  kExclusive,   // one request at a time on a connection, reused afterwards
  kPerSession,  // a connection (per cluster) belongs to one client connection
};

struct SessionLimits {
  size_t max_message_bytes = size_t{16} << 20;
  // Messages longer than this are passed through as they arrive, where the codec can route on the
  // head and nothing asks for more.
  size_t stream_message_bytes = size_t{32} << 10;
  uint32_t max_requests_in_flight = 1024;            // then the session is not read
  size_t max_bytes_in_flight = size_t{32} << 20;     // request bytes without reply; likewise
  size_t max_unread_reply_bytes = size_t{32} << 20;  // not taken by the client: closed above this
  uint32_t max_sessions_per_worker = 100000;         // more are refused
  uint64_t idle_timeout_us = uint64_t{3600} * 1000 * 1000;  // no request open, no byte read; 0: off
  uint64_t slow_client_timeout_us = uint64_t{30} * 1000 * 1000;  // nothing drained; 0: off
  // How long a message may take from its first byte to its last; 0: off.
  uint64_t message_timeout_us = uint64_t{60} * 1000 * 1000;
};

// One network filter's configuration.
struct Snapshot {
  std::string name;  // identifies the filter over its configurations; label `protocol` of metrics
  std::string listener_name;  // of Envoy's listener that the filter is in; "": not told
  std::shared_ptr<const Codec> codec;
  // The codec's name and options: snapshots with equal keys can share upstream connections.
  std::string codec_key;
  UpstreamMode upstream_mode = UpstreamMode::kShared;
  SessionLimits limits;
  uint64_t default_timeout_us = 0;  // where a route has none; 0: none

  struct Table {
    std::unique_ptr<const RouteTable> routes;
    // "10.0.0.1:20880", "*:20880", "10.0.0.1:*": sessions accepted there use this table.
    std::vector<std::string> destinations;
    std::unique_ptr<LocalRateLimit> local_rate_limit = {};          // null: none
    std::unique_ptr<const GlobalRateLimit> global_rate_limit = {};  // likewise
  };
  std::vector<Table> tables;  // at least one; the first is the default
  uint32_t route_count = 0;   // over all tables; Route::index is below it

  // What any route, limit or filter looks at in requests, and the same in the codec's terms.
  MetadataKeys request_keys;
  Interest request_interest;

  const Table& TableFor(std::string_view address, uint32_t port) const;
  // Goes on with the levels of the token buckets that `before` has in the same places. To be called
  // before anybody else knows of this snapshot.
  void ContinueWith(const Snapshot& before) const;
};

// One cluster's part, which travels in its load balancing policy's configuration.
struct ClusterPolicy {
  BalancePolicy balance;
  // Per worker and host.
  uint32_t max_leases_per_host = 1024;
  // Shared leases: another one is opened when every present one has this many open exchanges, up to
  // max_shared_leases_per_host.
  uint32_t exchanges_per_shared_lease = 128;
  uint32_t max_shared_leases_per_host = 4;
  uint32_t max_requests_in_flight = 65536;              // per worker; above: over-limit reply
  size_t max_bytes_in_flight = size_t{256} << 20;       // request bytes without reply; likewise
  size_t max_lease_bytes_in_flight = size_t{16} << 20;  // above: another lease, or over-limit
  uint32_t max_pending_requests = 4096;                 // waiting for an exclusive lease; likewise
  uint64_t lease_idle_timeout_us = uint64_t{3} * 1000 * 1000;  // then it goes back to the pool
  uint64_t connect_timeout_us = uint64_t{5} * 1000 * 1000;     // for a lease to become ready
};

struct SnapshotOrErrors {
  std::shared_ptr<const Snapshot> snapshot;  // null if there are errors
  std::vector<ConfigError> errors;
  std::vector<ConfigError> warnings;  // valid, but hardly meant: for the log
};
struct ClusterPolicyOrErrors {
  std::shared_ptr<const ClusterPolicy> policy;
  std::vector<ConfigError> errors;
};

// `json` is proto3-JSON of metaprotocol.config.v1.ProxyConfig / ClusterPolicy (api/).
SnapshotOrErrors LoadSnapshot(std::string_view json, const CodecRegistry& codecs);
ClusterPolicyOrErrors LoadClusterPolicy(std::string_view json);

}  // namespace metaprotocol
