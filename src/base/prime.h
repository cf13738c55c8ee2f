// Prime numbers, which the sizes of Maglev tables are.
#pragma once

#include <cstdint>

namespace metaprotocol {

// By trial division: for numbers that configurations give.
inline bool IsPrime(uint32_t number) {
  if (number < 2) return false;
  for (uint32_t divisor = 2; divisor <= number / divisor; ++divisor) {
    if (number % divisor == 0) return false;
  }
  return true;
}

}  // namespace metaprotocol
