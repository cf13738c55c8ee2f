// Variable-length integers of 7 bits to the byte, the lowest first (LEB128): protobuf, compact
// Thrift and Avro write them.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>

namespace metaprotocol {

inline constexpr size_t kMaxVarintBytes = 10;

// Writes `v` into `p`, which has room for kMaxVarintBytes (5, if it fits 32 bits); returns how many
// were used.
inline size_t StoreVarint(char* p, uint64_t v) {
  size_t n = 0;
  for (; v >= 0x80; v >>= 7) p[n++] = static_cast<char>(v | 0x80);
  p[n++] = static_cast<char>(v);
  return n;
}

// How many StoreVarint uses.
inline size_t VarintBytes(uint64_t v) {
  return (static_cast<size_t>(std::bit_width(v | 1)) + 6) / 7;
}

inline void AppendVarint(uint64_t v, std::string& out) {
  char buffer[kMaxVarintBytes];
  out.append(buffer, StoreVarint(buffer, v));
}

}  // namespace metaprotocol
