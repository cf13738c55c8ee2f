// The global rate limit: a service says which requests may pass.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/filter/filter.h"

namespace metaprotocol {

class GlobalRateLimit final : public Filter {
 public:
  struct Entry {
    std::optional<KeyRef> key;   // whose value it has; none: always `value`
    std::string descriptor_key;  // as the service knows it
    std::string value = {};
  };
  using Descriptor = std::vector<Entry>;
  // What requests that meet its one rule are counted under.
  struct Source {
    std::unique_ptr<const RouteTable> match;
    std::vector<Descriptor> descriptors;
  };

  // Most entries of all descriptors together: what a question may cost.
  static constexpr size_t kMostEntries = 128;

  std::string domain;
  std::string cluster;  // of the service
  uint64_t timeout_us = 20 * 1000;
  bool deny_on_fail = false;
  bool tells_clients = false;   // what the service says is left, in the entries of replies
  Source all;                   // requests that do not meet its rule pass
  std::vector<Source> further;  // each that a request meets adds its descriptors

  // The message to ask with; empty if there is nothing to ask.
  std::string Question(const MatchInput& request) const;

  std::string_view name() const override { return "global_rate_limit"; }
  bool WantsWhole(const MatchInput& head) const override { return !Question(head).empty(); }
  RequestVerdict OnRequest(FilterContext& context) const override;
  RequestVerdict OnCallDone(FilterContext& context, std::optional<Bytes> reply) const override;
};

}  // namespace metaprotocol
