// What must hold of every codec, whatever its bytes: one set of checks for unit tests, fuzzers and
// people who write codecs elsewhere.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "src/codec/codec.h"

namespace metaprotocol {

struct ConformanceOptions {
  uint64_t seed = 1;  // where the bytes are cut
  size_t max_message_bytes = size_t{1} << 20;
};

struct ConformanceResult {
  // Why the codec breaks a rule that the engine relies on; nothing if it does not.
  std::optional<std::string> violation;
  size_t messages = 0;  // that were found in the bytes
  // What kinds of things were seen, as bits: inputs that bring new ones are worth keeping.
  uint64_t features = 0;
};

// Takes `bytes` for what one side of a connection sends, and checks that
//  * however they are cut, the same messages are found, and none is longer than what is there;
//  * what is asked for is more than what was given, so that decoding never stands still;
//  * encoding without changes is the identity, and with another id nothing else changes;
//  * a mutation changes no metadata but what it names;
//  * replies, heartbeats' answers and pings are messages of the protocol, with the right id.
ConformanceResult CheckConformance(const Codec& codec, Direction direction, Bytes bytes,
                                   const ConformanceOptions& options = {});

}  // namespace metaprotocol
