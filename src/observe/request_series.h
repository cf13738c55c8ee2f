// Istio's metrics of requests: one set of labels for each kind of request, whose values many
// dashboards know by name (https://istio.io/latest/docs/reference/config/metrics/).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace metaprotocol {

enum class RequestMetric : uint8_t { kRequests, kDuration, kRequestBytes, kResponseBytes };
inline constexpr size_t kRequestMetricCount = 4;
inline constexpr std::array<std::string_view, kRequestMetricCount> kRequestMetricNames = {
    "istio_requests_total",
    "istio_request_duration_milliseconds",
    "istio_request_bytes",
    "istio_response_bytes",
};

// In Istio's order; the last two are ours.
enum class RequestLabel : uint8_t {
  kReporter,
  kSourceWorkload,
  kSourceCanonicalService,
  kSourceCanonicalRevision,
  kSourceWorkloadNamespace,
  kSourcePrincipal,
  kSourceApp,
  kSourceVersion,
  kSourceCluster,
  kDestinationWorkload,
  kDestinationWorkloadNamespace,
  kDestinationPrincipal,
  kDestinationApp,
  kDestinationVersion,
  kDestinationService,
  kDestinationCanonicalService,
  kDestinationCanonicalRevision,
  kDestinationServiceName,
  kDestinationServiceNamespace,
  kDestinationCluster,
  kRequestProtocol,
  kResponseCode,
  kGrpcResponseStatus,
  kResponseFlags,
  kConnectionSecurityPolicy,
  kRequestService,
  kRequestMethod,
};
inline constexpr std::array<std::string_view, 27> kRequestLabelNames = {
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_service_name",
    "destination_service_namespace",
    "destination_cluster",
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
    "request_service",
    "request_method",
};
inline constexpr size_t kRequestLabelCount = kRequestLabelNames.size();
// A forgotten name would leave the last one empty.
static_assert(!kRequestLabelNames.back().empty() &&
              kRequestLabelCount == static_cast<size_t>(RequestLabel::kRequestMethod) + 1);

using RequestLabels = std::array<std::string, kRequestLabelCount>;
// What each of the metrics is labelled with.
struct RequestSeriesLabels {
  std::array<RequestLabels, kRequestMetricCount> of;
  // Which of the metrics there are, as bits.
  uint8_t metrics = (1u << kRequestMetricCount) - 1;

  RequestLabels& operator[](RequestMetric metric) { return of[static_cast<size_t>(metric)]; }
  const RequestLabels& operator[](RequestMetric metric) const {
    return of[static_cast<size_t>(metric)];
  }
  bool has(size_t metric) const { return (metrics >> metric & 1) != 0; }

  // The same for the same labels only, whose values have no zero bytes.
  std::string Key() const {
    std::string key(1, static_cast<char>(metrics));
    for (const RequestLabels& labels : of) {
      for (const std::string& value : labels) key.append(value).append(1, '\0');
    }
    return key;
  }
};

// One request that has ended.
struct RequestSample {
  uint32_t series = 0;
  uint64_t duration_us = 0;
  uint64_t request_bytes = 0;
  uint64_t response_bytes = 0;
};

// Who a proxy stands beside, or what is known of it elsewhere. An empty text is not known.
struct Workload {
  std::string name = {};
  std::string name_space = {};
  std::string principal = {};  // "spiffe://cluster.local/ns/shop/sa/orders"
  std::string app = {};
  std::string version = {};
  std::string canonical_service = {};
  std::string canonical_revision = {};
  std::string cluster = {};
};

}  // namespace metaprotocol
