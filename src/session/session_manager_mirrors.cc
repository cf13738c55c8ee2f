// Mirrors: copies of requests for other clusters, whose replies nobody waits for.
//
// A copy is an exchange without a session. So nothing of it can reach a client, it occupies nothing
// of a session's bounds, and it lives on when the session ends; the bounds of its own cluster hold.
#include "src/session/session_manager.h"

namespace metaprotocol {
namespace {

// For routes without a timeout: no client's leaving ends a copy.
constexpr uint64_t kMirrorTimeoutUs = 60 * 1000 * 1000;

}  // namespace

// `message` has been forwarded; `bytes` is what was there of it.
void SessionManager::MirrorRequest(Session& session, SnapshotUse& use, const Route& route,
                                   const Message& message, Bytes bytes,
                                   std::optional<uint64_t> hash) {
  SnapshotUse::RouteState& state = use.routes[route.index];
  state.mirrors.resize(route.mirrors.size());
  for (size_t i = 0; i < route.mirrors.size(); ++i) {
    const Route::Mirror& mirror = route.mirrors[i];
    if (mirror.chance != Route::kAlways && context_.Random() >> 32 >= mirror.chance) continue;
    SnapshotUse::Target& target = state.mirrors[i];
    if (target.clusters_epoch != hub_->clusters_epoch()) {
      LookUp(target, session.protocol, route, mirror.cluster);
    }
    if (bytes.size() < message.length) {
      target.series->Add(Counter::kMirrorSkipped);
    } else {
      SendCopy(session, use, route, target, message, bytes, hash);
    }
  }
}

void SessionManager::SendCopy(Session& session, SnapshotUse& use, const Route& route,
                              const SnapshotUse::Target& target, const Message& message,
                              Bytes bytes, std::optional<uint64_t> hash) {
  Exchange& copy = exchange_pool_.Acquire();
  copy.state = Exchange::State::kNew;
  copy.is_mirror = true;
  copy.expects_reply = message.kind == MessageKind::kRequest;
  copy.snapshot = &use;
  ++copy.snapshot->users;
  copy.route = &route;
  copy.series = target.series;
  copy.bytes = message.length;
  copy.series->Add(Counter::kMirrorRequests);
  copy.series->Add(Gauge::kExchangesActive, 1);
  ++mirror_count_;

  std::optional<LocalReply> refused = LocalReply::kClusterNotFound;
  if (target.cluster != nullptr) {
    refused =
        hub_->Dispatch(copy, {session.protocol, session, *target.cluster, message, bytes, hash});
  }
  if (refused) {
    Failed(copy, *refused, {});
  } else if (!copy.expects_reply && copy.state == Exchange::State::kNew) {
    Sent(copy);
  } else {
    const uint64_t configured =
        route.timeout_us != 0 ? route.timeout_us : use.snapshot->default_timeout_us;
    const uint64_t timeout = configured != 0 ? configured : kMirrorTimeoutUs;
    context_.Arm(copy.deadline, context_.now_us() + timeout);
  }
}

// More of the copy's reply has come: nobody wants it.
bool SessionManager::MirrorReply(Exchange& copy, bool complete) {
  copy.state = Exchange::State::kReplying;
  if (!complete) return true;
  copy.series->Add(Counter::kMirrorReplies);
  hub_->Finish(copy);
  EndMirror(copy);
  return true;
}

// The hub is done with it already.
void SessionManager::EndMirror(Exchange& copy) {
  copy.is_mirror = false;
  copy.deadline.Cancel();
  --mirror_count_;
  Recycle(copy);
}

}  // namespace metaprotocol
