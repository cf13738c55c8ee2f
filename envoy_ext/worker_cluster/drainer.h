// Draining at shutdown: keeps Envoy from exiting until the replies that clients wait for are there,
// or a few seconds have passed.
#pragma once

#include <atomic>
#include <thread>

#include "envoy_ext/abi/abi.h"

namespace metaprotocol::envoy {

class Drainer {
 public:
  Drainer() = default;
  ~Drainer();
  Drainer(const Drainer&) = delete;
  Drainer& operator=(const Drainer&) = delete;

  // Every worker takes no new requests from now on. On the main thread, like the rest.
  static void Start();

  // Calls `complete(context)` on the main thread once draining is complete: by committing to
  // `cluster`'s scheduler, whose hook calls Finish.
  void WaitThenComplete(void* cluster, abi::EventCallback complete, void* context);
  void Finish();

 private:
  std::thread waiter_;
  void* scheduler_ = nullptr;
  abi::EventCallback complete_ = nullptr;
  void* context_ = nullptr;
};

}  // namespace metaprotocol::envoy
