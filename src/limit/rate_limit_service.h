// The messages of Envoy's rate limit service (envoy.service.ratelimit.v3), as far as they are
// needed to ask one question: a few bytes of protobuf, written and read by hand.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "src/codec/bytes.h"
#include "src/codec/mutation.h"

namespace metaprotocol {

inline constexpr std::string_view kShouldRateLimit =
    "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

// Writes a RateLimitRequest with one hit.
class RateLimitRequestWriter {
 public:
  // A descriptor, to which the entries that follow belong: the service has a counter for each
  // combination of their values.
  void BeginDescriptor();
  void AddEntry(std::string_view key, std::string_view value);
  std::string Finish(std::string_view domain);

 private:
  std::string descriptors_;
  std::string entries_;  // of the last descriptor
};

enum class RateLimitVerdict : uint8_t {
  kOk,
  kOverLimit,
  kNone,  // no verdict, or no RateLimitResponse
};

// RateLimitResponse.overall_code.
RateLimitVerdict ReadRateLimitResponse(Bytes message);

// What a RateLimitResponse says of the limits that the request was counted under, for its client.
struct RateLimitState {
  // x-ratelimit-limit, as Envoy's filter for HTTP makes it of the same message: the requests of the
  // limit that has fewest left, and then each limit with its window and name (the third draft of
  // the IETF's RateLimit headers). Empty: there is no limit that could be told of.
  std::string limit;
  uint64_t remaining = 0;
  uint64_t reset_seconds = 0;
  Mutation entries;  // response_headers_to_add: what the service itself wants clients to be told
};

// Most limits, and entries, that are read of one message; what is beyond is left out.
inline constexpr size_t kMostLimitsTold = 32;
inline constexpr size_t kMostLimitEntries = 16;
// Longest name of a limit, and longest key or value of an entry.
inline constexpr size_t kMostLimitText = 256;

RateLimitState ReadRateLimitState(Bytes message);

}  // namespace metaprotocol
