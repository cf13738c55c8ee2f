// Which requests are tried once more, and when.
#pragma once

#include <cstddef>
#include <cstdint>

#include "src/codec/codec.h"
#include "src/engine_context.h"
#include "src/route/route.h"
#include "src/upstream/attempt.h"

namespace metaprotocol {

class Retries {
 public:
  explicit Retries(EngineContext& context) : context_(context) {}

  // For routes that say nothing: only where no server can have seen the request, at once, and on
  // another host.
  static const RetryPolicy& PolicyOf(const Route& route);
  static bool Wanted(const RetryPolicy& policy, const AttemptResult& failed);
  static bool Wanted(const RetryPolicy& policy, const Message& reply);
  // How long to wait before the retry with this number, from 0. Random, so that requests that have
  // failed together do not come back together.
  uint64_t PauseUs(const RetryPolicy& policy, uint32_t number);

  // --- what is kept of requests until they cannot be tried again
  // False: there is too much already.
  bool Keep(size_t bytes, size_t most) {
    if (kept_bytes_ + bytes > most) return false;
    kept_bytes_ += bytes;
    return true;
  }
  void Forget(size_t bytes) { kept_bytes_ -= bytes; }
  size_t kept_bytes() const { return kept_bytes_; }

 private:
  EngineContext& context_;
  size_t kept_bytes_ = 0;
};

}  // namespace metaprotocol
