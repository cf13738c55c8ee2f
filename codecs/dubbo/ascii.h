// Whether bytes are ASCII, many at a time: Hessian counts a string's characters, so where one ends
// is only known without looking at each of them if there are no others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "src/codec/bytes.h"

namespace metaprotocol::dubbo {
namespace ascii {

inline constexpr uint64_t kTopBits = 0x8080808080808080u;

inline uint64_t Load8(const char* p) {
  uint64_t word;
  std::memcpy(&word, p, sizeof word);
  return word;
}
inline uint64_t Load4(const char* p) {
  uint32_t word;
  std::memcpy(&word, p, sizeof word);
  return word;
}
inline uint64_t Load32(const char* p) {
  return Load8(p) | Load8(p + 8) | Load8(p + 16) | Load8(p + 24);
}

// Two words in one register.
using Words = uint64_t __attribute__((vector_size(16)));
inline Words Load16(const char* p) {
  Words words;
  std::memcpy(&words, p, sizeof words);
  return words;
}
inline constexpr size_t kBlock = 64;
inline Words LoadBlock(const char* p) {
  return (Load16(p) | Load16(p + 16)) | (Load16(p + 32) | Load16(p + 48));
}
inline bool AreAscii(Words words) { return ((words[0] | words[1]) & kTopBits) == 0; }

}  // namespace ascii

// Nearly always short.
inline bool IsAsciiText(Bytes raw) {
  const char* p = raw.data();
  const char* const end = p + raw.size();
  if (raw.size() < 8) {  // two words that overlap, as below
    if (raw.size() >= 4) return ((ascii::Load4(p) | ascii::Load4(end - 4)) & ascii::kTopBits) == 0;
    const auto at = [p](size_t i) { return static_cast<uint8_t>(p[i]); };
    return raw.empty() || ((at(0) | at(raw.size() / 2) | at(raw.size() - 1)) & 0x80) == 0;
  }
  uint64_t seen = ascii::Load8(end - 8);
  if (raw.size() > ascii::kBlock) {
    ascii::Words words = {};
    if (raw.size() > 2 * ascii::kBlock) {
      // Two at a time, of which the last may be looked at twice.
      const char* const last = end - 2 * ascii::kBlock;
      for (; p < last; p += 2 * ascii::kBlock) {
        words |= ascii::LoadBlock(p) | ascii::LoadBlock(p + ascii::kBlock);
      }
      words |= ascii::LoadBlock(last) | ascii::LoadBlock(last + ascii::kBlock);
      return ascii::AreAscii(words);
    }
    for (; end - p > 64; p += ascii::kBlock) words |= ascii::LoadBlock(p);
    seen |= words[0] | words[1];
  }
  for (; end - p > 32; p += 32) seen |= ascii::Load32(p);
  for (; end - p > 8; p += 8) seen |= ascii::Load8(p);
  return (seen & ascii::kTopBits) == 0;
}

// How many of the first bytes are certain to be ASCII: all, or the blocks before the first one that
// has others. Each byte is looked at twice at most.
inline size_t AsciiPrefix(Bytes bytes) {
  if (bytes.size() < ascii::kBlock) return IsAsciiText(bytes) ? bytes.size() : 0;
  const char* p = bytes.data();
  const char* const end = p + bytes.size();
  const char* const last = end - ascii::kBlock;
  ascii::Words seen = ascii::LoadBlock(last);
  for (; p < last; p += ascii::kBlock) seen |= ascii::LoadBlock(p);
  if (ascii::AreAscii(seen)) return bytes.size();
  p = bytes.data();
  while (end - p >= 64 && ascii::AreAscii(ascii::LoadBlock(p))) p += ascii::kBlock;
  return static_cast<size_t>(p - bytes.data());
}

}  // namespace metaprotocol::dubbo
