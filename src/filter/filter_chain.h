// The filters that the requests of a route pass.
#pragma once

#include <algorithm>
#include <vector>

#include "src/filter/filter.h"

namespace metaprotocol {

// Knows the filters, and does not own them. Part of a configuration.
class FilterChain {
 public:
  void Add(const Filter& filter) {
    filters_.push_back(&filter);
    const FilterNeeds needs = filter.needs();
    needs_.response |= needs.response;
    needs_.outcome |= needs.outcome;
    needs_.replay |= needs.replay;
  }

  bool empty() const { return filters_.empty(); }
  size_t size() const { return filters_.size(); }
  const Filter& at(size_t position) const { return *filters_[position]; }
  // Of all of them.
  const FilterNeeds& needs() const { return needs_; }

  bool WantsWhole(const MatchInput& head) const {
    return std::any_of(filters_.begin(), filters_.end(),
                       [&](const Filter* filter) { return filter->WantsWhole(head); });
  }

 private:
  std::vector<const Filter*> filters_;
  FilterNeeds needs_;
};

}  // namespace metaprotocol
