// Where a route's requests go: clusters by name, looked up once and remembered.
#pragma once

#include <string>

#include "src/engine_context.h"
#include "src/route/route.h"
#include "src/router/protocol_state.h"
#include "src/upstream/worker_hub.h"

namespace metaprotocol {

// Clusters may have come and gone since `target` was last used.
inline void BringUpToDate(SnapshotUse::Target& target, EngineContext& context, WorkerHub& hub,
                          const ProtocolState& protocol, const Route& route,
                          const std::string& cluster) {
  if (target.clusters_epoch == hub.clusters_epoch()) return;
  target.cluster = hub.FindCluster(cluster);
  target.clusters_epoch = hub.clusters_epoch();
  target.series = &context.metrics.Get(protocol.name, route.name, cluster);
}

}  // namespace metaprotocol
