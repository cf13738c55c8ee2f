#include "src/telemetry/request_metrics.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <mutex>
#include <shared_mutex>
#include <span>
#include <unordered_set>

#include "src/codec/called_keys.h"
#include "src/codec/utf8.h"

namespace metaprotocol {
namespace {

// The part before the first `separator`, which is taken from `rest` with it.
std::string_view NextPart(std::string_view& rest, char separator) {
  const size_t end = rest.find(separator);
  const std::string_view part = rest.substr(0, end);
  rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
  return part;
}

Workload WorkloadOfHost(std::string_view written) {
  Workload workload;
  workload.name = NextPart(written, ';');
  workload.name_space = NextPart(written, ';');
  workload.canonical_service = NextPart(written, ';');
  workload.canonical_revision = NextPart(written, ';');
  workload.cluster = NextPart(written, ';');
  workload.app = workload.canonical_service;
  workload.version = workload.canonical_revision;
  return workload;
}

// "spiffe://cluster.local/ns/shop/sa/orders" says in which namespace its owner is.
Workload WorkloadOfPrincipal(std::string_view principal) {
  Workload workload;
  workload.principal = principal;
  constexpr std::string_view kScheme = "spiffe://";
  if (!principal.starts_with(kScheme)) return workload;
  std::string_view rest = principal.substr(kScheme.size());
  NextPart(rest, '/');
  if (NextPart(rest, '/') == "ns") workload.name_space = NextPart(rest, '/');
  return workload;
}

// The host in "outbound|20880|v1|orders.shop.svc.cluster.local"; "" in any other name.
std::string_view HostOf(std::string_view cluster) {
  for (int parts = 0; parts < 3; ++parts) {
    const size_t end = cluster.find('|');
    if (end == std::string_view::npos) return {};
    cluster.remove_prefix(end + 1);
  }
  return cluster;
}

void Put(RequestLabels& labels, RequestLabel label, std::string_view value) {
  labels[static_cast<size_t>(label)] =
      RequestMetrics::Shown(value.empty() ? RequestMetrics::kUnknown : value);
}

void PutSource(RequestLabels& labels, const Workload& workload) {
  using L = RequestLabel;
  Put(labels, L::kSourceWorkload, workload.name);
  Put(labels, L::kSourceWorkloadNamespace, workload.name_space);
  Put(labels, L::kSourcePrincipal, workload.principal);
  Put(labels, L::kSourceApp, workload.app);
  Put(labels, L::kSourceVersion, workload.version);
  Put(labels, L::kSourceCanonicalService, workload.canonical_service);
  Put(labels, L::kSourceCanonicalRevision, workload.canonical_revision);
  Put(labels, L::kSourceCluster, workload.cluster);
}

void PutDestination(RequestLabels& labels, const Workload& workload) {
  using L = RequestLabel;
  Put(labels, L::kDestinationWorkload, workload.name);
  Put(labels, L::kDestinationWorkloadNamespace, workload.name_space);
  Put(labels, L::kDestinationPrincipal, workload.principal);
  Put(labels, L::kDestinationApp, workload.app);
  Put(labels, L::kDestinationVersion, workload.version);
  Put(labels, L::kDestinationCanonicalService, workload.canonical_service);
  Put(labels, L::kDestinationCanonicalRevision, workload.canonical_revision);
  Put(labels, L::kDestinationCluster, workload.cluster);
}

// Those that the protocol has by itself, if any: for others each message's entries would be read,
// which are peers'. An interface is always there, and Dubbo's `service` is put together each time.
std::vector<std::string_view> OwnOf(std::span<const std::string_view> names,
                                    const MetadataKeys& keys) {
  std::vector<std::string_view> own;
  std::copy_if(names.begin(), names.end(), std::back_inserter(own),
               [&](std::string_view name) { return keys.IsOwn(name); });
  if (!own.empty() && own.front() == "interface") own.resize(1);
  return own.empty() ? std::vector(names.begin(), names.end()) : own;
}

void AppendPart(std::string& key, std::string_view part) {
  // With its length, since it may have any byte in it.
  key += static_cast<char>(part.size() & 0xff);
  key += static_cast<char>(part.size() >> 8 & 0xff);
  key += part;
}

}  // namespace

// Which pairs of service and method, and which sets of labels, there are.
class RequestMetrics::Known {
 public:
  bool HasMethod(const std::string& key, size_t most, bool may_add) {
    return Has(methods_, key, most, may_add);
  }
  bool HasSeries(const std::string& key, size_t most) { return Has(series_, key, most, true); }

 private:
  using Set = std::unordered_set<std::string, SecretHash>;

  // With a request of a peer's that is new, many times a second: as a rule nothing is added.
  bool Has(Set& set, const std::string& key, size_t most, bool may_add) {
    {
      const std::shared_lock lock(mutex_);
      if (set.contains(key)) return true;
      if (!may_add || set.size() >= most) return false;
    }
    const std::lock_guard lock(mutex_);
    if (set.size() >= most) return set.contains(key);
    set.insert(key);
    return true;
  }

