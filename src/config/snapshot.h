// Snapshots: one immutable, completely checked configuration each.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "src/codec/codec.h"
#include "src/codec/registry.h"
#include "src/config/cluster_policy.h"
#include "src/config/config_error.h"
#include "src/filter/filter.h"
#include "src/filter/filter_chain.h"
#include "src/route/route_table.h"
#include "src/telemetry/telemetry.h"

namespace metaprotocol {

struct SessionLimits {
  size_t max_message_bytes = size_t{16} << 20;
  // Messages longer than this are passed through as they arrive, where the codec can route on the
  // head and nothing asks for more.
  size_t stream_message_bytes = size_t{32} << 10;
  uint32_t max_requests_in_flight = 1024;            // then the session is not read
  size_t max_bytes_in_flight = size_t{32} << 20;     // request bytes without reply; likewise
  size_t max_unread_reply_bytes = size_t{32} << 20;  // not taken by the client: closed above this
  uint32_t max_sessions_per_worker = 100000;         // more are refused
  // Unfinished messages and replies that wait, of all sessions together; above, who has most goes.
  size_t max_buffered_bytes_per_worker = size_t{512} << 20;
  // Of requests that may be tried again, of all sessions together; what is beyond is not tried
  // again.
  size_t max_kept_bytes_per_worker = size_t{64} << 20;
  uint64_t idle_timeout_us = uint64_t{3600} * 1000 * 1000;  // no request open, no byte read; 0: off
  uint64_t slow_client_timeout_us = uint64_t{30} * 1000 * 1000;  // nothing drained; 0: off
  // How long a message may take from its first byte to its last; 0: off.
  uint64_t message_timeout_us = uint64_t{60} * 1000 * 1000;
  uint32_t max_streams = 100;  // open at once; more are refused
  // A stream on which nothing was passed on for this long is reset; 0: off.
  uint64_t stream_idle_timeout_us = uint64_t{300} * 1000 * 1000;
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
  Telemetry telemetry;

  struct Table {
    std::unique_ptr<const RouteTable> routes;
    // "10.0.0.1:20880", "*:20880", "10.0.0.1:*": sessions accepted there use this table.
    std::vector<std::string> destinations;
    // What its requests pass, in order.
    struct NamedFilter {
      std::string name;
      std::shared_ptr<const Filter> filter;
    };
    std::vector<NamedFilter> filters = {};
    // What the requests of one route pass in place of filters[position]; null: nothing.
    struct RouteFilter {
      uint32_t route = 0;  // Route::index
      size_t position = 0;
      std::shared_ptr<const Filter> filter;
    };
    std::vector<RouteFilter> route_filters = {};
    // Of `filters`, those that see requests before their route is known. Made by Compile().
    std::vector<const Filter*> before_route = {};
  };
  std::vector<Table> tables;  // at least one; the first is the default
  uint32_t route_count = 0;   // over all tables; Route::index is below it

  // What any route or filter looks at in requests, and the same in the codec's terms.
  MetadataKeys request_keys;
  Interest request_interest;
  // What any filter looks at in responses; nothing if none does.
  MetadataKeys response_keys;
  Interest response_interest;

  FilterMetrics filter_metrics;

  // Makes the filters' chains, and finds out what codecs are asked for. To be called once all the
  // rest is there.
  void Compile();
  // What the requests of a route pass.
  const FilterChain& ChainOf(const Route& route) const { return *chain_of_route_[route.index]; }

  const Table& TableFor(std::string_view address, uint32_t port) const;
  // Goes on with what the filters of `before` have counted in the same places. To be called before
  // anybody else knows of this snapshot.
  void ContinueWith(const Snapshot& before) const;

 private:
  std::vector<std::unique_ptr<const FilterChain>> chains_;
  std::vector<const FilterChain*> chain_of_route_;  // by Route::index
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
