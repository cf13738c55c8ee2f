// A hash of short texts for tables in memory: a few instructions for each 16 bytes, inline.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace metaprotocol {

// After wyhash (Wang Yi, public domain): two words at a time are multiplied and the product folded.
// Differs between machines of different byte order, and is no defence against texts that were made
// to collide: for tables that only trusted input adds to.
inline uint64_t TextHash(std::string_view text, uint64_t seed) {
  constexpr uint64_t kOdd1 = 0xa0761d6478bd642fu;
  constexpr uint64_t kOdd2 = 0xe7037ed1a0b428dbu;
  const auto fold = [](uint64_t a, uint64_t b) {
    const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  };
  const auto load8 = [](const char* p) {
    uint64_t word;
    std::memcpy(&word, p, sizeof word);
    return word;
  };
  const auto load4 = [](const char* p) {
    uint32_t word;
    std::memcpy(&word, p, sizeof word);
    return uint64_t{word};
  };

  const char* p = text.data();
  size_t left = text.size();
  uint64_t hash = seed ^ kOdd1;
  for (; left > 16; left -= 16, p += 16) hash = fold(load8(p) ^ kOdd2, load8(p + 8) ^ hash);
  // What is left, in two words that overlap where it is not a full one.
  uint64_t first = 0;
  uint64_t second = 0;
  if (left >= 8) {
    first = load8(p);
    second = load8(p + left - 8);
  } else if (left >= 4) {
    first = load4(p);
    second = load4(p + left - 4);
  } else if (left != 0) {
    const auto at = [p](size_t i) { return uint64_t{static_cast<unsigned char>(p[i])}; };
    first = at(0) << 16 | at(left / 2) << 8 | at(left - 1);
  }
  return fold(kOdd2 ^ text.size(), fold(first ^ kOdd2, second ^ hash));
}

// The same in a few instructions for texts of any length, since only how long they are and how they
// end counts: names that differ nearly always differ in that. Whoever fills a table with it has to
// see that not too many are alike.
inline uint64_t TextEndHash(std::string_view text, uint64_t seed) {
  constexpr uint64_t kOdd = 0xa0761d6478bd642fu;
  uint64_t end = 0;
  if (text.size() >= sizeof end) {
    std::memcpy(&end, text.data() + text.size() - sizeof end, sizeof end);
  } else {
    for (const char c : text) end = end << 8 | static_cast<unsigned char>(c);
  }
  const unsigned __int128 product =
      static_cast<unsigned __int128>(end ^ seed) * (kOdd ^ text.size());
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

}  // namespace metaprotocol
