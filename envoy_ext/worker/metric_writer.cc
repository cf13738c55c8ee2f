#include "envoy_ext/worker/metric_writer.h"

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "envoy_ext/abi/abi.h"

namespace metaprotocol::envoy {
namespace {

// Before every metric's name. Envoy calls clusters' metrics "dynamicmodulescustom." and then the
// name, whatever `metrics_namespace` says.
constexpr std::string_view kPrefix = "metaprotocol.";

constexpr size_t kLabelCount = 3;
using LabelNames = std::array<std::string_view, kLabelCount>;
constexpr LabelNames kLabelNames = {"protocol", "route", "cluster"};
constexpr LabelNames kFilterLabelNames = {"protocol", "filter", "metric"};

const LabelNames& LabelNamesOf(Counter counter) {
  return counter == Counter::kFilterCounter ? kFilterLabelNames : kLabelNames;
}
const LabelNames& LabelNamesOf(Gauge) { return kLabelNames; }
const LabelNames& LabelNamesOf(Histogram histogram) {
  return histogram == Histogram::kFilterHistogram ? kFilterLabelNames : kLabelNames;
}

std::string Prefixed(std::string_view name) { return std::string(kPrefix) + std::string(name); }

std::array<std::string_view, kLabelCount> Values(const SeriesLabels& labels) {
  return {labels.protocol, labels.route, labels.cluster};
}

// Envoy's numbers of all metrics.
struct Numbers {
  std::array<size_t, kCounterCount> counters{};
  std::array<size_t, kGaugeCount> gauges{};
  std::array<size_t, kHistogramCount> histograms{};
  std::array<size_t, kRequestMetricCount> requests{};
};

template <typename Callback>
bool Define(Callback callback, void* envoy_config, std::string_view name,
            std::span<const std::string_view> label_names, size_t& id) {
  std::vector<abi::Buffer> labels;
  for (const std::string_view label : label_names) labels.push_back(abi::ToBuffer(label));
  return callback(envoy_config, abi::ToBuffer(name), labels.data(), labels.size(), &id) ==
         abi::kSuccess;
}

// Defines every metric, with its labels.
bool DefineAll(void* envoy_config, Numbers& numbers) {
  auto& [counters, gauges, histograms, requests] = numbers;
  const auto define = [&](auto callback, auto metric, std::string_view name, size_t& id) {
    return Define(callback, envoy_config, Prefixed(name), LabelNamesOf(metric), id);
  };
  bool good = true;
  for (size_t i = 0; i < kCounterCount; ++i) {
    const auto counter = static_cast<Counter>(i);
    good &= define(abi::ClusterDefineCounter, counter, CounterName(counter), counters[i]);
  }
  for (size_t i = 0; i < kGaugeCount; ++i) {
    const auto gauge = static_cast<Gauge>(i);
    good &= define(abi::ClusterDefineGauge, gauge, GaugeName(gauge), gauges[i]);
  }
  for (size_t i = 0; i < kHistogramCount; ++i) {
    const auto histogram = static_cast<Histogram>(i);
    good &= define(abi::ClusterDefineHistogram, histogram, HistogramName(histogram), histograms[i]);
  }
  for (size_t i = 0; i < kRequestMetricCount; ++i) {
    const std::string_view name = kRequestMetricNames[i];
    good &= i == 0 ? Define(abi::ClusterDefineCounter, envoy_config, name, kRequestLabelNames,
                            requests[i])
                   : Define(abi::ClusterDefineHistogram, envoy_config, name, kRequestLabelNames,
                            requests[i]);
  }
  return good;
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

  bool Define() { return DefineAll(envoy_, numbers_); }

  Handle Find(Counter counter, const SeriesLabels& labels) override {
    return Resolve(abi::ClusterResolveCounter, numbers_.counters[static_cast<size_t>(counter)],
                   Values(labels));
  }
  Handle Find(Gauge gauge, const SeriesLabels& labels) override {
    return Resolve(abi::ClusterResolveGauge, numbers_.gauges[static_cast<size_t>(gauge)],
                   Values(labels));
  }
  Handle Find(Histogram histogram, const SeriesLabels& labels) override {
    return Resolve(abi::ClusterResolveHistogram,
                   numbers_.histograms[static_cast<size_t>(histogram)], Values(labels));
  }
  Handle Find(RequestMetric metric, const RequestLabels& labels) override {
    const size_t number = numbers_.requests[static_cast<size_t>(metric)];
    if (metric == RequestMetric::kRequests) {
      return Resolve(abi::ClusterResolveCounter, number, labels);
    }
    return Resolve(abi::ClusterResolveHistogram, number, labels);
  }

  void Add(Handle counter, uint64_t delta) override {
    abi::ClusterCounterAdd(ToPointer(counter), delta);
  }
  void Set(Handle gauge, uint64_t value) override { abi::ClusterGaugeSet(ToPointer(gauge), value); }
  void Record(Handle histogram, std::span<const uint64_t> values) override {
    for (const uint64_t value : values) abi::ClusterHistogramRecord(ToPointer(histogram), value);
  }

 private:
  static void* ToPointer(Handle handle) { return reinterpret_cast<void*>(handle); }

  template <typename Callback, typename Texts>
  Handle Resolve(Callback resolve, size_t id, const Texts& labels) {
    std::array<abi::Buffer, std::tuple_size_v<Texts>> values;
    std::transform(labels.begin(), labels.end(), values.begin(),
                   [](std::string_view value) { return abi::ToBuffer(value); });
    void* handle = nullptr;
    const std::lock_guard lock(mutex_);
    if (resolve(envoy_, id, values.data(), values.size(), &handle) != abi::kSuccess) return 0;
    return reinterpret_cast<Handle>(handle);
  }

  void* const envoy_;
  Numbers numbers_;
  std::mutex mutex_;  // what Envoy resolves labels with is no thread's in particular
};

// Where Envoy has no handles. A handle of ours is a place in `metrics_`, plus one.
class MetricsByNumber final : public MetricWriter {
 public:
  static bool Possible() {
    return abi::ClusterDefineCounter != nullptr && abi::ClusterDefineGauge != nullptr &&
           abi::ClusterDefineHistogram != nullptr && abi::ClusterIncrementCounter != nullptr &&
           abi::ClusterSetGauge != nullptr && abi::ClusterRecordHistogram != nullptr;
  }

