// A name for each request, which all proxies and programs on its way may write down: as
// Envoy's `x-request-id` for HTTP.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "src/codec/metadata_keys.h"
#include "src/route/match_input.h"
#include "src/telemetry/request_record.h"

namespace metaprotocol {

inline constexpr std::string_view kRequestIdKey = "x-request-id";

// Requests that come without one get one.
class RequestIds {
 public:
  RequestIds(RecordedKeys& recorded, MetadataKeys& keys)
      : slot_(keys.Want(kRequestIdKey)), place_(recorded.Want(kRequestIdKey, keys)) {}

  // Whether it has one. An empty one is none.
  bool In(const MatchInput& input) const { return !input.message.Get(slot_).value_or("").empty(); }
  // In the record.
  size_t place() const { return place_; }

 private:
  uint32_t slot_;
  size_t place_;
};

// A UUID, version 4, of any two numbers.
std::string MakeRequestId(uint64_t high, uint64_t low);

}  // namespace metaprotocol
