// Messages that are so large that they pass through as they arrive.
#pragma once

#include <string>

#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {

inline SimConfig Streaming(SimConfig config = {}) {
  config.limits.stream_message_bytes = 1024;
  return config;
}
inline std::string Body(size_t bytes) { return std::string(bytes, 'x'); }

}  // namespace metaprotocol::test
