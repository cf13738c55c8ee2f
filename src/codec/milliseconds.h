// Times as protocols write them into texts.
#pragma once

#include <cstdint>
#include <limits>
#include <string_view>

namespace metaprotocol {

// Microseconds from milliseconds in decimal; 0, no time at all, for what is no number of 32 bits.
inline uint64_t UsFromMilliseconds(std::string_view text) {
  uint64_t milliseconds = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return 0;
    milliseconds = milliseconds * 10 + static_cast<uint64_t>(c - '0');
    if (milliseconds > std::numeric_limits<uint32_t>::max()) return 0;
  }
  return milliseconds * 1000;
}

}  // namespace metaprotocol
