// Mirrors: copies of requests for other clusters, whose replies nobody waits for.
//
// A copy is an attempt that no exchange has made. So nothing of it can reach a client, it occupies
// nothing of a session's bounds, and it lives on when the session ends; the bounds of its own
// cluster hold.
#pragma once

#include <cstdint>
#include <optional>

#include "src/base/object_pool.h"
#include "src/base/request_view.h"
#include "src/base/timer_wheel.h"
#include "src/engine_context.h"
#include "src/route/route.h"
#include "src/router/protocol_state.h"
#include "src/router/request_origin.h"
#include "src/upstream/worker_hub.h"

namespace metaprotocol {

class Mirrors final : public AttemptSink {
 public:
  Mirrors(EngineContext& context, WorkerHub& hub) : context_(context), hub_(hub) {}
  ~Mirrors() override = default;

  // Copies what has been forwarded.
  void Copy(const RequestOrigin& origin, SnapshotUse& use, const Route& route,
            const RequestView& request, const Mutation& mutation, std::optional<uint64_t> hash);
  void CopyTimer(Timer& timer);

  size_t count() const { return count_; }

 private:
  void OnWholeReply(Attempt& attempt, const UpstreamHost& host, const Codec& codec,
                    Message& message, Bytes bytes) override;
  Handled OnReply(Attempt& attempt, const Codec& codec, Message& message, Bytes bytes) override;
  void OnReplyBody(Attempt& attempt, Bytes bytes) override;
  void OnAttemptEnd(Attempt& attempt, const AttemptResult& result) override;

  // A copy under way.
  struct MirrorCopy : Attempt {
    MirrorCopy() : deadline(Timer::Kind::kMirror, this) {}

    SnapshotUse* snapshot = nullptr;
    Series* series = nullptr;
    Timer deadline;
  };

  void Finish(MirrorCopy& copy, AttemptResult::Cause cause);

  EngineContext& context_;
  WorkerHub& hub_;
  ObjectPool<MirrorCopy> pool_;
  size_t count_ = 0;
};

}  // namespace metaprotocol
