#include "src/router/router.h"

#include <algorithm>

#include "src/router/targets.h"

namespace metaprotocol {

SnapshotUse::Target& Router::ChooseAmongAll(const Sender& sender) {
  const Route& route = sender.route;
  SnapshotUse::RouteState& state = sender.use.routes[route.index];
  if (state.targets.empty()) {
    state.targets.resize(route.clusters.size());
    // Anywhere: workers that all begin with the first would send it what others should have.
    if (!route.schedule.empty() && !state.continued) {
      state.cursor = static_cast<uint32_t>(context_.Random() % route.schedule.size());
    }
  }
  size_t choice = 0;
  if (!route.schedule.empty()) {
    choice = route.schedule[state.cursor];
    state.cursor = state.cursor + 1 < route.schedule.size() ? state.cursor + 1 : 0;
  }
  SnapshotUse::Target& target = state.targets[choice];
  BringUpToDate(target, context_, hub_, sender.origin.protocol, route, route.clusters[choice].name);
  return target;
}

void Router::LookUp(const Sender& sender, SnapshotUse::Target& target) {
  const SnapshotUse::RouteState& state = sender.use.routes[sender.route.index];
  const auto choice = static_cast<size_t>(&target - state.targets.data());
  BringUpToDate(target, context_, hub_, sender.origin.protocol, sender.route,
                sender.route.clusters[choice].name);
}

AttemptResult Router::NoCluster() {
  AttemptResult refused;
  refused.reply = LocalReply::kClusterNotFound;
  return refused;
}

void Router::Mirror(const Sender& sender, const RequestView& request, const Mutation& mutation) {
  mirrors_.Copy(sender.origin, sender.use, sender.route, request, mutation,
                HashOf(sender, request.message));
}

uint64_t Router::TryTimeoutUs(const Route& route, uint64_t left_us) {
  const uint64_t each = route.retry != nullptr ? route.retry->per_try_timeout_us : 0;
  if (each == 0 || left_us == 0) return std::max(each, left_us);
  return std::min(each, left_us);
}

std::optional<uint64_t> Router::HashOf(const Sender& sender, const Message& message) {
  std::optional<uint64_t> hash;
  if (sender.route.hash_keys.empty()) return hash;
  for (const KeyRef& key : sender.route.hash_keys) {
    const auto value = key.Find({message.metadata, sender.origin.connection});
    if (value) hash = HashKey(*value, hash.value_or(0));
  }
  return hash;
}

}  // namespace metaprotocol
