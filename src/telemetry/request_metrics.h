// Istio's metrics: which set of labels a request that has ended belongs to. Much in those labels
// comes from peers, so there is a bound on how many sets there are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "src/base/secret_hash.h"
#include "src/observe/request_series.h"
#include "src/telemetry/request_record.h"

namespace metaprotocol {

// A worker's own: the series it has met, by what tells requests of one configuration apart.
using RequestSeriesTable = std::unordered_map<std::string, uint32_t, SecretHash>;

class RequestMetrics {
 public:
  // Of one label's value.
  static constexpr size_t kMostValueBytes = 128;
  static constexpr std::string_view kUnknown = "unknown";
  static constexpr std::string_view kOther = "other";

  enum class Reporter : uint8_t { kSource, kDestination };
  struct Service {
    std::string name;
    std::string name_space;
  };
  struct Override {
    RequestMetric metric = RequestMetric::kRequests;
    RequestLabel label = RequestLabel::kReporter;
    std::string value;
  };
  // What the labels of a request depend on.
  struct Parts {
    std::string_view cluster;
    std::string_view host_workload;  // "name;namespace;service;revision;cluster", as istiod writes
    std::string_view principal;      // the client's
    std::string_view service;
    std::string_view method;
    std::string_view code;
    std::string_view flags;
    bool mutual_tls = false;
    // Not in the key:
    bool good = false;  // somebody has taken the request as one that there is
    std::string_view protocol;
  };

  // What the labels show is recorded from then on. `max_methods`: 0: no labels for what is called.
  RequestMetrics(Reporter reporter, uint32_t max_methods, uint32_t max_series,
                 RecordedKeys& recorded, MetadataKeys& keys);
  ~RequestMetrics();

  std::string service;                                // where the cluster's name has none
  std::unordered_map<std::string, Service> services;  // by host
  std::vector<Override> overrides;
  uint8_t metrics = (1u << kRequestMetricCount) - 1;  // as in RequestSeriesLabels

  // As a label's value: short, UTF-8, on one line.
  static std::string Shown(std::string_view value);

  Parts PartsOf(const EndedRequest& request) const;
  // `make(parts)`: the number of a series that is not in the table. `key`: anything.
  template <typename Make>
  uint32_t SeriesOf(Parts parts, RequestSeriesTable& table, std::string& key, Make&& make) const {
    WriteKey(parts, key);
    auto found = table.find(key);
    if (found != table.end()) return found->second;
    KeepToBounds(parts, key);
    found = table.find(key);
    if (found != table.end()) return found->second;
    return table.emplace(key, make(parts)).first->second;
  }
  RequestSeriesLabels LabelsOf(const Parts& parts, const Workload& own) const;

  // Goes on with the sets that `before` has. To be called before anybody else knows of this.
  void ContinueWith(const RequestMetrics& before) const { known_ = before.known_; }

 private:
  class Known;

  static void WriteKey(const Parts& parts, std::string& key);
  // What is beyond a bound becomes "other"; `key` is that of what came out.
  void KeepToBounds(Parts& parts, std::string& key) const;

  const Reporter reporter_;
  const uint32_t max_methods_;
  const uint32_t max_series_;
  // Places in the record; of several the first that has a value.
  std::vector<size_t> service_;
  std::vector<size_t> method_;
  size_t peer_uri_ = 0;
  size_t peer_subject_ = 0;
  mutable std::shared_ptr<Known> known_;  // all workers' and all successive configurations'
};

}  // namespace metaprotocol
