// Times in tests: the engine counts microseconds.
#pragma once

#include <cstdint>

namespace metaprotocol {

inline constexpr uint64_t kMs = 1000;
inline constexpr uint64_t kSecond = 1000 * 1000;

}  // namespace metaprotocol
