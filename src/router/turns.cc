#include "src/router/turns.h"

#include <algorithm>
#include <map>
#include <string_view>
#include <utility>

namespace metaprotocol {
namespace {

bool SameWeights(const Route& a, const Route& b) {
  return std::equal(a.clusters.begin(), a.clusters.end(), b.clusters.begin(), b.clusters.end(),
                    [](const Route::WeightedCluster& left, const Route::WeightedCluster& right) {
                      return left.weight == right.weight && left.name == right.name;
                    });
}

}  // namespace

void ContinueTurns(const SnapshotUse& before, SnapshotUse& now) {
  using Names = std::pair<std::string_view, std::string_view>;  // table and route, of `before`
  std::map<Names, const Route*> weighted;
  for (const Snapshot::Table& table : before.snapshot->tables) {
    for (const Route* route : table.routes->routes()) {
      if (!route->schedule.empty()) {
        weighted.emplace(Names(table.routes->name(), route->name), route);
      }
    }
  }
  if (weighted.empty()) return;
  for (const Snapshot::Table& table : now.snapshot->tables) {
    for (const Route* route : table.routes->routes()) {
      if (route->schedule.empty()) continue;
      const auto it = weighted.find({table.routes->name(), route->name});
      if (it == weighted.end() || !SameWeights(*it->second, *route)) continue;
      const SnapshotUse::RouteState& old = before.routes[it->second->index];
      if (old.targets.empty() && !old.continued) continue;  // it has not begun
      SnapshotUse::RouteState& state = now.routes[route->index];
      state.cursor = old.cursor;
      state.continued = true;
    }
  }
}

}  // namespace metaprotocol
