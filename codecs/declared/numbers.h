// Numbers as declared protocols write them: of 1 to 8 bytes in either order, or in decimal digits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "src/codec/bytes.h"

namespace metaprotocol::declared {

// `p` points at `width` bytes; 1 to 8.
inline uint64_t LoadNumber(const char* p, size_t width, bool little_endian) {
  if (width == 4 && !little_endian) return LoadBe32(p);  // nearly always
  if (width == 1) return static_cast<unsigned char>(*p);
  uint64_t value = 0;
  for (size_t i = 0; i < width; ++i) {
    const size_t at = little_endian ? width - 1 - i : i;
    value = value << 8 | static_cast<unsigned char>(p[at]);
  }
  return value;
}

inline void StoreNumber(char* p, size_t width, bool little_endian, uint64_t value) {
  if (width == 4 && !little_endian) return StoreBe32(p, static_cast<uint32_t>(value));
  for (size_t i = 0; i < width; ++i) {
    p[little_endian ? i : width - 1 - i] = static_cast<char>(value & 0xff);
    value >>= 8;
  }
}

inline void AppendNumber(std::string& out, size_t width, bool little_endian, uint64_t value) {
  char bytes[8];
  StoreNumber(bytes, width, little_endian, value);
  out.append(bytes, width);
}

// The largest number of so many bytes.
inline uint64_t LargestNumber(size_t width) {
  return width >= 8 ? UINT64_MAX : (uint64_t{1} << (8 * width)) - 1;
}

// Digits and nothing else, without overflow.
inline bool ParseDecimal(std::string_view digits, uint64_t& value) {
  if (digits.empty() || digits.size() > 20) return false;
  value = 0;
  for (const char c : digits) {
    if (c < '0' || c > '9') return false;
    if (__builtin_mul_overflow(value, uint64_t{10}, &value) ||
        __builtin_add_overflow(value, static_cast<uint64_t>(c - '0'), &value)) {
      return false;
    }
  }
  return true;
}

}  // namespace metaprotocol::declared
