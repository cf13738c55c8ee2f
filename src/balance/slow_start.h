// Slow start: a host that is new, or well again, gets its share of the requests little by little.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace metaprotocol {

struct SlowStart {
  uint64_t window_us = 0;          // until it has its whole share
  double min_weight_percent = 10;  // of its weight, to begin with
  double aggression = 1;           // 1: its share grows evenly; more: faster at first

  // The share of its weight that a host has after so long, by Envoy's rule.
  double Factor(uint64_t age_us) const {
    if (age_us >= window_us) return 1;
    const double passed = static_cast<double>(age_us) / static_cast<double>(window_us);
    const double share = aggression == 1 ? passed : std::pow(passed, 1 / aggression);
    return std::max(share, min_weight_percent / 100);
  }
  bool operator==(const SlowStart&) const = default;

  // Weights are computed anew after so long: a fiftieth of what there is to gain.
  uint64_t step_us() const { return std::max<uint64_t>(window_us / 50, 1000); }
};

}  // namespace metaprotocol
