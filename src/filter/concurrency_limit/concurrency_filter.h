// The concurrency limit: how many requests this process lets be under way at a time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "src/filter/filter.h"
#include "src/limit/concurrency_limit.h"

namespace metaprotocol {

class ConcurrencyFilter final : public Filter {
 public:
  static constexpr size_t kMostKeys = 8;

  // What requests count against: at most one of the first two.
  struct Source {
    std::shared_ptr<ConcurrencyLimit> limit = nullptr;  // all together, or...
    std::shared_ptr<ConcurrencyTable> table = nullptr;  // ...those of each value...
    std::vector<KeyRef> keys = {};                      // ...of these, at most kMostKeys
  };

  // A request counts against the source of the first rule that it meets; Route::index in `rules` is
  // its place in `sources`. If it meets none it counts against `rest`.
  ConcurrencyFilter(std::unique_ptr<const RouteTable> rules, std::vector<Source> sources,
                    Source rest)
      : rules_(std::move(rules)), sources_(std::move(sources)), rest_(std::move(rest)) {
    adapts_ = Adapts(rest_) || std::any_of(sources_.begin(), sources_.end(), Adapts);
  }

  std::string_view name() const override { return "concurrency_limit"; }
  // What is measured, and who is under way, goes on where the numbers are the same.
  void ContinueWith(const Filter& before) const override;
  FilterNeeds needs() const override {
    return {.request = true, .response = adapts_, .outcome = adapts_, .state = true};
  }
  bool WantsWhole(const MatchInput& /*head*/) const override { return false; }
  RequestVerdict OnRequest(FilterContext& context) const override;
  ResponseVerdict OnResponse(FilterContext& context, const ResponseHead& head) const override;
  void OnEnd(FilterContext& context, const Outcome& outcome) const override;

 private:
  static bool Adapts(const Source& source) {
    return source.limit != nullptr && source.limit->settings().gradient.has_value();
  }

  std::unique_ptr<const RouteTable> rules_;
  // Changed by ContinueWith, before any other thread knows of this.
  mutable std::vector<Source> sources_;
  mutable Source rest_;
  bool adapts_ = false;
};

}  // namespace metaprotocol
