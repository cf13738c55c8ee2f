// How one configuration of the worker cluster takes the module's metrics. Envoys differ in what
// they allow a cluster. From 1.40 on a metric with labels is resolved once to a handle. Older ones
// have no handles, and take the labels with every single value. 1.38 keeps them in memory for good
// each time; but there a metric can be defined at any time, so each set of labels gets one of its
// own, under the name that a labelled one has in /stats. 1.39 defines none once the configuration
// is made, and keeps nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "src/observe/metrics.h"
#include "src/observe/request_series.h"

namespace metaprotocol::envoy {

// Thread-safe.
class MetricWriter {
 public:
  // Of the metric that a handle stands for; 0 is none.
  using Handle = uintptr_t;

  // Within the cluster's config_new, for that configuration. Null if this Envoy allows a cluster no
  // metrics.
  static std::unique_ptr<MetricWriter> Create(void* envoy_config);
  virtual ~MetricWriter() = default;

  // Always the same for the same metric and labels; 0 if Envoy refuses.
  virtual Handle Find(Counter counter, const SeriesLabels& labels) = 0;
  virtual Handle Find(Gauge gauge, const SeriesLabels& labels) = 0;
  virtual Handle Find(Histogram histogram, const SeriesLabels& labels) = 0;
  // kRequests is a counter, the others are histograms. Not in Envoy 1.38, which would have to keep
  // them apart by their names.
  virtual Handle Find(RequestMetric metric, const RequestLabels& labels) = 0;

  virtual void Add(Handle counter, uint64_t delta) = 0;
  virtual void Set(Handle gauge, uint64_t value) = 0;
  virtual void Record(Handle histogram, std::span<const uint64_t> values) = 0;
};

}  // namespace metaprotocol::envoy
