// Random numbers that are good enough to spread load.
#pragma once

#include <cstdint>

namespace metaprotocol {

// A splitmix64 stream (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
// As good as its seed, and two multiplications a number.
class RandomStream {
 public:
  explicit RandomStream(uint64_t seed) : state_(seed) {}

  uint64_t Next() {
    uint64_t z = state_ += 0x9E3779B97F4A7C15;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return z ^ z >> 31;
  }

  // Below `n`; the bias is under n / 2^64.
  uint64_t Below(uint64_t n) {
    return static_cast<uint64_t>(static_cast<unsigned __int128>(Next()) * n >> 64);
  }

  // In [0, 1).
  double Unit() { return static_cast<double>(Next() >> 11) * 0x1p-53; }

 private:
  uint64_t state_;
};

}  // namespace metaprotocol
