#include "src/limit/global_rate_limit.h"

#include <algorithm>

#include "src/limit/rate_limit_service.h"

namespace metaprotocol {
namespace {

// Metadata may be as long as a message; what is counted by is not.
constexpr size_t kMaxValue = 4096;

}  // namespace

std::string GlobalRateLimit::Question(const MatchInput& request) const {
  // A request that may meet the rule is asked about.
  if (match->Match(request).route == nullptr) return {};
  RateLimitRequestWriter writer;
  bool any = false;
  for (const Descriptor& descriptor : descriptors) {
    const auto value = descriptor.key.Find(request);
    any = any || value.has_value();
    writer.AddDescriptor(descriptor.descriptor_key, value.value_or("").substr(0, kMaxValue));
  }
  return any ? writer.Finish(domain) : std::string();
}

}  // namespace metaprotocol
