// A hash whose results nobody can foresee: for tables that strangers add to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <string_view>

namespace metaprotocol {

// SipHash-2-4 (Aumasson, Bernstein: "SipHash: a fast short-input PRF", 2012). Without the key,
// texts of one hash are found by trying about 2^32 of them, and only if somebody tells that they
// are alike.
class SecretHash {
 public:
  // With a key that nobody knows.
  SecretHash() : SecretHash(Random(), Random()) {}
  SecretHash(uint64_t key0, uint64_t key1) : key0_(key0), key1_(key1) {}

  uint64_t operator()(std::string_view text) const {
    uint64_t v0 = key0_ ^ 0x736f6d6570736575u;
    uint64_t v1 = key1_ ^ 0x646f72616e646f6du;
    uint64_t v2 = key0_ ^ 0x6c7967656e657261u;
    uint64_t v3 = key1_ ^ 0x7465646279746573u;
    const auto rounds = [&](int count) {
      for (int i = 0; i < count; ++i) {
        v0 += v1;
        v2 += v3;
        v1 = Rotated(v1, 13) ^ v0;
        v3 = Rotated(v3, 16) ^ v2;
        v0 = Rotated(v0, 32);
        v2 += v1;
        v0 += v3;
        v1 = Rotated(v1, 17) ^ v2;
        v3 = Rotated(v3, 21) ^ v0;
        v2 = Rotated(v2, 32);
      }
    };
    const auto add = [&](uint64_t word) {
      v3 ^= word;
      rounds(2);
      v0 ^= word;
    };
    const char* p = text.data();
    size_t left = text.size();
    for (; left >= 8; left -= 8, p += 8) add(Word(p, 8));
    add(Word(p, left) | static_cast<uint64_t>(text.size()) << 56);
    v2 ^= 0xff;
    rounds(4);
    return v0 ^ v1 ^ v2 ^ v3;
  }

  // Of several texts.
  uint64_t OfAll(std::span<const std::string_view> texts) const {
    if (texts.size() == 1) return (*this)(texts.front());
    // With their lengths, so that "a", "bc" is not "ab", "c".
    std::string all;
    for (const std::string_view text : texts) {
      const uint64_t size = text.size();
      all.append(reinterpret_cast<const char*>(&size), sizeof size).append(text);
    }
    return (*this)(all);
  }

 private:
  static uint64_t Rotated(uint64_t word, int bits) { return word << bits | word >> (64 - bits); }
  static uint64_t Word(const char* p, size_t size) {
    uint64_t word = 0;
    for (size_t i = 0; i < size; ++i) {
      word |= static_cast<uint64_t>(static_cast<unsigned char>(p[i])) << (8 * i);
    }
    return word;
  }
  static uint64_t Random() {
    std::random_device device;
    return static_cast<uint64_t>(device()) << 32 | device();
  }

  uint64_t key0_;
  uint64_t key1_;
};

}  // namespace metaprotocol
