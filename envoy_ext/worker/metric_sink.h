// Where all workers' metrics come together on their way into Envoy's statistics.
//
// Of the extensions this module consists of, only the worker cluster may define metrics with
// labels, and they are written no longer than one of its configurations lives. So values are summed
// up here, under their labels, and delivered to whichever configuration is there; what arrives
// while there is none is delivered to the next. Thread-safe; workers wait for each other only where
// both write one series' counters, which takes no time.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "envoy_ext/worker/metric_writer.h"
#include "src/observe/metrics.h"
#include "src/observe/request_series.h"

namespace metaprotocol::envoy {

class MetricSink {
 public:
  // All metrics of one set of labels. Only the sink looks inside.
  struct Series {
    SeriesLabels labels;
    std::mutex mutex;         // guards what follows
    uint64_t generation = 0;  // of the configuration that the handles belong to
    std::array<MetricWriter::Handle, kCounterCount> counters{};
    std::array<MetricWriter::Handle, kGaugeCount> gauges{};
    std::array<MetricWriter::Handle, kHistogramCount> histograms{};
    std::array<uint64_t, kCounterCount> undelivered{};
    std::array<int64_t, kGaugeCount> totals{};
    std::array<std::vector<uint64_t>, kHistogramCount> unrecorded;
  };

  // The same for requests.
  struct RequestSeries {
    RequestSeriesLabels labels;
    std::mutex mutex;         // guards what follows
    uint64_t generation = 0;  // of the configuration that the handles belong to
    std::array<MetricWriter::Handle, kRequestMetricCount> handles{};
    uint64_t undelivered = 0;  // requests
  };

  // The process's only one; never destroyed.
  static MetricSink& Get();

  // The same for the same labels; stays valid for good.
  Series* Find(const SeriesLabels& labels);

  void AddCounter(Series* series, Counter counter, uint64_t delta);
  void AddGauge(Series* series, Gauge gauge, int64_t delta);
  void RecordHistogram(Series* series, Histogram histogram, std::span<const uint64_t> values);

  RequestSeries* FindRequests(const RequestSeriesLabels& labels);
  // `series`: by RequestSample::series. Sorts the samples. Of requests that end while there is no
  // configuration only the number is kept.
  void Record(std::span<RequestSample> samples, std::span<RequestSeries* const> series);

  // Called within the worker cluster's config_new: delivers to that configuration from now on.
  // False if Envoy allows it no metrics.
  bool Attach(void* envoy_config);
  // Before the configuration is destroyed; the one attached before it takes over.
  void Detach(void* envoy_config);
  // Delivers what has waited for a configuration.
  void DeliverAll();

 private:
  struct Config {
    void* envoy;
    uint64_t generation;
    std::unique_ptr<MetricWriter> writer;
  };

  MetricSink() = default;
  // With configs_mutex_ held, and the series' own: the writer to deliver to, or null; `series`
  // loses the handles of an older one.
  MetricWriter* Current(Series& series);
  MetricWriter* Current(RequestSeries& series);
  void DeliverRequests(RequestSeries& series);
  void DeliverCounter(Series& series, size_t counter);
  void DeliverGauge(Series& series, size_t gauge);
  void DeliverHistogram(Series& series, size_t histogram, std::unique_lock<std::mutex> lock,
                        std::span<const uint64_t> values);

  std::mutex series_mutex_;
  std::map<std::tuple<std::string, std::string, std::string>, std::unique_ptr<Series>> series_;
  std::map<std::string, std::unique_ptr<RequestSeries>, std::less<>> request_series_;
  // Held by all who deliver, so that no configuration goes meanwhile; alone by those who change
  // the list.
  std::shared_mutex configs_mutex_;
  std::vector<Config> configs_;  // oldest first
  uint64_t next_generation_ = 1;
};

}  // namespace metaprotocol::envoy
