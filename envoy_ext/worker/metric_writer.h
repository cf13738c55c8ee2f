// How one configuration of the worker cluster takes the module's metrics. Envoys differ in what
// they allow a cluster: from 1.40 on a metric with labels is resolved once to a handle. Older ones
// have no handles, and keep the label values of every single call in memory for good. There a
// metric is defined for each set of labels, under the name that a labelled one has in /stats.
#pragma once

#include <cstdint>
#include <memory>

#include "src/observe/metrics.h"

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

  virtual void Add(Handle counter, uint64_t delta) = 0;
  virtual void Set(Handle gauge, uint64_t value) = 0;
  virtual void Record(Handle histogram, uint64_t value) = 0;
};

}  // namespace metaprotocol::envoy
