#include "envoy_ext/worker/metric_sink.h"

#include <algorithm>
#include <utility>

namespace metaprotocol::envoy {
namespace {

// Histogram values kept per series and histogram while there is no configuration.
constexpr size_t kMaxUnrecorded = 4096;

}  // namespace

MetricSink& MetricSink::Get() {
  static MetricSink* const instance = std::unique_ptr<MetricSink>(new MetricSink()).release();
  return *instance;
}

MetricSink::Series* MetricSink::Find(const SeriesLabels& labels) {
  const std::lock_guard lock(series_mutex_);
  auto& series = series_[{labels.protocol, labels.route, labels.cluster}];
  if (series == nullptr) {
    series = std::make_unique<Series>();
    series->labels = labels;
  }
  return series.get();
}

bool MetricSink::Attach(void* envoy_config) {
  std::unique_ptr<MetricWriter> writer = MetricWriter::Create(envoy_config);
  if (writer == nullptr) return false;
  const std::lock_guard lock(configs_mutex_);
  configs_.push_back({envoy_config, next_generation_++, std::move(writer)});
  return true;
}

void MetricSink::Detach(void* envoy_config) {
  const std::lock_guard lock(configs_mutex_);
  std::erase_if(configs_, [&](const Config& config) { return config.envoy == envoy_config; });
}

void MetricSink::DeliverAll() {
  const std::shared_lock delivering(configs_mutex_);
  const std::lock_guard all(series_mutex_);
  for (const auto& [labels, series] : series_) {
    std::unique_lock lock(series->mutex);
    for (size_t i = 0; i < kCounterCount; ++i) {
      if (series->undelivered[i] != 0) DeliverCounter(*series, i);
    }
    for (size_t i = 0; i < kGaugeCount; ++i) {
      if (series->totals[i] != 0) DeliverGauge(*series, i);
    }
    lock.unlock();
    for (size_t i = 0; i < kHistogramCount; ++i) {
      DeliverHistogram(*series, i, std::unique_lock(series->mutex), {});
    }
  }
  for (const auto& [labels, series] : request_series_) {
    const std::lock_guard lock(series->mutex);
    DeliverRequests(*series);
  }
}

MetricWriter* MetricSink::Current(Series& series) {
  const uint64_t generation = configs_.empty() ? 0 : configs_.back().generation;
  if (series.generation != generation) {
    series.generation = generation;
    series.counters.fill(0);
    series.gauges.fill(0);
    series.histograms.fill(0);
  }
  return configs_.empty() ? nullptr : configs_.back().writer.get();
}

void MetricSink::DeliverCounter(Series& series, size_t counter) {
  MetricWriter* const writer = Current(series);
  if (writer == nullptr) return;
  MetricWriter::Handle& handle = series.counters[counter];
  if (handle == 0) handle = writer->Find(static_cast<Counter>(counter), series.labels);
  if (handle == 0) return;
  writer->Add(handle, std::exchange(series.undelivered[counter], 0));
}

void MetricSink::DeliverGauge(Series& series, size_t gauge) {
  MetricWriter* const writer = Current(series);
  if (writer == nullptr) return;
  MetricWriter::Handle& handle = series.gauges[gauge];
  if (handle == 0) handle = writer->Find(static_cast<Gauge>(gauge), series.labels);
  if (handle == 0) return;
  writer->Set(handle, static_cast<uint64_t>(std::max<int64_t>(0, series.totals[gauge])));
}

// The values themselves are written with nothing held that another worker may want.
void MetricSink::DeliverHistogram(Series& series, size_t histogram,
                                  std::unique_lock<std::mutex> lock,
                                  std::span<const uint64_t> values) {
  std::vector<uint64_t>& waiting = series.unrecorded[histogram];
  MetricWriter* const writer = Current(series);
  MetricWriter::Handle handle = 0;
  if (writer != nullptr) {
    handle = series.histograms[histogram];
    if (handle == 0) handle = writer->Find(static_cast<Histogram>(histogram), series.labels);
    series.histograms[histogram] = handle;
  }
  if (handle == 0) {
    const size_t room = kMaxUnrecorded - std::min(kMaxUnrecorded, waiting.size());
    const auto taken = values.first(std::min(room, values.size()));
    waiting.insert(waiting.end(), taken.begin(), taken.end());
    return;
  }
  const std::vector<uint64_t> former = std::exchange(waiting, {});
  lock.unlock();
  if (!former.empty()) writer->Record(handle, former);
  if (!values.empty()) writer->Record(handle, values);
}

// --- requests

MetricSink::RequestSeries* MetricSink::FindRequests(const RequestSeriesLabels& labels) {
  const std::lock_guard lock(series_mutex_);
  auto& series = request_series_[labels.Key()];
  if (series == nullptr) {
    series = std::make_unique<RequestSeries>();
    series->labels = labels;
  }
  return series.get();
}

MetricWriter* MetricSink::Current(RequestSeries& series) {
  MetricWriter* const writer = configs_.empty() ? nullptr : configs_.back().writer.get();
  const uint64_t generation = configs_.empty() ? 0 : configs_.back().generation;
  if (series.generation == generation) return writer;
  series.generation = generation;
  for (size_t i = 0; i < kRequestMetricCount; ++i) {
    const bool wanted = writer != nullptr && series.labels.has(i);
    series.handles[i] =
        wanted ? writer->Find(static_cast<RequestMetric>(i), series.labels.of[i]) : 0;
  }
  return writer;
}

void MetricSink::DeliverRequests(RequestSeries& series) {
  MetricWriter* const writer = Current(series);
  const MetricWriter::Handle counter = series.handles[0];
  if (writer == nullptr || counter == 0 || series.undelivered == 0) return;
  writer->Add(counter, std::exchange(series.undelivered, 0));
}

// Each series of the samples is looked at once, and nothing that another worker may want is held
// while histograms are written.
void MetricSink::Record(std::span<RequestSample> samples, std::span<RequestSeries* const> series) {
  std::sort(samples.begin(), samples.end(),
            [](const RequestSample& a, const RequestSample& b) { return a.series < b.series; });
  const std::shared_lock delivering(configs_mutex_);
  std::vector<uint64_t> values;
  while (!samples.empty()) {
    RequestSeries& one = *series[samples.front().series];
    const auto end = std::find_if(samples.begin(), samples.end(), [&](const RequestSample& sample) {
      return sample.series != samples.front().series;
    });
    const std::span<const RequestSample> group(samples.begin(), end);
    samples = samples.subspan(group.size());

    std::unique_lock lock(one.mutex);
    one.undelivered += group.size();
    DeliverRequests(one);
    const auto handles = one.handles;
    lock.unlock();
    const auto record = [&](RequestMetric metric, auto value_of) {
      const MetricWriter::Handle handle = handles[static_cast<size_t>(metric)];
      if (handle == 0) return;
      values.clear();
      for (const RequestSample& sample : group) values.push_back(value_of(sample));
      configs_.back().writer->Record(handle, values);
    };
    // Whole milliseconds, as Istio's.
    record(RequestMetric::kDuration,
           [](const RequestSample& sample) { return sample.duration_us / 1000; });
    record(RequestMetric::kRequestBytes,
           [](const RequestSample& sample) { return sample.request_bytes; });
    record(RequestMetric::kResponseBytes,
           [](const RequestSample& sample) { return sample.response_bytes; });
  }
}

void MetricSink::AddCounter(Series* series, Counter counter, uint64_t delta) {
  const std::shared_lock delivering(configs_mutex_);
  const std::lock_guard lock(series->mutex);
  const auto index = static_cast<size_t>(counter);
  series->undelivered[index] += delta;
  DeliverCounter(*series, index);
}

void MetricSink::AddGauge(Series* series, Gauge gauge, int64_t delta) {
  const std::shared_lock delivering(configs_mutex_);
  const std::lock_guard lock(series->mutex);
  const auto index = static_cast<size_t>(gauge);
  series->totals[index] += delta;
  DeliverGauge(*series, index);
}

void MetricSink::RecordHistogram(Series* series, Histogram histogram,
                                 std::span<const uint64_t> values) {
  const std::shared_lock delivering(configs_mutex_);
  DeliverHistogram(*series, static_cast<size_t>(histogram), std::unique_lock(series->mutex),
                   values);
}

}  // namespace metaprotocol::envoy
