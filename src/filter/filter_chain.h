// The filters that the requests of a route pass.
#pragma once

#include <algorithm>
#include <vector>

#include "src/filter/filter.h"

namespace metaprotocol {

// Knows the filters, and does not own them. Part of a configuration.
class FilterChain {
 public:
  // One that needs nothing is left out.
  void Add(const Filter& filter) {
    const FilterNeeds needs = filter.needs();
    if (needs.none()) return;
    filters_.push_back({&filter, needs});
    needs_.request |= needs.request;
    needs_.response |= needs.response;
    needs_.whole_response |= needs.whole_response;
    needs_.outcome |= needs.outcome;
    needs_.replay |= needs.replay;
    needs_.state |= needs.state;
  }

  bool empty() const { return filters_.empty(); }
  size_t size() const { return filters_.size(); }
  const Filter& at(size_t position) const { return *filters_[position].filter; }
  const FilterNeeds& needs_of(size_t position) const { return filters_[position].needs; }
  // Of all of them.
  const FilterNeeds& needs() const { return needs_; }

  bool WantsWhole(const MatchInput& head) const {
    return std::any_of(filters_.begin(), filters_.end(),
                       [&](const Entry& entry) { return entry.filter->WantsWhole(head); });
  }

 private:
  struct Entry {
    const Filter* filter;
    FilterNeeds needs;
  };
  std::vector<Entry> filters_;
  FilterNeeds needs_ = {.request = false};
};

}  // namespace metaprotocol
