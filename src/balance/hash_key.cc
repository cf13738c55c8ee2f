// xxHash64, written from the algorithm's public description (xxHash project, doc/xxhash_spec.md
// 0.2.0, "XXH64 algorithm description"). Hosts and keys must hash as in Envoy, so that a client
// that moves from Envoy's ring hash or Maglev to ours keeps its hosts.
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "src/balance/balancer.h"

namespace metaprotocol {
namespace {

constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87;
constexpr uint64_t kPrime2 = 0xC2B2AE3D27D4EB4F;
constexpr uint64_t kPrime3 = 0x165667B19E3779F9;
constexpr uint64_t kPrime4 = 0x85EBCA77C2B2AE63;
constexpr uint64_t kPrime5 = 0x27D4EB2F165667C5;

// Input words are little-endian on every machine (compilers turn this loop into one load).
template <size_t kSize>
uint64_t LoadLe(const char* p) {
  uint64_t v = 0;
  for (size_t i = 0; i < kSize; ++i) v |= uint64_t{static_cast<unsigned char>(p[i])} << (8 * i);
  return v;
}

uint64_t Round(uint64_t accumulator, uint64_t lane) {
  return std::rotl(accumulator + lane * kPrime2, 31) * kPrime1;
}

uint64_t Merge(uint64_t hash, uint64_t accumulator) {
  return (hash ^ Round(0, accumulator)) * kPrime1 + kPrime4;
}

}  // namespace

uint64_t HashKey(std::string_view key, uint64_t seed) {
  uint64_t hash;
  const char* p = key.data();
  size_t left = key.size();
  if (left < 32) {
    hash = seed + kPrime5;
  } else {
    uint64_t a = seed + kPrime1 + kPrime2;
    uint64_t b = seed + kPrime2;
    uint64_t c = seed;
    uint64_t d = seed - kPrime1;
    for (; left >= 32; p += 32, left -= 32) {
      a = Round(a, LoadLe<8>(p));
      b = Round(b, LoadLe<8>(p + 8));
      c = Round(c, LoadLe<8>(p + 16));
      d = Round(d, LoadLe<8>(p + 24));
    }
    hash = std::rotl(a, 1) + std::rotl(b, 7) + std::rotl(c, 12) + std::rotl(d, 18);
    for (const uint64_t accumulator : {a, b, c, d}) hash = Merge(hash, accumulator);
  }
  hash += key.size();

  for (; left >= 8; p += 8, left -= 8) {
    hash = std::rotl(hash ^ Round(0, LoadLe<8>(p)), 27) * kPrime1 + kPrime4;
  }
  if (left >= 4) {
    hash = std::rotl(hash ^ LoadLe<4>(p) * kPrime1, 23) * kPrime2 + kPrime3;
    p += 4;
    left -= 4;
  }
  for (; left > 0; ++p, --left) hash = std::rotl(hash ^ LoadLe<1>(p) * kPrime5, 11) * kPrime1;

  hash = (hash ^ hash >> 33) * kPrime2;
  hash = (hash ^ hash >> 29) * kPrime3;
  return hash ^ hash >> 32;
}

}  // namespace metaprotocol