  explicit MetricsByNumber(void* envoy_config) : envoy_(envoy_config) {}

  bool Define() { return DefineAll(envoy_, numbers_); }

  Handle Find(Counter counter, const SeriesLabels& labels) override {
    return Find(abi::ClusterDefineCounter, CounterName(counter), LabelNamesOf(counter),
                numbers_.counters[static_cast<size_t>(counter)], labels);
  }
  Handle Find(Gauge gauge, const SeriesLabels& labels) override {
    return Find(abi::ClusterDefineGauge, GaugeName(gauge), LabelNamesOf(gauge),
                numbers_.gauges[static_cast<size_t>(gauge)], labels);
  }
  Handle Find(Histogram histogram, const SeriesLabels& labels) override {
    return Find(abi::ClusterDefineHistogram, HistogramName(histogram), LabelNamesOf(histogram),
                numbers_.histograms[static_cast<size_t>(histogram)], labels);
  }

  Handle Find(RequestMetric metric, const RequestLabels& labels) override {
    const auto index = static_cast<size_t>(metric);
    std::string name(kRequestMetricNames[index]);
    for (const std::string& value : labels) name.append(1, '\0').append(value);
    const std::lock_guard lock(mutex_);
    if (KeepsWhatItIsTold()) return 0;
    Handle& handle = handles_[name];
    if (handle != 0) return handle;
    Metric& made = metrics_.emplace_back();
    made.number = numbers_.requests[index];
    made.SetLabels(labels);
    handle = metrics_.size();
    return handle;
  }

