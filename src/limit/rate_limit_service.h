// The messages of Envoy's rate limit service (envoy.service.ratelimit.v3), as far as they are
// needed to ask one question: a few bytes of protobuf, written and read by hand.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "src/codec/bytes.h"

namespace metaprotocol {

inline constexpr std::string_view kShouldRateLimit =
    "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

// Writes a RateLimitRequest with one hit.
class RateLimitRequestWriter {
 public:
  // A descriptor with this one entry: the service has a counter for each.
  void AddDescriptor(std::string_view key, std::string_view value);
  std::string Finish(std::string_view domain) const;

 private:
  std::string descriptors_;
};

enum class RateLimitVerdict : uint8_t {
  kOk,
  kOverLimit,
  kNone,  // no verdict, or no RateLimitResponse
};

// RateLimitResponse.overall_code.
RateLimitVerdict ReadRateLimitResponse(Bytes message);

}  // namespace metaprotocol
