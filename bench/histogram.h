// A latency histogram with bounded relative error, in the manner of HdrHistogram: buckets double in
// width, each divided into equal parts, so that any value is kept to within 1 %.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace bench {

class Histogram {
 public:
  void Record(uint64_t value) {
    ++counts_[Index(value)];
    ++total_;
    if (value > max_) max_ = value;
  }

  uint64_t max() const { return max_; }

  // The value that `percent` of all recorded ones do not exceed; 0 if there are none.
  uint64_t Percentile(double percent) const {
    if (total_ == 0) return 0;
    auto wanted = static_cast<uint64_t>(percent / 100.0 * static_cast<double>(total_) + 0.5);
    if (wanted < 1) wanted = 1;
    uint64_t seen = 0;
    for (uint32_t i = 0; i < counts_.size(); ++i) {
      seen += counts_[i];
      if (seen >= wanted) return Middle(i) < max_ ? Middle(i) : max_;
    }
    return max_;
  }

 private:
  static constexpr uint32_t kPartBits = 7;
  static constexpr uint32_t kParts = 1 << kPartBits;

  // Values below 2 * kParts are their own bucket; above, the kPartBits bits after the leading one
  // tell the part.
  static uint32_t Index(uint64_t value) {
    const auto width = static_cast<uint32_t>(std::bit_width(value | kParts));
    const uint32_t shift = width - kPartBits - 1;
    return shift * kParts + static_cast<uint32_t>(value >> shift);
  }
  static uint64_t Middle(uint32_t index) {
    if (index < 2 * kParts) return index;
    const uint32_t shift = index / kParts - 1;
    const uint64_t low = uint64_t{index - shift * kParts} << shift;
    return low + (uint64_t{1} << shift) / 2;
  }

  std::array<uint64_t, (64 - kPartBits + 1) * kParts> counts_{};
  uint64_t total_ = 0;
  uint64_t max_ = 0;
};

}  // namespace bench
