#include "src/telemetry/access_log.h"

namespace metaprotocol {

bool AccessLog::MayWant(const MatchInput& input) const {
  if (match == nullptr) return true;
  const RouteMatch found = match->Match(input);
  return found.undecided || found.route != nullptr;
}

}  // namespace metaprotocol
