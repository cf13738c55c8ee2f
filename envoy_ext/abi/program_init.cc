// The first hook Envoy calls after loading the module: is this an Envoy we can work with?
#include <dlfcn.h>

#include <string>

#include "envoy_ext/abi/abi.h"
#include "envoy_ext/abi/guard.h"
#include "envoy_ext/abi/log.h"
#include "envoy_ext/abi/version.h"

namespace metaprotocol::envoy {
namespace {

struct Callback {
  const char* name;
  const void* address;
};

template <typename Function>
Callback Of(const char* name, Function* function) {
  return {name, reinterpret_cast<const void*>(function)};
}

// What the network filter, the bridge and the load balancing policy need. The worker cluster and
// the bootstrap extension look after their own, since the module works without them.
std::string MissingCallbacks() {
  const Callback required[] = {
      Of("log", abi::Log),
      Of("log_enabled", abi::LogEnabled),
      Of("get_concurrency", abi::GetConcurrency),
      Of("is_validation_mode", abi::IsValidationMode),
      Of("network_filter_get_read_buffer_chunks_size", abi::NetworkReadChunkCount),
      Of("network_filter_get_read_buffer_chunks", abi::NetworkReadChunks),
      Of("network_filter_drain_read_buffer", abi::NetworkDrainRead),
      Of("network_filter_get_write_buffer_chunks_size", abi::NetworkWriteChunkCount),
      Of("network_filter_get_write_buffer_chunks", abi::NetworkWriteChunks),
      Of("network_filter_drain_write_buffer", abi::NetworkDrainWrite),
      Of("network_filter_write", abi::NetworkWrite),
      Of("network_filter_inject_read_data", abi::NetworkInjectRead),
      Of("network_filter_close", abi::NetworkClose),
      Of("network_filter_read_disable", abi::NetworkReadDisable),
      Of("network_filter_enable_half_close", abi::NetworkEnableHalfClose),
      Of("network_filter_http_callout", abi::NetworkHttpCallout),
      Of("network_filter_get_remote_address", abi::NetworkRemoteAddress),
      Of("network_filter_get_local_address", abi::NetworkLocalAddress),
      Of("network_filter_get_worker_index", abi::NetworkWorkerIndex),
      Of("network_filter_is_ssl", abi::NetworkIsTls),
      Of("network_filter_get_requested_server_name", abi::NetworkServerName),
      Of("network_filter_get_ssl_subject", abi::NetworkPeerSubject),
      Of("network_filter_get_ssl_uri_sans_size", abi::NetworkPeerUriSanCount),
      Of("network_filter_get_ssl_uri_sans", abi::NetworkPeerUriSans),
      Of("network_filter_get_ssl_dns_sans_size", abi::NetworkPeerDnsSanCount),
      Of("network_filter_get_ssl_dns_sans", abi::NetworkPeerDnsSans),
      Of("network_filter_scheduler_new", abi::NetworkSchedulerNew),
      Of("network_filter_scheduler_commit", abi::NetworkSchedulerCommit),
      Of("network_filter_scheduler_delete", abi::NetworkSchedulerDelete),
      Of("upstream_http_tcp_bridge_get_request_header", abi::BridgeRequestHeader),
      Of("upstream_http_tcp_bridge_get_response_buffer", abi::BridgeResponseChunks),
      Of("upstream_http_tcp_bridge_send_upstream_data", abi::BridgeSendUpstream),
      Of("upstream_http_tcp_bridge_send_response", abi::BridgeSendResponse),
      Of("upstream_http_tcp_bridge_send_response_headers", abi::BridgeSendResponseHeaders),
      Of("upstream_http_tcp_bridge_send_response_data", abi::BridgeSendResponseData),
      Of("lb_get_cluster_name", abi::LbClusterName),
      Of("lb_get_priority_set_size", abi::LbPriorityCount),
      Of("lb_get_hosts_count", abi::LbHostCount),
      Of("lb_get_host_address", abi::LbHostAddress),
      Of("lb_get_host_weight", abi::LbHostWeight),
      Of("lb_get_host_health", abi::LbHostHealth),
      Of("lb_get_host_locality", abi::LbHostLocality),
      Of("lb_get_healthy_hosts_count", abi::LbHealthyHostCount),
      Of("lb_get_healthy_host_address", abi::LbHealthyHostAddress),
      Of("lb_get_locality_count", abi::LbLocalityCount),
      Of("lb_get_locality_host_count", abi::LbLocalityHostCount),
      Of("lb_get_locality_host_address", abi::LbLocalityHostAddress),
      Of("lb_get_locality_weight", abi::LbLocalityWeight),
      Of("lb_context_get_downstream_header", abi::LbRequestHeader),
  };
  std::string missing;
  for (const Callback& callback : required) {
    if (callback.address != nullptr) continue;
    if (!missing.empty()) missing += ", ";
    missing += callback.name;
  }
  return missing;
}

// Threads of ours may outlive the last configuration that uses the module, so that Envoy must not
// unmap it then, whatever `do_not_close` says.
void StayLoaded() {
  Dl_info self{};
  if (dladdr(reinterpret_cast<const void*>(&StayLoaded), &self) != 0 && self.dli_fname != nullptr) {
    dlopen(self.dli_fname, RTLD_NOLOAD | RTLD_NODELETE | RTLD_NOW);
  }
}

}  // namespace

METAPROTOCOL_EXPORT const char* METAPROTOCOL_HOOK(program_init)() {
  return Guarded("program_init", static_cast<const char*>(nullptr), []() -> const char* {
    const std::string missing = MissingCallbacks();
    if (!missing.empty()) {
      EnvoyLog(abi::kLogCritical,
               "metaprotocol: this Envoy is too old for the module, which needs Envoy 1.38 or "
               "newer; missing dynamic module callbacks: " +
                   missing);
      return nullptr;
    }
    StayLoaded();
    return AbiVersion();
  });
}

}  // namespace metaprotocol::envoy