  std::shared_mutex mutex_;
  Set methods_;
  Set series_;
};

RequestMetrics::RequestMetrics(Reporter reporter, uint32_t max_methods, uint32_t max_series,
                               RecordedKeys& recorded, MetadataKeys& keys)
    : reporter_(reporter),
      max_methods_(max_methods),
      max_series_(max_series),
      known_(std::make_shared<Known>()) {
  if (max_methods != 0) {
    service_ = recorded.Want(OwnOf(kServiceKeys, keys), keys);
    method_ = recorded.Want(OwnOf(kMethodKeys, keys), keys);
  }
  if (reporter == Reporter::kDestination) {
    peer_uri_ = recorded.Want(kPeerUriSanKey, keys);
    peer_subject_ = recorded.Want(kPeerSubjectKey, keys);
  }
}

RequestMetrics::~RequestMetrics() = default;

std::string RequestMetrics::Shown(std::string_view value) {
  std::string shown = MadeUtf8(value.substr(0, kMostValueBytes));
  for (char& c : shown) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return shown;
}

RequestMetrics::Parts RequestMetrics::PartsOf(const EndedRequest& request) const {
  const RequestRecord& record = request.record;
  const auto first_of = [&](const std::vector<size_t>& places) {
    for (const size_t place : places) {
      const std::string_view found = record.value(place).value_or("");
      if (!found.empty()) return found.substr(0, kMostValueBytes);
    }
    return std::string_view();
  };
  Parts parts;
  parts.protocol = request.protocol;
  parts.cluster = request.cluster;
  parts.service = first_of(service_);
  parts.method = first_of(method_);
  parts.code = request.http_code();
  parts.flags = request.flags();
  parts.good = !request.failed() && !request.answered;
  if (reporter_ == Reporter::kDestination) {
    parts.principal = record.value(peer_uri_).value_or("").substr(0, kMostValueBytes);
    parts.mutual_tls =
        !parts.principal.empty() || !record.value(peer_subject_).value_or("").empty();
  } else {
    parts.host_workload = record.host_workload;
  }
  return parts;
}

void RequestMetrics::WriteKey(const Parts& parts, std::string& key) {
  key.assign(1, parts.mutual_tls ? 'm' : '-');
  for (const std::string_view part : {parts.cluster, parts.host_workload, parts.principal,
                                      parts.service, parts.method, parts.code, parts.flags}) {
    AppendPart(key, part);
  }
}

void RequestMetrics::KeepToBounds(Parts& parts, std::string& key) const {
  if (max_methods_ != 0) {
    key.clear();
    AppendPart(key, parts.service);
    AppendPart(key, parts.method);
    if (!known_->HasMethod(key, max_methods_, parts.good)) parts.service = parts.method = kOther;
  }
  WriteKey(parts, key);
  if (known_->HasSeries(key, max_series_)) return;
  if (max_methods_ != 0) parts.service = parts.method = kOther;
  if (!parts.principal.empty()) parts.principal = kOther;
  WriteKey(parts, key);
}

RequestSeriesLabels RequestMetrics::LabelsOf(const Parts& parts, const Workload& own) const {
  using L = RequestLabel;
  RequestLabels labels;
  Workload beside = own;
  if (reporter_ == Reporter::kSource) {
    // Whether servers are shown a certificate is Envoy's affair.
    beside.principal.clear();
    PutSource(labels, beside);
    PutDestination(labels, WorkloadOfHost(parts.host_workload));
    Put(labels, L::kReporter, "source");
    Put(labels, L::kConnectionSecurityPolicy, kUnknown);
  } else {
    if (!parts.mutual_tls) beside.principal.clear();
    PutSource(labels, WorkloadOfPrincipal(parts.principal));
    PutDestination(labels, beside);
    Put(labels, L::kReporter, "destination");
    Put(labels, L::kConnectionSecurityPolicy, parts.mutual_tls ? "mutual_tls" : "none");
  }

  std::string_view host = HostOf(parts.cluster);
  if (host.empty()) host = service;
  if (host.empty()) host = parts.cluster;
  Put(labels, L::kDestinationService, host);
  if (const auto named = services.find(std::string(host)); named != services.end()) {
    Put(labels, L::kDestinationServiceName, named->second.name);
    Put(labels, L::kDestinationServiceNamespace, named->second.name_space);
  } else {
    std::string_view rest = host;
    const std::string_view name = NextPart(rest, '.');
    const std::string_view name_space = NextPart(rest, '.');
    const bool kubernetes = NextPart(rest, '.') == "svc";
    Put(labels, L::kDestinationServiceName, kubernetes ? name : host);
    Put(labels, L::kDestinationServiceNamespace, kubernetes ? name_space : kUnknown);
  }

  Put(labels, L::kRequestProtocol, parts.protocol);
  Put(labels, L::kResponseCode, parts.code);
  Put(labels, L::kResponseFlags, parts.flags.empty() ? "-" : parts.flags);
  if (max_methods_ != 0) {
    Put(labels, L::kRequestService, parts.service);
    Put(labels, L::kRequestMethod, parts.method);
  }

  RequestSeriesLabels made;
  made.metrics = metrics;
  made.of.fill(labels);
  for (const Override& change : overrides) {
    made[change.metric][static_cast<size_t>(change.label)] = change.value;
  }
  return made;
}

}  // namespace metaprotocol
