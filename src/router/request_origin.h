// Who sends requests, as far as that matters for where they go: one client connection.
#pragma once

#include "src/route/match_input.h"
#include "src/router/protocol_state.h"
#include "src/upstream/lease.h"

namespace metaprotocol {

struct RequestOrigin {
  const ProtocolState& protocol;
  LeaseOwner& leases;         // its own, under UpstreamMode::kPerSession...
  LeaseOwner& mirror_leases;  // ...and for copies of its requests
  const ConnectionMetadata& connection;
};

}  // namespace metaprotocol
