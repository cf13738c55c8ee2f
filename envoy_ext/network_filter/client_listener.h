// Envoy's listeners, as far as their replacement and removal matter to the connections accepted on
// them. Envoy tells nobody of these but bootstrap extensions, and by name, so a filter that should
// know has its listener's name in its configuration.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace metaprotocol::envoy {

struct ClientListener {
  // Goes up when connections that were accepted before should go.
  std::atomic<uint64_t> generation{0};

  // The listener of that name, of all configurations that name it; null for "". Main thread.
  static std::shared_ptr<const ClientListener> Named(const std::string& name);
  // Envoy has replaced or removed it: its connections on all workers are drained. Main thread.
  static void Gone(std::string_view name);
};

}  // namespace metaprotocol::envoy
