// Which requests have bounds of their own.
#pragma once

#include <cstddef>
#include <cstdint>

namespace metaprotocol {

enum class Priority : uint8_t { kDefault, kHigh };
inline constexpr size_t kPriorities = 2;

}  // namespace metaprotocol
