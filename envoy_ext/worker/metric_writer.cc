#include "envoy_ext/worker/metric_writer.h"

#include <array>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <string_view>

#include "envoy_ext/abi/abi.h"

namespace metaprotocol::envoy {
namespace {

// Before every metric's name. Envoy calls clusters' metrics "dynamicmodulescustom." and then the
// name, whatever `metrics_namespace` says.
constexpr std::string_view kPrefix = "metaprotocol.";

constexpr std::string_view kLabelNames[] = {"protocol", "route", "cluster"};
constexpr size_t kLabelCount = std::size(kLabelNames);

std::string Prefixed(std::string_view name) { return std::string(kPrefix) + std::string(name); }

std::array<std::string_view, kLabelCount> Values(const SeriesLabels& labels) {
  return {labels.protocol, labels.route, labels.cluster};
}

// Metrics with labels, each resolved to a handle of Envoy's.
class LabelledMetrics final : public MetricWriter {
 public:
  static bool Possible() {
    return abi::ClusterDefineCounter != nullptr && abi::ClusterDefineGauge != nullptr &&
           abi::ClusterDefineHistogram != nullptr && abi::ClusterResolveCounter != nullptr &&
           abi::ClusterResolveGauge != nullptr && abi::ClusterResolveHistogram != nullptr &&
           abi::ClusterCounterAdd != nullptr && abi::ClusterGaugeSet != nullptr &&
           abi::ClusterHistogramRecord != nullptr;
  }

  explicit LabelledMetrics(void* envoy_config) : envoy_(envoy_config) {}

  bool Define() {
    abi::Buffer labels[kLabelCount];
    for (size_t i = 0; i < kLabelCount; ++i) labels[i] = abi::ToBuffer(kLabelNames[i]);
    const auto define = [&](auto callback, const std::string& name, size_t& id) {
      return callback(envoy_, abi::ToBuffer(name), labels, kLabelCount, &id) == abi::kSuccess;
    };
    bool good = true;
    for (size_t i = 0; i < kCounterCount; ++i) {
      const std::string name = Prefixed(CounterName(static_cast<Counter>(i)));
      good &= define(abi::ClusterDefineCounter, name, counters_[i]);
    }
    for (size_t i = 0; i < kGaugeCount; ++i) {
      const std::string name = Prefixed(GaugeName(static_cast<Gauge>(i)));
      good &= define(abi::ClusterDefineGauge, name, gauges_[i]);
    }
    for (size_t i = 0; i < kHistogramCount; ++i) {
      const std::string name = Prefixed(HistogramName(static_cast<Histogram>(i)));
      good &= define(abi::ClusterDefineHistogram, name, histograms_[i]);
    }
    return good;
  }

  Handle Find(Counter counter, const SeriesLabels& labels) override {
    return Resolve(abi::ClusterResolveCounter, counters_[static_cast<size_t>(counter)], labels);
  }
  Handle Find(Gauge gauge, const SeriesLabels& labels) override {
    return Resolve(abi::ClusterResolveGauge, gauges_[static_cast<size_t>(gauge)], labels);
  }
  Handle Find(Histogram histogram, const SeriesLabels& labels) override {
    return Resolve(abi::ClusterResolveHistogram, histograms_[static_cast<size_t>(histogram)],
                   labels);
  }

  void Add(Handle counter, uint64_t delta) override {
    abi::ClusterCounterAdd(ToPointer(counter), delta);
  }
  void Set(Handle gauge, uint64_t value) override { abi::ClusterGaugeSet(ToPointer(gauge), value); }
  void Record(Handle histogram, uint64_t value) override {
    abi::ClusterHistogramRecord(ToPointer(histogram), value);
  }

 private:
  static void* ToPointer(Handle handle) { return reinterpret_cast<void*>(handle); }

  template <typename Callback>
  Handle Resolve(Callback resolve, size_t id, const SeriesLabels& labels) {
    abi::Buffer values[kLabelCount];
    for (size_t i = 0; i < kLabelCount; ++i) values[i] = abi::ToBuffer(Values(labels)[i]);
    void* handle = nullptr;
    const std::lock_guard lock(mutex_);
    if (resolve(envoy_, id, values, kLabelCount, &handle) != abi::kSuccess) return 0;
    return reinterpret_cast<Handle>(handle);
  }

  void* const envoy_;
  std::array<size_t, kCounterCount> counters_{};
  std::array<size_t, kGaugeCount> gauges_{};
  std::array<size_t, kHistogramCount> histograms_{};
  std::mutex mutex_;  // what Envoy resolves labels with is no thread's in particular
};

// A metric of its own for each set of labels. A handle is the metric's number, plus one.
class NamedMetrics final : public MetricWriter {
 public:
  static bool Possible() {
    return abi::ClusterDefineCounter != nullptr && abi::ClusterDefineGauge != nullptr &&
           abi::ClusterDefineHistogram != nullptr && abi::ClusterIncrementCounter != nullptr &&
           abi::ClusterSetGauge != nullptr && abi::ClusterRecordHistogram != nullptr;
  }

  explicit NamedMetrics(void* envoy_config) : envoy_(envoy_config) {}

  Handle Find(Counter counter, const SeriesLabels& labels) override {
    return Define(abi::ClusterDefineCounter, CounterName(counter), labels);
  }
  Handle Find(Gauge gauge, const SeriesLabels& labels) override {
    return Define(abi::ClusterDefineGauge, GaugeName(gauge), labels);
  }
  Handle Find(Histogram histogram, const SeriesLabels& labels) override {
    return Define(abi::ClusterDefineHistogram, HistogramName(histogram), labels);
  }

  void Add(Handle counter, uint64_t delta) override {
    const std::shared_lock lock(mutex_);
    abi::ClusterIncrementCounter(envoy_, counter - 1, nullptr, 0, delta);
  }
  void Set(Handle gauge, uint64_t value) override {
    const std::shared_lock lock(mutex_);
    abi::ClusterSetGauge(envoy_, gauge - 1, nullptr, 0, value);
  }
  void Record(Handle histogram, uint64_t value) override {
    const std::shared_lock lock(mutex_);
    abi::ClusterRecordHistogram(envoy_, histogram - 1, nullptr, 0, value);
  }

 private:
  template <typename Callback>
  Handle Define(Callback define, std::string_view metric, const SeriesLabels& labels) {
    std::string name = Prefixed(metric);
    for (size_t i = 0; i < kLabelCount; ++i) {
      name.append(1, '.').append(kLabelNames[i]).append(1, '.').append(Values(labels)[i]);
    }
    const std::lock_guard lock(mutex_);
    Handle& handle = handles_[name];
    size_t id = 0;
    if (handle == 0 && define(envoy_, abi::ToBuffer(name), nullptr, 0, &id) == abi::kSuccess) {
      handle = id + 1;
    }
    return handle;
  }

  void* const envoy_;
  std::shared_mutex mutex_;  // Envoy finds metrics by number in a list that grows
  std::map<std::string, Handle> handles_;
};

}  // namespace

std::unique_ptr<MetricWriter> MetricWriter::Create(void* envoy_config) {
  if (LabelledMetrics::Possible()) {
    auto labelled = std::make_unique<LabelledMetrics>(envoy_config);
    if (!labelled->Define()) return nullptr;
    return labelled;
  }
  if (!NamedMetrics::Possible()) return nullptr;
  return std::make_unique<NamedMetrics>(envoy_config);
}

}  // namespace metaprotocol::envoy
