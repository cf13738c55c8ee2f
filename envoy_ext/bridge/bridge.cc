// The hooks of the upstream bridge "metaprotocol": one instance is one upstream connection on loan
// from Envoy's pool. It finds the lease that asked for it by a request header, and passes bytes.
#include <algorithm>
#include <memory>
#include <span>

#include "envoy_ext/abi/abi.h"
#include "envoy_ext/abi/guard.h"
#include "envoy_ext/abi/slices.h"
#include "envoy_ext/worker/worker.h"

namespace metaprotocol::envoy {
namespace {

Bridge* BridgeOf(const void* module) { return static_cast<Bridge*>(const_cast<void*>(module)); }

void FindLease(Bridge& bridge) {
  abi::Buffer header{nullptr, 0};
  if (abi::BridgeRequestHeader(bridge.envoy, abi::ToBuffer(kLeaseHeader), &header, 0, nullptr) &&
      Worker::Get().leases().BridgeReady(bridge, header.view()) != nullptr) {
    return;
  }
  // An ordinary HTTP request that was routed to this cluster; nothing of ours could answer it.
  abi::BridgeSendResponse(bridge.envoy, 502, nullptr, 0,
                          abi::ToBuffer("this cluster is reached through MetaProtocol only\n"));
}

void PassSlices(Bridge& bridge, Slices& slices, size_t filled) {
  const std::span<const Bytes> views = slices.Views(filled);
  if (slices.total_bytes() == 0) return;
  Worker::Get().WithEngine([&](Engine& engine) {
    LeaseTable::TellReady(*bridge.lease, engine);
    // Being told may have made the engine give it up.
    if (bridge.lease != nullptr) engine.LeaseData(bridge.lease->id, views);
  });
}

// Envoy 1.38 does not say how many chunks it is about to fill in. So there is room for as many as
// nothing can have read at once: memory that is never touched costs nothing.
std::span<abi::Buffer> MostChunks() {
  constexpr size_t kChunks = size_t{1} << 20;  // of 16 KiB each, as Envoy reads
  static thread_local const std::unique_ptr<abi::Buffer[]> chunks(new abi::Buffer[kChunks]);
  return {chunks.get(), kChunks};
}

void PassResponse(Bridge& bridge) {
  if (bridge.lease == nullptr) return;
  if (abi::BridgeResponseChunkCount == nullptr) {
    size_t filled = 0;
    const std::span<abi::Buffer> chunks = MostChunks();
    abi::BridgeResponseChunks(bridge.envoy, chunks.data(), &filled);
    Slices slices(filled);
    std::copy_n(chunks.begin(), filled, slices.buffers());
    return PassSlices(bridge, slices, filled);
  }
  const size_t count = abi::BridgeResponseChunkCount(bridge.envoy);
  Slices slices(count);
  size_t filled = 0;
  if (count != 0) abi::BridgeResponseChunks(bridge.envoy, slices.buffers(), &filled);
  PassSlices(bridge, slices, filled);
}

}  // namespace

METAPROTOCOL_EXPORT const void* METAPROTOCOL_HOOK(upstream_http_tcp_bridge_config_new)(
    void*, abi::Buffer, abi::Buffer) {
  // Nothing to configure; Envoy wants something to point to.
  static const char kConfig = 0;
  return &kConfig;
}

METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(upstream_http_tcp_bridge_config_destroy)(const void*) {}

METAPROTOCOL_EXPORT const void* METAPROTOCOL_HOOK(upstream_http_tcp_bridge_new)(const void*,
                                                                                void* envoy) {
  return Guarded("upstream_http_tcp_bridge_new", static_cast<const void*>(nullptr),
                 [&]() -> const void* {
                   auto bridge = std::make_unique<Bridge>();
                   bridge->envoy = envoy;
                   return bridge.release();
                 });
}

METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(upstream_http_tcp_bridge_encode_headers)(
    void*, const void* module, bool) {
  Guarded("upstream_http_tcp_bridge_encode_headers", [&] {
    const EnvoyOnStack on_stack;
    FindLease(*BridgeOf(module));
    Worker::Get().RunPending();
  });
}

// The body of a lease's request is nothing but probes, see LeaseTable::Probe.
METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(upstream_http_tcp_bridge_encode_data)(void*,
                                                                                 const void* module,
                                                                                 bool end_stream) {
  if (end_stream) return;
  Guarded("upstream_http_tcp_bridge_encode_data", [&] {
    const EnvoyOnStack on_stack;
    Worker& worker = Worker::Get();
    worker.leases().BridgeProbed(*BridgeOf(module));
    worker.RunPending();
  });
}
METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(upstream_http_tcp_bridge_encode_trailers)(void*,
                                                                                     const void*) {}

METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(upstream_http_tcp_bridge_on_upstream_data)(
    void*, const void* module, bool) {
  Guarded("upstream_http_tcp_bridge_on_upstream_data", [&] {
    const EnvoyOnStack on_stack;
    PassResponse(*BridgeOf(module));
  });
}

METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(upstream_http_tcp_bridge_destroy)(const void* module) {
  Guarded("upstream_http_tcp_bridge_destroy", [&] {
    const EnvoyOnStack on_stack;
    const std::unique_ptr<Bridge> bridge(BridgeOf(module));
    if (bridge->lease == nullptr) return;
    Worker& worker = Worker::Get();
    worker.leases().BridgeGone(*bridge);
    worker.RunPending();
  });
}

}  // namespace metaprotocol::envoy
