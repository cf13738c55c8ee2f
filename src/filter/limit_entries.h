// What clients are told of the limit that they are under, in the entries of replies.
#pragma once

#include <cstdint>
#include <string>

#include "src/filter/filter.h"

namespace metaprotocol {

// Under the names that Envoy's filters for HTTP use: x-ratelimit-limit, x-ratelimit-remaining and
// x-ratelimit-reset (seconds). Of several limits that tell, the last one's stand.
void TellLimit(FilterContext& context, std::string limit, uint64_t remaining,
               uint64_t reset_seconds);

}  // namespace metaprotocol
