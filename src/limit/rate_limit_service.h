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

// Writes a RateLimitRequest with one descriptor and one hit.
class RateLimitRequestWriter {
 public:
  // RateLimitDescriptor.entries
  void AddEntry(std::string_view key, std::string_view value);
  bool empty() const { return descriptor_.empty(); }
  std::string Finish(std::string_view domain) const;

 private:
  std::string descriptor_;
};

enum class RateLimitVerdict : uint8_t {
  kOk,
  kOverLimit,
  kNone,  // no verdict, or no RateLimitResponse
};

// RateLimitResponse.overall_code.
RateLimitVerdict ReadRateLimitResponse(Bytes message);

}  // namespace metaprotocol
