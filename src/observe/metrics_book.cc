#include "src/observe/metrics_book.h"

namespace metaprotocol {

Series& MetricsBook::Get(std::string_view protocol, std::string_view route,
                         std::string_view cluster) {
  std::string key;
  key.reserve(protocol.size() + route.size() + cluster.size() + 2);
  key.append(protocol).append(1, '\0').append(route).append(1, '\0').append(cluster);
  Series*& entry = by_labels_[std::move(key)];
  if (entry == nullptr) {
    const auto index = static_cast<uint32_t>(series_.size());
    entry = series_.emplace_back(std::make_unique<Series>(index, host_)).get();
    host_.DefineSeries(index, {std::string(protocol), std::string(route), std::string(cluster)});
  }
  return *entry;
}

uint32_t MetricsBook::GetRequests(const RequestSeriesLabels& labels) {
  const auto [entry, is_new] = requests_by_labels_.try_emplace(
      labels.Key(), static_cast<uint32_t>(requests_by_labels_.size()));
  if (is_new) host_.DefineRequestSeries(entry->second, labels);
  return entry->second;
}

void MetricsBook::HandOverSamples() {
  host_.RecordRequests(samples_);
  samples_.clear();
}

void MetricsBook::Flush() {
  if (!samples_.empty()) HandOverSamples();
  for (const auto& series : series_) {
    if (!series->dirty_) continue;
    series->dirty_ = false;
    for (size_t i = 0; i < kCounterCount; ++i) {
      if (series->counters_[i] == 0) continue;
      host_.AddCounter(series->index_, static_cast<Counter>(i), series->counters_[i]);
      series->counters_[i] = 0;
    }
    for (size_t i = 0; i < kGaugeCount; ++i) {
      if (series->gauges_[i] == 0) continue;
      host_.AddGauge(series->index_, static_cast<Gauge>(i), series->gauges_[i]);
      series->gauges_[i] = 0;
    }
    for (size_t i = 0; i < kHistogramCount; ++i) {
      if (!series->histograms_[i].empty()) series->HandOver(static_cast<Histogram>(i));
    }
  }
}

}  // namespace metaprotocol
