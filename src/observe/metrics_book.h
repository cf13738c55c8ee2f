// One engine's counts, per series, until they are handed to the host.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "src/base/secret_hash.h"
#include "src/host/host.h"
#include "src/observe/metrics.h"
#include "src/observe/request_series.h"

namespace metaprotocol {

// The values of one set of labels. Plain memory of one thread: counting is an addition.
class Series {
 public:
  Series(uint32_t index, Host& host) : index_(index), host_(host) {}

  void Add(Counter counter, uint64_t delta = 1) {
    counters_[static_cast<size_t>(counter)] += delta;
    dirty_ = true;
  }
  void Add(Gauge gauge, int64_t delta) {
    gauges_[static_cast<size_t>(gauge)] += delta;
    dirty_ = true;
  }
  void Record(Histogram histogram, uint64_t value) {
    std::vector<uint64_t>& values = histograms_[static_cast<size_t>(histogram)];
    values.push_back(value);
    dirty_ = true;
    // Handed over now and then rather than all at once, which would hold up the worker for long.
    if (values.size() >= kMostValues) HandOver(histogram);
  }

 private:
  friend class MetricsBook;
  static constexpr size_t kMostValues = 256;

  void HandOver(Histogram histogram) {
    std::vector<uint64_t>& values = histograms_[static_cast<size_t>(histogram)];
    host_.RecordHistogram(index_, histogram, values);
    values.clear();
  }

  uint32_t index_;
  Host& host_;
  bool dirty_ = false;
  std::array<uint64_t, kCounterCount> counters_{};  // since the last flush
  std::array<int64_t, kGaugeCount> gauges_{};       // likewise
  std::array<std::vector<uint64_t>, kHistogramCount> histograms_;
};

class MetricsBook {
 public:
  explicit MetricsBook(Host& host) : host_(host) {}

  // The series of these labels, made on first use; stays valid.
  Series& Get(std::string_view protocol, std::string_view route, std::string_view cluster);

  // The number of the request series of these labels, made on first use; stays valid.
  uint32_t GetRequests(const RequestSeriesLabels& labels);
  // Samples are handed over so many at a time, which does not hold up the worker for long.
  void Add(const RequestSample& sample) {
    samples_.push_back(sample);
    if (samples_.size() >= kMostSamples) HandOverSamples();
  }

  // Hands every difference to the host.
  void Flush();

 private:
  static constexpr size_t kMostSamples = 256;

  void HandOverSamples();

  Host& host_;
  std::vector<RequestSample> samples_;
  std::unordered_map<std::string, uint32_t, SecretHash> requests_by_labels_;
  std::vector<std::unique_ptr<Series>> series_;
  std::unordered_map<std::string, Series*> by_labels_;
};

}  // namespace metaprotocol
