// The global rate limit of one route table: which requests a service is asked about, and what.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/route/route_table.h"

namespace metaprotocol {

struct GlobalRateLimit {
  struct Descriptor {
    KeyRef key;
    std::string descriptor_key;  // as the service knows it
  };

  std::unique_ptr<const RouteTable> match;  // one rule; requests that do not meet it pass
  std::string domain;
  std::string cluster;  // of the service
  uint64_t timeout_us = 20 * 1000;
  bool deny_on_fail = false;
  std::vector<Descriptor> descriptors;

  // The message to ask with; empty if there is nothing to ask.
  std::string Question(const MatchInput& request) const;
};

}  // namespace metaprotocol
