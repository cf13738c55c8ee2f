// The hooks of the worker cluster: a cluster without hosts that nothing is routed to. It exists for
// what Envoy gives to clusters and not to network filters: metrics with labels, and word of Envoy's
// own draining and shutdown. The module works without it, less these.
#include <memory>

#include "envoy_ext/abi/abi.h"
#include "envoy_ext/abi/guard.h"
#include "envoy_ext/abi/log.h"
#include "envoy_ext/worker/metric_sink.h"
#include "envoy_ext/worker/worker.h"
#include "envoy_ext/worker_cluster/drainer.h"

namespace metaprotocol::envoy {
namespace {

// What a configuration is to Envoy.
struct WorkerClusterConfig {
  void* envoy;
  ~WorkerClusterConfig() { MetricSink::Get().Detach(envoy); }
};

Drainer* DrainerOf(const void* module) { return static_cast<Drainer*>(const_cast<void*>(module)); }

}  // namespace

METAPROTOCOL_EXPORT const void* METAPROTOCOL_HOOK(cluster_config_new)(void* envoy, abi::Buffer,
                                                                      abi::Buffer) {
  return Guarded("cluster_config_new", static_cast<const void*>(nullptr), [&]() -> const void* {
    Worker::ThisIsMainThread();
    if (abi::ClusterPreInitComplete == nullptr) return nullptr;
    if (!MetricSink::Get().Attach(envoy)) {
      EnvoyLog(abi::kLogWarn,
               "metaprotocol: this Envoy refuses metrics with labels for clusters; there will be "
               "none of the module's");
    }
    auto config = std::make_unique<WorkerClusterConfig>();
    config->envoy = envoy;
    return config.release();
  });
}

METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(cluster_config_destroy)(const void* config) {
  Guarded("cluster_config_destroy",
          [&] { delete static_cast<const WorkerClusterConfig*>(config); });
}

METAPROTOCOL_EXPORT const void* METAPROTOCOL_HOOK(cluster_new)(const void*, void*) {
  return Guarded("cluster_new", static_cast<const void*>(nullptr),
                 []() -> const void* { return std::make_unique<Drainer>().release(); });
}

METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(cluster_init)(void* envoy, const void*) {
  Guarded("cluster_init", [&] {
    MetricSink::Get().DeliverAll();
    abi::ClusterPreInitComplete(envoy);
  });
}

METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(cluster_destroy)(const void* module) {
  Guarded("cluster_destroy", [&] { delete DrainerOf(module); });
}

METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(cluster_scheduled)(void*, const void* module, uint64_t) {
  Guarded("cluster_scheduled", [&] { DrainerOf(module)->Finish(); });
}

METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(cluster_drain_started)(void*, const void*) {
  Guarded("cluster_drain_started", [] { Drainer::Start(); });
}

METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(cluster_shutdown)(void* envoy, const void* module,
                                                             abi::EventCallback complete,
                                                             void* context) {
  Guarded("cluster_shutdown", [&] {
    Drainer::Start();
    DrainerOf(module)->WaitThenComplete(envoy, complete, context);
  });
}

// --- the load balancer of a cluster that has no hosts

METAPROTOCOL_EXPORT const void* METAPROTOCOL_HOOK(cluster_lb_new)(void*, const void*, void*) {
  static const char kLoadBalancer = 0;
  return &kLoadBalancer;
}
METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(cluster_lb_destroy)(const void*) {}
METAPROTOCOL_EXPORT void METAPROTOCOL_HOOK(cluster_lb_choose_host)(const void*, void*, void** host,
                                                                   void** async_handle) {
  *host = nullptr;
  *async_handle = nullptr;
}

}  // namespace metaprotocol::envoy
