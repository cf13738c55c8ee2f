#include "src/router/mirrors.h"

#include "src/router/targets.h"

namespace metaprotocol {
namespace {

// For routes without a timeout: no client's leaving ends a copy.
constexpr uint64_t kMirrorTimeoutUs = 60 * 1000 * 1000;

}  // namespace

void Mirrors::Copy(const RequestOrigin& origin, SnapshotUse& use, const Route& route,
                   const RequestView& request, const Mutation& mutation,
                   std::optional<uint64_t> hash) {
  const Message& message = request.message;
  SnapshotUse::RouteState& state = use.routes[route.index];
  state.mirrors.resize(route.mirrors.size());
  for (size_t i = 0; i < route.mirrors.size(); ++i) {
    const Route::Mirror& mirror = route.mirrors[i];
    if (mirror.chance != Route::kAlways && context_.Random() >> 32 >= mirror.chance) continue;
    SnapshotUse::Target& target = state.mirrors[i];
    BringUpToDate(target, context_, hub_, origin.protocol, route, mirror.cluster);
    if (!request.whole()) {
      target.series->Add(Counter::kMirrorSkipped);
      continue;
    }

    MirrorCopy& copy = pool_.Acquire();
    copy.sink = this;
    copy.snapshot = &use;
    ++use.users;
    copy.series = target.series;
    copy.series->Add(Counter::kMirrorRequests);
    copy.series->Add(Gauge::kExchangesActive, 1);
    ++count_;
    if (target.cluster == nullptr) {
      Finish(copy, AttemptResult::Cause::kRefused);
      continue;
    }
    const uint64_t configured =
        route.timeout_us != 0 ? route.timeout_us : use.snapshot->default_timeout_us;
    const uint64_t shorter = configured < message.timeout_us ? configured : 0;  // than the client's
    const auto ended = hub_.Start(copy, {use.upstream,
                                         origin.mirror_leases,
                                         *target.cluster,
                                         mutation,
                                         request,
                                         {hash, message.length},
                                         shorter});
    if (ended) {
      Finish(copy, ended->cause);
      continue;
    }
    const uint64_t timeout = configured != 0 ? configured : kMirrorTimeoutUs;
    context_.Arm(copy.deadline, context_.now_us() + timeout);
  }
}

void Mirrors::CopyTimer(Timer& timer) {
  MirrorCopy& copy = timer.owner<MirrorCopy>();
  Finish(copy, hub_.Abandon(copy, AttemptResult::Cause::kTimedOut).cause);
}

void Mirrors::OnWholeReply(Attempt& attempt, const UpstreamHost& /*host*/, const Codec& /*codec*/,
                           Message& /*message*/, Bytes /*bytes*/) {
  Finish(static_cast<MirrorCopy&>(attempt), AttemptResult::Cause::kReplied);
}

Handled Mirrors::OnReply(Attempt& /*attempt*/, const Codec& /*codec*/, Message& /*message*/,
                         Bytes /*bytes*/) {
  return Handled::kDone;
}

void Mirrors::OnReplyBody(Attempt& /*attempt*/, Bytes /*bytes*/) {}

void Mirrors::OnAttemptEnd(Attempt& attempt, const AttemptResult& result) {
  Finish(static_cast<MirrorCopy&>(attempt), result.cause);
}

void Mirrors::Finish(MirrorCopy& copy, AttemptResult::Cause cause) {
  if (cause == AttemptResult::Cause::kReplied) {
    copy.series->Add(Counter::kMirrorReplies);
  } else if (cause != AttemptResult::Cause::kSent) {
    copy.series->Add(Counter::kMirrorFailures);
  }
  copy.series->Add(Gauge::kExchangesActive, -1);
  copy.deadline.Cancel();
  --copy.snapshot->users;
  --count_;
  pool_.Release(copy);
}

}  // namespace metaprotocol
