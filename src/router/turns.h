// Weighted routes go on with their turns when a configuration takes another's place.
#pragma once

#include "src/router/protocol_state.h"

namespace metaprotocol {

// A route of the same name in a table of the same name, with the same clusters and weights, goes on
// where it has stopped. A cluster with a small weight would never have its turn if each change of
// any route began anew.
void ContinueTurns(const SnapshotUse& before, SnapshotUse& now);

}  // namespace metaprotocol
