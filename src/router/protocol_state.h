// What one worker knows of one configured protocol (one filter name): the snapshot in use, and what
// routes have to remember between requests.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "src/config/config_slot.h"
#include "src/config/snapshot.h"
#include "src/host/log_sink.h"
#include "src/observe/metrics_book.h"
#include "src/telemetry/request_metrics.h"
#include "src/upstream/upstream_protocol.h"

namespace metaprotocol {

class Cluster;

// A worker's own handle of a snapshot. Sessions and exchanges count their use of it here, without
// atomic operations, instead of copying the shared pointer.
struct SnapshotUse {
  // Where a route's requests go, looked up once and remembered.
  struct Target {
    uint64_t clusters_epoch = 0;  // of `cluster`; WorkerHub::clusters_epoch() begins at 1
    Cluster* cluster = nullptr;
    Series* series = nullptr;
  };
  struct RouteState {
    uint32_t cursor = 0;           // into Route::schedule
    bool continued = false;        // `cursor` is where the configuration before has stopped
    std::vector<Target> targets;   // parallel to Route::clusters; sized on first use
    std::vector<Target> mirrors;   // parallel to Route::mirrors; likewise
    Series* own_series = nullptr;  // for what happens before a cluster is chosen
  };

  std::shared_ptr<const Snapshot> snapshot;
  std::vector<RouteState> routes;      // by Route::index
  std::vector<Series*> filter_series;  // by Snapshot::filter_metrics; made on first use
  Series* no_route_series = nullptr;
  Series* protocol_series = nullptr;           // labels: the protocol alone
  bool is_told = false;                        // somebody is told of ended requests
  std::vector<std::shared_ptr<LogSink>> logs;  // parallel to Telemetry::logs
  RequestSeriesTable request_series;           // of Telemetry::metrics
  // ProtocolState::upstream. Of the type that the hub takes: to convert the pointer for each
  // request would count its references up and down, which in a process with threads costs as much
  // as a hundred other instructions.
  std::shared_ptr<const UpstreamProtocol> upstream;
  bool ordered_replies = false;  // CodecTraits::ordered_replies
  uint64_t users = 0;
};

struct ProtocolState {
  std::shared_ptr<ConfigSlot> slot;
  std::string name;
  uint64_t version = 0;  // of the slot, when `current` was taken
  SnapshotUse* current = nullptr;
  std::vector<std::unique_ptr<SnapshotUse>> snapshots;  // current, and older ones still in use
  // Of the current snapshot, kept up to date. Snapshots with the same codec and mode have the same,
  // and so share upstream connections.
  std::shared_ptr<UpstreamProtocol> upstream;
  Series* series = nullptr;  // labels: the protocol alone
  uint32_t sessions = 0;
};

}  // namespace metaprotocol
