// Times as protocols write them into texts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>

namespace metaprotocol {

// Microseconds from milliseconds in decimal; 0, no time at all, for what is no number of 32 bits.
inline uint64_t UsFromMilliseconds(std::string_view text) {
  constexpr size_t kMostDigits = 19;  // of any number that 64 bits can hold
  while (text.size() > kMostDigits && text.front() == '0') text.remove_prefix(1);
  if (text.size() > kMostDigits) return 0;
  uint64_t milliseconds = 0;
  for (const char c : text) {
    const auto digit = static_cast<uint8_t>(c - '0');
    if (digit > 9) return 0;
    milliseconds = milliseconds * 10 + digit;
  }
  return milliseconds <= std::numeric_limits<uint32_t>::max() ? milliseconds * 1000 : 0;
}

}  // namespace metaprotocol
