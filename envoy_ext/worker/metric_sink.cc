#include "envoy_ext/worker/metric_sink.h"

#include <algorithm>
#include <string_view>

#include "envoy_ext/abi/abi.h"
#include "envoy_ext/abi/log.h"

namespace metaprotocol::envoy {
namespace {

// Histogram values kept per series and histogram while there is no configuration.
constexpr size_t kMaxUnrecorded = 4096;

// Before every metric's name. In Envoy 1.40 clusters' metrics are called "dynamicmodulescustom."
// and then the name, whatever `metrics_namespace` says.
constexpr std::string_view kPrefix = "metaprotocol.";

constexpr std::string_view kLabelNames[] = {"protocol", "route", "cluster"};
constexpr size_t kLabelCount = std::size(kLabelNames);

bool HaveCallbacks() {
  return abi::ClusterDefineCounter != nullptr && abi::ClusterDefineGauge != nullptr &&
         abi::ClusterDefineHistogram != nullptr && abi::ClusterResolveCounter != nullptr &&
         abi::ClusterResolveGauge != nullptr && abi::ClusterResolveHistogram != nullptr &&
         abi::ClusterCounterAdd != nullptr && abi::ClusterGaugeSet != nullptr &&
         abi::ClusterHistogramRecord != nullptr;
}

std::string Prefixed(std::string_view name) { return std::string(kPrefix) + std::string(name); }

// The handle of one metric under the labels of one series; null if Envoy has none.
template <typename Resolve>
void* Handle(void*& handle, Resolve resolve, void* config, size_t id, const SeriesLabels& labels) {
  if (handle == nullptr) {
    abi::Buffer values[kLabelCount] = {abi::ToBuffer(labels.protocol), abi::ToBuffer(labels.route),
                                       abi::ToBuffer(labels.cluster)};
    if (resolve(config, id, values, kLabelCount, &handle) != abi::kSuccess) handle = nullptr;
  }
  return handle;
}

}  // namespace

MetricSink& MetricSink::Get() {
  static MetricSink* const instance = std::unique_ptr<MetricSink>(new MetricSink()).release();
  return *instance;
}

MetricSink::Series* MetricSink::Find(const SeriesLabels& labels) {
  const std::lock_guard lock(mutex_);
  auto& series = series_[{labels.protocol, labels.route, labels.cluster}];
  if (series == nullptr) {
    series = std::make_unique<Series>();
    series->labels = labels;
  }
  return series.get();
}

bool MetricSink::Attach(void* envoy_config) {
  if (!HaveCallbacks()) return false;
  Config config{envoy_config, 0, {}, {}, {}};
  abi::Buffer labels[kLabelCount];
  for (size_t i = 0; i < kLabelCount; ++i) labels[i] = abi::ToBuffer(kLabelNames[i]);
  bool good = true;
  for (size_t i = 0; i < kCounterCount; ++i) {
    const std::string name = Prefixed(CounterName(static_cast<Counter>(i)));
    good &= abi::ClusterDefineCounter(envoy_config, abi::ToBuffer(name), labels, kLabelCount,
                                      &config.counters[i]) == abi::kSuccess;
  }
  for (size_t i = 0; i < kGaugeCount; ++i) {
    const std::string name = Prefixed(GaugeName(static_cast<Gauge>(i)));
    good &= abi::ClusterDefineGauge(envoy_config, abi::ToBuffer(name), labels, kLabelCount,
                                    &config.gauges[i]) == abi::kSuccess;
  }
  for (size_t i = 0; i < kHistogramCount; ++i) {
    const std::string name = Prefixed(HistogramName(static_cast<Histogram>(i)));
    good &= abi::ClusterDefineHistogram(envoy_config, abi::ToBuffer(name), labels, kLabelCount,
                                        &config.histograms[i]) == abi::kSuccess;
  }
  if (!good) return false;
  const std::lock_guard lock(mutex_);
  config.generation = next_generation_++;
  configs_.push_back(config);
  return true;
}

void MetricSink::Detach(void* envoy_config) {
  const std::lock_guard lock(mutex_);
  std::erase_if(configs_, [&](const Config& config) { return config.envoy == envoy_config; });
}

void MetricSink::DeliverAll() {
  const std::lock_guard lock(mutex_);
  for (const auto& [labels, series] : series_) {
    for (size_t i = 0; i < kCounterCount; ++i) {
      if (series->undelivered[i] != 0) DeliverCounter(*series, i);
    }
    for (size_t i = 0; i < kGaugeCount; ++i) {
      if (series->totals[i] != 0) DeliverGauge(*series, i);
    }
    for (size_t i = 0; i < kHistogramCount; ++i) DeliverHistogram(*series, i);
  }
}

const MetricSink::Config* MetricSink::Current(Series& series) {
  const uint64_t generation = configs_.empty() ? 0 : configs_.back().generation;
  if (series.generation != generation) {
    series.generation = generation;
    series.counters.fill(nullptr);
    series.gauges.fill(nullptr);
    series.histograms.fill(nullptr);
  }
  return configs_.empty() ? nullptr : &configs_.back();
}

void MetricSink::DeliverCounter(Series& series, size_t counter) {
  const Config* config = Current(series);
  if (config == nullptr) return;
  void* handle = Handle(series.counters[counter], abi::ClusterResolveCounter, config->envoy,
                        config->counters[counter], series.labels);
  if (handle == nullptr) return;
  abi::ClusterCounterAdd(handle, series.undelivered[counter]);
  series.undelivered[counter] = 0;
}

void MetricSink::DeliverGauge(Series& series, size_t gauge) {
  const Config* config = Current(series);
  if (config == nullptr) return;
  void* handle = Handle(series.gauges[gauge], abi::ClusterResolveGauge, config->envoy,
                        config->gauges[gauge], series.labels);
  if (handle == nullptr) return;
  abi::ClusterGaugeSet(handle, static_cast<uint64_t>(std::max<int64_t>(0, series.totals[gauge])));
}

void MetricSink::DeliverHistogram(Series& series, size_t histogram) {
  const Config* config = Current(series);
  if (config == nullptr || series.unrecorded[histogram].empty()) return;
  void* handle = Handle(series.histograms[histogram], abi::ClusterResolveHistogram, config->envoy,
                        config->histograms[histogram], series.labels);
  if (handle == nullptr) return;
  for (const uint64_t value : series.unrecorded[histogram]) {
    abi::ClusterHistogramRecord(handle, value);
  }
  series.unrecorded[histogram].clear();
}

void MetricSink::AddCounter(Series* series, Counter counter, uint64_t delta) {
  const std::lock_guard lock(mutex_);
  const auto index = static_cast<size_t>(counter);
  series->undelivered[index] += delta;
  DeliverCounter(*series, index);
}

void MetricSink::AddGauge(Series* series, Gauge gauge, int64_t delta) {
  const std::lock_guard lock(mutex_);
  const auto index = static_cast<size_t>(gauge);
  series->totals[index] += delta;
  DeliverGauge(*series, index);
}

void MetricSink::RecordHistogram(Series* series, Histogram histogram,
                                 std::span<const uint64_t> values) {
  const std::lock_guard lock(mutex_);
  const auto index = static_cast<size_t>(histogram);
  std::vector<uint64_t>& waiting = series->unrecorded[index];
  if (waiting.size() < kMaxUnrecorded) waiting.insert(waiting.end(), values.begin(), values.end());
  DeliverHistogram(*series, index);
}

}  // namespace metaprotocol::envoy
