#include "src/telemetry/access_log.h"

#include <algorithm>
#include <charconv>
#include <string_view>

namespace metaprotocol {

bool AccessLog::MayWant(const MatchInput& input) const {
  if (match == nullptr) return true;
  const RouteMatch found = match->Match(input);
  return found.undecided || found.route != nullptr;
}

bool AccessLog::WantsCode(const EndedRequest& request) const {
  int64_t code = 0;
  const std::string_view text = request.http_code();
  std::from_chars(text.data(), text.data() + text.size(), code);
  return std::any_of(response_codes.begin(), response_codes.end(),
                     [&](const auto& range) { return range.first <= code && code < range.second; });
}

}  // namespace metaprotocol
