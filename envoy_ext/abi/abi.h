// The part of Envoy's dynamic-module C ABI that this module uses, in our own declarations.
//
// Envoy calls the module's *hooks* (envoy_dynamic_module_on_*), the module calls Envoy's
// *callbacks* (envoy_dynamic_module_callback_*). Every callback is declared weak: a module with a
// strong reference to one that the running Envoy lacks fails to load with a message about that
// symbol alone, whereas this one gets as far as program_init, which says what is missing and which
// Envoy is needed (envoy_ext/abi/program_init.cc).
//
// The names here are Envoy's without the prefix, in this project's spelling. Signatures:
// Envoy 1.40, source/extensions/dynamic_modules/abi/abi.h; the ABI is frozen from that release on.
// Where 1.38 or 1.39 has no such callback, a comment says what is done instead.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

// A module that is linked into Envoy itself, or preloaded, has its hooks under its own name.
#ifdef METAPROTOCOL_STATIC_MODULE
#define METAPROTOCOL_HOOK(name) metaprotocol_envoy_dynamic_module_on_##name
#else
#define METAPROTOCOL_HOOK(name) envoy_dynamic_module_on_##name
#endif
#define METAPROTOCOL_EXPORT extern "C" __attribute__((visibility("default")))

#define METAPROTOCOL_CALLBACK(name) \
  __asm__("envoy_dynamic_module_callback_" #name) __attribute__((weak))

namespace metaprotocol::abi {

// A view; who owns the bytes, and for how long, is said at each use.
struct Buffer {
  const char* data;
  size_t length;

  std::string_view view() const { return {data, length}; }
};
inline Buffer ToBuffer(std::string_view view) { return {view.data(), view.size()}; }

struct HttpHeader {
  const char* key;
  size_t key_length;
  const char* value;
  size_t value_length;
};

enum LogLevel : int { kLogTrace, kLogDebug, kLogInfo, kLogWarn, kLogError, kLogCritical };
enum FilterStatus : int { kContinue, kStopIteration };
enum ConnectionEvent : int { kRemoteClose, kLocalClose, kConnected, kConnectedZeroRtt };
enum CloseType : int { kFlushWrite, kNoFlush, kFlushWriteAndDelay, kAbortClose, kAbortReset };
enum CalloutResult : int { kCalloutSuccess, kCalloutReset, kCalloutTooLarge };
enum MetricsResult : int { kSuccess, kMetricNotFound, kInvalidLabels, kFrozen };
enum HostHealthValue : int { kHostUnhealthy, kHostDegraded, kHostHealthy };

// --- common
void Log(int level, Buffer message) METAPROTOCOL_CALLBACK(log);
void LogAt(int level, Buffer message, Buffer file, uint32_t line) METAPROTOCOL_CALLBACK(log_v2);
bool LogEnabled(int level) METAPROTOCOL_CALLBACK(log_enabled);
// Main thread only.
uint32_t GetConcurrency() METAPROTOCOL_CALLBACK(get_concurrency);
bool IsValidationMode() METAPROTOCOL_CALLBACK(is_validation_mode);

// --- network filter; `filter` is Envoy's side of one filter on one connection. All on that
// connection's worker thread, but for NetworkSchedulerCommit.
size_t NetworkReadChunkCount(void* filter)
    METAPROTOCOL_CALLBACK(network_filter_get_read_buffer_chunks_size);
bool NetworkReadChunks(void* filter, Buffer* out)  // valid until the hook ends or the next drain
    METAPROTOCOL_CALLBACK(network_filter_get_read_buffer_chunks);
bool NetworkDrainRead(void* filter, size_t bytes)
    METAPROTOCOL_CALLBACK(network_filter_drain_read_buffer);
size_t NetworkWriteChunkCount(void* filter)
    METAPROTOCOL_CALLBACK(network_filter_get_write_buffer_chunks_size);
bool NetworkWriteChunks(void* filter, Buffer* out)
    METAPROTOCOL_CALLBACK(network_filter_get_write_buffer_chunks);
bool NetworkDrainWrite(void* filter, size_t bytes)
    METAPROTOCOL_CALLBACK(network_filter_drain_write_buffer);
void NetworkWrite(void* filter, Buffer data, bool end_stream)
    METAPROTOCOL_CALLBACK(network_filter_write);
// Into the filters after this one, which run before the call returns.
void NetworkInjectRead(void* filter, Buffer data, bool end_stream)
    METAPROTOCOL_CALLBACK(network_filter_inject_read_data);
void NetworkClose(void* filter, int close_type) METAPROTOCOL_CALLBACK(network_filter_close);
// Counted: as many `false` as `true` resume reading.
int NetworkReadDisable(void* filter, bool disable)
    METAPROTOCOL_CALLBACK(network_filter_read_disable);
void NetworkEnableHalfClose(void* filter, bool enable)
    METAPROTOCOL_CALLBACK(network_filter_enable_half_close);
bool NetworkRemoteAddress(void* filter, Buffer* address, uint32_t* port)
    METAPROTOCOL_CALLBACK(network_filter_get_remote_address);
bool NetworkLocalAddress(void* filter, Buffer* address, uint32_t* port)
    METAPROTOCOL_CALLBACK(network_filter_get_local_address);
uint32_t NetworkWorkerIndex(void* filter) METAPROTOCOL_CALLBACK(network_filter_get_worker_index);
bool NetworkIsTls(void* filter) METAPROTOCOL_CALLBACK(network_filter_is_ssl);
bool NetworkServerName(void* filter, Buffer* out)
    METAPROTOCOL_CALLBACK(network_filter_get_requested_server_name);
bool NetworkPeerSubject(void* filter, Buffer* out)
    METAPROTOCOL_CALLBACK(network_filter_get_ssl_subject);
size_t NetworkPeerUriSanCount(void* filter)
    METAPROTOCOL_CALLBACK(network_filter_get_ssl_uri_sans_size);
bool NetworkPeerUriSans(void* filter, Buffer* out)
    METAPROTOCOL_CALLBACK(network_filter_get_ssl_uri_sans);
size_t NetworkPeerDnsSanCount(void* filter)
    METAPROTOCOL_CALLBACK(network_filter_get_ssl_dns_sans_size);
bool NetworkPeerDnsSans(void* filter, Buffer* out)
    METAPROTOCOL_CALLBACK(network_filter_get_ssl_dns_sans);
// An HTTP request by that cluster's own client; answered by the filter's `http_callout_done` hook,
// possibly before this returns, unless the filter is destroyed before.
enum CalloutStart : int { kCalloutStarted };  // anything else: it was not, and there is no answer
int NetworkHttpCallout(void* filter, uint64_t* id, Buffer cluster, HttpHeader* headers,
                       size_t header_count, Buffer body, uint64_t timeout_ms)
    METAPROTOCOL_CALLBACK(network_filter_http_callout);
// A scheduler outlives its filter; committing to it then does nothing. Commit may be called on any
// thread and runs the filter's `scheduled` hook on its worker.
void* NetworkSchedulerNew(void* filter) METAPROTOCOL_CALLBACK(network_filter_scheduler_new);
void NetworkSchedulerCommit(void* scheduler, uint64_t event)
    METAPROTOCOL_CALLBACK(network_filter_scheduler_commit);
void NetworkSchedulerDelete(void* scheduler) METAPROTOCOL_CALLBACK(network_filter_scheduler_delete);

// --- upstream bridge; `bridge` is Envoy's side of one HTTP request to a cluster that speaks TCP.
bool BridgeRequestHeader(void* bridge, Buffer key, Buffer* out, size_t index, size_t* count)
    METAPROTOCOL_CALLBACK(upstream_http_tcp_bridge_get_request_header);
// Not in 1.38, see MostChunks in bridge.cc.
size_t BridgeResponseChunkCount(void* bridge)
    METAPROTOCOL_CALLBACK(upstream_http_tcp_bridge_get_response_buffer_chunks_size);
// All chunks, however many; `*count` is only written to.
void BridgeResponseChunks(void* bridge, Buffer* out, size_t* count)
    METAPROTOCOL_CALLBACK(upstream_http_tcp_bridge_get_response_buffer);
void BridgeSendUpstream(void* bridge, Buffer data, bool end_stream)
    METAPROTOCOL_CALLBACK(upstream_http_tcp_bridge_send_upstream_data);
// Answers the HTTP request. If the request has ended, the TCP connection goes back to its pool; if
// not, it is closed.
void BridgeSendResponse(void* bridge, uint32_t status, HttpHeader* headers, size_t header_count,
                        Buffer body) METAPROTOCOL_CALLBACK(upstream_http_tcp_bridge_send_response);
// The same in parts.
void BridgeSendResponseHeaders(void* bridge, uint32_t status, HttpHeader* headers,
                               size_t header_count, bool end_stream)
    METAPROTOCOL_CALLBACK(upstream_http_tcp_bridge_send_response_headers);
void BridgeSendResponseData(void* bridge, Buffer data, bool end_stream)
    METAPROTOCOL_CALLBACK(upstream_http_tcp_bridge_send_response_data);

// --- load balancing policy; `lb` is Envoy's side of one cluster's policy on one worker. Hosts are
// numbered per priority, over all hosts or over the healthy ones.
void LbClusterName(void* lb, Buffer* out) METAPROTOCOL_CALLBACK(lb_get_cluster_name);
size_t LbPriorityCount(void* lb) METAPROTOCOL_CALLBACK(lb_get_priority_set_size);
size_t LbHostCount(void* lb, uint32_t priority) METAPROTOCOL_CALLBACK(lb_get_hosts_count);
bool LbHostAddress(void* lb, uint32_t priority, size_t index, Buffer* out)
    METAPROTOCOL_CALLBACK(lb_get_host_address);
uint32_t LbHostWeight(void* lb, uint32_t priority, size_t index)
    METAPROTOCOL_CALLBACK(lb_get_host_weight);
bool LbHostMetadata(void* lb, uint32_t priority, size_t index, Buffer filter, Buffer key,
                    Buffer* out) METAPROTOCOL_CALLBACK(lb_get_host_metadata_string);
int LbHostHealth(void* lb, uint32_t priority, size_t index)
    METAPROTOCOL_CALLBACK(lb_get_host_health);
bool LbHostLocality(void* lb, uint32_t priority, size_t index, Buffer* region, Buffer* zone,
                    Buffer* sub_zone) METAPROTOCOL_CALLBACK(lb_get_host_locality);
size_t LbHealthyHostCount(void* lb, uint32_t priority)
    METAPROTOCOL_CALLBACK(lb_get_healthy_hosts_count);
bool LbHealthyHostAddress(void* lb, uint32_t priority, size_t index, Buffer* out)
    METAPROTOCOL_CALLBACK(lb_get_healthy_host_address);
// Localities hold their healthy hosts only.
size_t LbLocalityCount(void* lb, uint32_t priority) METAPROTOCOL_CALLBACK(lb_get_locality_count);
size_t LbLocalityHostCount(void* lb, uint32_t priority, size_t locality)
    METAPROTOCOL_CALLBACK(lb_get_locality_host_count);
bool LbLocalityHostAddress(void* lb, uint32_t priority, size_t locality, size_t index, Buffer* out)
    METAPROTOCOL_CALLBACK(lb_get_locality_host_address);
uint32_t LbLocalityWeight(void* lb, uint32_t priority, size_t locality)
    METAPROTOCOL_CALLBACK(lb_get_locality_weight);
bool LbRequestHeader(void* context, Buffer key, Buffer* out, size_t index, size_t* count)
    METAPROTOCOL_CALLBACK(lb_context_get_downstream_header);

// --- cluster
void ClusterPreInitComplete(void* cluster) METAPROTOCOL_CALLBACK(cluster_pre_init_complete);
// As for network filters; runs the cluster's `scheduled` hook on the main thread.
void* ClusterSchedulerNew(void* cluster) METAPROTOCOL_CALLBACK(cluster_scheduler_new);
void ClusterSchedulerCommit(void* scheduler, uint64_t event)
    METAPROTOCOL_CALLBACK(cluster_scheduler_commit);
void ClusterSchedulerDelete(void* scheduler) METAPROTOCOL_CALLBACK(cluster_scheduler_delete);
// Metrics are defined within config_new, resolved to handles for label values at any time, and live
// as long as the configuration. 1.38 and 1.39 have no handles; there they may be defined later,
// too.
int ClusterDefineCounter(void* config, Buffer name, Buffer* labels, size_t label_count, size_t* id)
    METAPROTOCOL_CALLBACK(cluster_config_define_counter);
int ClusterDefineGauge(void* config, Buffer name, Buffer* labels, size_t label_count, size_t* id)
    METAPROTOCOL_CALLBACK(cluster_config_define_gauge);
int ClusterDefineHistogram(void* config, Buffer name, Buffer* labels, size_t label_count,
                           size_t* id) METAPROTOCOL_CALLBACK(cluster_config_define_histogram);
int ClusterResolveCounter(void* config, size_t id, Buffer* values, size_t value_count, void** out)
    METAPROTOCOL_CALLBACK(cluster_config_resolve_counter_vec);
int ClusterResolveGauge(void* config, size_t id, Buffer* values, size_t value_count, void** out)
    METAPROTOCOL_CALLBACK(cluster_config_resolve_gauge_vec);
int ClusterResolveHistogram(void* config, size_t id, Buffer* values, size_t value_count, void** out)
    METAPROTOCOL_CALLBACK(cluster_config_resolve_histogram_vec);
// The same without handles, by number; here without labels as well, see MetricWriter.
int ClusterIncrementCounter(void* config, size_t id, Buffer* values, size_t value_count,
                            uint64_t delta) METAPROTOCOL_CALLBACK(cluster_config_increment_counter);
int ClusterSetGauge(void* config, size_t id, Buffer* values, size_t value_count, uint64_t value)
    METAPROTOCOL_CALLBACK(cluster_config_set_gauge);
int ClusterRecordHistogram(void* config, size_t id, Buffer* values, size_t value_count,
                           uint64_t value)
    METAPROTOCOL_CALLBACK(cluster_config_record_histogram_value);
void ClusterCounterAdd(void* counter, uint64_t value)
    METAPROTOCOL_CALLBACK(cluster_metric_counter_add);
void ClusterGaugeSet(void* gauge, uint64_t value) METAPROTOCOL_CALLBACK(cluster_metric_gauge_set);
void ClusterHistogramRecord(void* histogram, uint64_t value)
    METAPROTOCOL_CALLBACK(cluster_metric_histogram_record);

// --- bootstrap extension
bool BootstrapRegisterAdminHandler(void* config, Buffer path_prefix, Buffer help, bool removable,
                                   bool mutates_state)
    METAPROTOCOL_CALLBACK(bootstrap_extension_register_admin_handler);
bool BootstrapRemoveAdminHandler(void* config, Buffer path_prefix)
    METAPROTOCOL_CALLBACK(bootstrap_extension_remove_admin_handler);
void BootstrapAdminSetResponse(void* config, Buffer body)
    METAPROTOCOL_CALLBACK(bootstrap_extension_admin_set_response);
// From server_initialized on; the listener hooks are called for every change from then on.
bool BootstrapEnableListenerLifecycle(void* config)
    METAPROTOCOL_CALLBACK(bootstrap_extension_enable_listener_lifecycle);
// Envoy's server init waits for it.
void BootstrapSignalInitComplete(void* config)
    METAPROTOCOL_CALLBACK(bootstrap_extension_config_signal_init_complete);

// How Envoy is told that an asynchronous shutdown step is complete.
using EventCallback = void (*)(void* context);

}  // namespace metaprotocol::abi
