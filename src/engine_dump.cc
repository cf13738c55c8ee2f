#include "src/engine_dump.h"

#include <nlohmann/json.hpp>

#include "src/session/session_manager.h"
#include "src/upstream/worker_hub.h"

namespace metaprotocol {
namespace {

nlohmann::json DumpLease(const Lease& lease) {
  const char* state = lease.state == Lease::State::kOpening ? "opening"
                      : lease.draining                      ? "draining"
                                                            : "ready";
  return {{"state", state},
          {"exchanges", lease.attempt_count},
          {"bytes_in_flight", lease.bytes_in_flight}};
}

nlohmann::json DumpHost(const UpstreamHost& host) {
  nlohmann::json leases = nlohmann::json::array();
  for (const auto& pool : host.pools) {
    for (const Lease* lease : pool->leases) {
      nlohmann::json entry = DumpLease(*lease);
      entry["protocol"] = pool->protocol->name;
      leases.push_back(std::move(entry));
    }
  }
  return {{"address", host.address},
          {"member", host.index != UpstreamHost::kNoIndex},
          {"ejected", host.outlier != nullptr && host.outlier->ejected()},
          {"exchanges", host.active},
          {"leases", std::move(leases)}};
}

}  // namespace

std::string DumpEngine(const SessionManager& sessions, size_t exchanges, size_t mirrors,
                       const WorkerHub& hub) {
  nlohmann::json protocols = nlohmann::json::array();
  sessions.ForEachProtocol([&](const ProtocolState& protocol) {
    if (protocol.current == nullptr) return;
    const Snapshot& snapshot = *protocol.current->snapshot;
    protocols.push_back({{"name", protocol.name},
                         {"codec", std::string(snapshot.codec->traits().name)},
                         {"configuration", protocol.version},
                         {"configurations_in_use", protocol.snapshots.size()},
                         {"routes", snapshot.route_count},
                         {"sessions", protocol.sessions}});
  });
  nlohmann::json clusters = nlohmann::json::array();
  hub.ForEachCluster([&](Cluster& cluster) {
    nlohmann::json hosts = nlohmann::json::array();
    cluster.ForEachHost([&](UpstreamHost& host) { hosts.push_back(DumpHost(host)); });
    clusters.push_back({{"name", cluster.name()},
                        {"exchanges", cluster.attempts()},
                        {"bytes_in_flight", cluster.bytes_in_flight()},
                        {"hosts", std::move(hosts)}});
  });
  const nlohmann::json dump = {{"sessions", sessions.session_count()},
                               {"exchanges", exchanges},
                               {"mirrors", mirrors},
                               {"leases", hub.lease_count()},
                               {"protocols", std::move(protocols)},
                               {"clusters", std::move(clusters)}};
  return dump.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace metaprotocol
