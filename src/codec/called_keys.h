// Under which keys codecs tell what is called; of several the first that has a value.
#pragma once

#include <array>
#include <string_view>

namespace metaprotocol {

inline constexpr std::array<std::string_view, 3> kServiceKeys = {"interface", "service", "callee"};
inline constexpr std::array<std::string_view, 2> kMethodKeys = {"method", "func"};

}  // namespace metaprotocol
