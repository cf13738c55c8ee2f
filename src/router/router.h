// The router: the last of a request's way through the engine. Which of its route's clusters takes
// it, how long that may take, and who else gets a copy.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string_view>

#include "src/base/request_view.h"
#include "src/engine_context.h"
#include "src/route/route.h"
#include "src/router/mirrors.h"
#include "src/router/protocol_state.h"
#include "src/router/request_origin.h"
#include "src/router/retries.h"
#include "src/upstream/worker_hub.h"

namespace metaprotocol {

class Router {
 public:
  Router(EngineContext& context, WorkerHub& hub)
      : context_(context), hub_(hub), mirrors_(context, hub), retries_(context) {}

  // What a request is sent with, besides itself.
  struct Sender {
    const RequestOrigin& origin;
    SnapshotUse& use;
    const Route& route;
  };

  // Which cluster the next request of the route goes to. Nearly always it is the only one, and
  // known already.
  SnapshotUse::Target& ChooseTarget(const Sender& sender) {
    SnapshotUse::RouteState& state = sender.use.routes[sender.route.index];
    if (sender.route.schedule.empty() && !state.targets.empty() &&
        state.targets.front().clusters_epoch == hub_.clusters_epoch()) {
      return state.targets.front();
    }
    return ChooseAmongAll(sender);
  }
  // The same one again: clusters may have come and gone.
  void LookUp(const Sender& sender, SnapshotUse::Target& target);
  // As WorkerHub::Start. `mutation`: of the request; `timeout_us`: for this attempt, 0: none;
  // `avoid`: the address of a host that is only taken if there is no other. A result may have no
  // text: then LocalReplyText says it.
  std::optional<AttemptResult> Start(const Sender& sender, const SnapshotUse::Target& target,
                                     Attempt& attempt, const RequestView& request,
                                     const Mutation& mutation, uint64_t timeout_us,
                                     std::string_view avoid) {
    if (target.cluster == nullptr) return NoCluster();
    std::optional<uint64_t> hash;
    if (!sender.route.hash_keys.empty()) hash = HashOf(sender, request.message);
    return hub_.Start(attempt, {sender.use.upstream,
                                sender.origin.leases,
                                *target.cluster,
                                mutation,
                                request,
                                {hash, request.message.length, avoid},
                                timeout_us < request.message.timeout_us ? timeout_us : 0,
                                sender.route.priority});
  }
  // To be called after Start: what was forwarded is copied to the route's mirrors, with the same
  // changes.
  void Mirror(const Sender& sender, const RequestView& request, const Mutation& mutation);
  // For all attempts together: the shorter one of the route's and the client's own; 0: none.
  static uint64_t TimeoutUs(const Snapshot& snapshot, const Route& route, const Message& message) {
    const uint64_t ours = route.timeout_us != 0 ? route.timeout_us : snapshot.default_timeout_us;
    if (ours == 0 || message.timeout_us == 0) return std::max(ours, message.timeout_us);
    return std::min(ours, message.timeout_us);
  }
  // For one attempt, if that much is left for all: 0: none, both ways.
  static uint64_t TryTimeoutUs(const Route& route, uint64_t left_us);

  Retries& retries() { return retries_; }
  Mirrors& mirrors() { return mirrors_; }
  const Mirrors& mirrors() const { return mirrors_; }

 private:
  SnapshotUse::Target& ChooseAmongAll(const Sender& sender);
  static AttemptResult NoCluster();
  static std::optional<uint64_t> HashOf(const Sender& sender, const Message& message);

  EngineContext& context_;
  WorkerHub& hub_;
  Mirrors mirrors_;
  Retries retries_;
};

}  // namespace metaprotocol
