// xxHash64 against the vectors its project publishes (Cyan4973/xxHash 0.8.2,
// tests/sanity_test_vectors.h), over the buffer those vectors are made from.
#include <gtest/gtest.h>

#include <string>

#include "src/balance/balancer.h"

namespace metaprotocol {
namespace {

constexpr uint64_t kPrime32 = 2654435761;

std::string SanityBuffer(size_t length) {
  std::string buffer;
  uint64_t generator = kPrime32;
  for (size_t i = 0; i < length; ++i) {
    buffer += static_cast<char>(generator >> 56);
    generator *= 11400714785074694797U;
  }
  return buffer;
}

TEST(HashKey, GivesThePublishedValuesForEveryShapeOfInput) {
  struct Vector {
    size_t length;
    uint64_t seed;
    uint64_t hash;
  };
  // Lengths that reach every path: nothing, single bytes, a 4-byte word, 8-byte words, one 32-byte
  // stripe, stripes with every kind of rest.
  const Vector vectors[] = {
      {0, 0, 0xEF46DB3751D8E999},         {0, kPrime32, 0xAC75FDA2929B17EF},
      {1, 0, 0xE934A84ADB052768},         {1, kPrime32, 0x5014607643A9B4C3},
      {2, 0, 0x5D48CD60A77E23FF},         {3, 0, 0xFF7E1959CB50794A},
      {4, 0, 0x9136A0DCA57457EE},         {4, kPrime32, 0xCAAB286BD8E9FDB5},
      {8, 0, 0xCDBCF538E71D1348},         {8, kPrime32, 0xFE0C047A5353CDAC},
      {14, 0, 0x8282DCC4994E35C8},        {14, kPrime32, 0xC3BD6BF63DEB6DF0},
      {31, 0, 0x299B39A290E6D783},        {32, 0, 0x18B216492BB44B70},
      {32, kPrime32, 0xB3F33BDF93ADE409}, {33, 0, 0x55C8DC3E578F5B59},
      {33, kPrime32, 0xE92C292F64BC3071}, {64, 0, 0xEF558F8ACAC2B5CD},
      {100, 0, 0x4BFE019CD91D9EA4},       {100, kPrime32, 0x4853706DC9625CAE},
      {222, 0, 0xB641AE8CB691C174},       {222, kPrime32, 0x20CB8AB7AE10C14A},
      {4160, 0, 0xEEE6A4E2AC952A5E},      {4160, kPrime32, 0xA4CB59E19D6A35F9},
  };
  for (const Vector& v : vectors) {
    EXPECT_EQ(HashKey(SanityBuffer(v.length), v.seed), v.hash) << v.length << " bytes";
  }
}

}  // namespace
}  // namespace metaprotocol
