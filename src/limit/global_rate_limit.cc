#include "src/limit/global_rate_limit.h"

#include <algorithm>

#include "src/limit/rate_limit_service.h"

namespace metaprotocol {
namespace {

// Metadata may be as long as a message; what is counted by is not.
constexpr size_t kMaxValue = 4096;

}  // namespace

std::string GlobalRateLimit::Question(const MatchInput& request) const {
  if (match->Match(request) == nullptr) return {};
  RateLimitRequestWriter writer;
  for (const Descriptor& descriptor : descriptors) {
    const Metadata& source =
        descriptor.key.starts_with(kConnectionKeyPrefix) ? request.connection : request.message;
    const auto value = source.Find(descriptor.key);
    if (value) writer.AddEntry(descriptor.descriptor_key, value->substr(0, kMaxValue));
  }
  return writer.empty() ? std::string() : writer.Finish(domain);
}

}  // namespace metaprotocol