  void Add(Handle counter, uint64_t delta) override {
    const std::shared_lock lock(mutex_);
    Metric& metric = metrics_[counter - 1];
    abi::ClusterIncrementCounter(envoy_, metric.number, metric.buffers.data(), metric.label_count,
                                 delta);
  }
  void Set(Handle gauge, uint64_t value) override {
    const std::shared_lock lock(mutex_);
    Metric& metric = metrics_[gauge - 1];
    abi::ClusterSetGauge(envoy_, metric.number, metric.buffers.data(), metric.label_count, value);
  }
  // To find a metric by its labels costs about a microsecond each time, so of many values that come
  // at once only some are taken, evenly.
  void Record(Handle histogram, std::span<const uint64_t> values) override {
    constexpr size_t kMost = 64;
    const std::shared_lock lock(mutex_);
    Metric& metric = metrics_[histogram - 1];
    const size_t step = metric.label_count == 0 ? 1 : (values.size() + kMost - 1) / kMost;
    for (size_t i = 0; i < values.size(); i += step) {
      abi::ClusterRecordHistogram(envoy_, metric.number, metric.buffers.data(), metric.label_count,
                                  values[i]);
    }
  }

 private:
  struct Metric {
    size_t number = 0;
    size_t label_count = 0;  // 0: they are in the metric's name
    std::vector<std::string> values;
    std::vector<abi::Buffer> buffers;  // of `values`

    template <typename Texts>
    void SetLabels(const Texts& texts) {
      label_count = texts.size();
      values.assign(texts.begin(), texts.end());
      for (const std::string& value : values) buffers.push_back(abi::ToBuffer(value));
    }
  };

  // Whether this is Envoy 1.38, where labels stay in memory with each value.
  bool KeepsWhatItIsTold() {
    if (!keeps_) {
      // Of what is there already; nothing comes of it before it has a value.
      size_t number = 0;
      keeps_ = metaprotocol::envoy::Define(abi::ClusterDefineCounter, envoy_,
                                           Prefixed(CounterName(Counter::kRequests)), kLabelNames,
                                           number);
    }
    return *keeps_;
  }

  // `number`: of the metric that has these labels by name.
  template <typename Callback>
  Handle Find(Callback define, std::string_view metric, const LabelNames& names, size_t number,
              const SeriesLabels& labels) {
    std::string name = Prefixed(metric);
    for (size_t i = 0; i < kLabelCount; ++i) {
      name.append(1, '.').append(names[i]).append(1, '.').append(Values(labels)[i]);
    }
    const std::lock_guard lock(mutex_);
    Handle& handle = handles_[name];
    if (handle != 0) return handle;
    Metric& made = metrics_.emplace_back();
    if (define(envoy_, abi::ToBuffer(name), nullptr, 0, &made.number) != abi::kSuccess) {
      made.number = number;
      made.SetLabels(Values(labels));
    }
    handle = metrics_.size();
    return handle;
  }

  void* const envoy_;
  Numbers numbers_;
  std::shared_mutex mutex_;  // Envoy 1.38 finds metrics by number in a list that grows
  std::map<std::string, Handle> handles_;
  std::deque<Metric> metrics_;
  std::optional<bool> keeps_;
};

}  // namespace

std::unique_ptr<MetricWriter> MetricWriter::Create(void* envoy_config) {
  if (LabelledMetrics::Possible()) {
    auto metrics = std::make_unique<LabelledMetrics>(envoy_config);
    if (metrics->Define()) return metrics;
  } else if (MetricsByNumber::Possible()) {
    auto metrics = std::make_unique<MetricsByNumber>(envoy_config);
    if (metrics->Define()) return metrics;
  }
  return nullptr;
}

}  // namespace metaprotocol::envoy
