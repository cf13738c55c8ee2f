// What the C++ wrappers of codecs and filters share: text over the C ABI.
#pragma once

#include <exception>
#include <string_view>

#include "metaprotocol/codec.h"

namespace metaprotocol::external {

inline std::string_view Text(metaprotocol_bytes bytes) {
  return bytes.data == nullptr ? std::string_view() : std::string_view(bytes.data, bytes.size);
}
inline metaprotocol_bytes View(std::string_view text) { return {text.data(), text.size()}; }
inline void Put(const metaprotocol_sink* sink, std::string_view text) {
  sink->append(sink->context, text.data(), text.size());
}

// What `make` makes; null, and why, if it throws.
template <class Make>
auto Made(const metaprotocol_sink* error, Make make) noexcept -> decltype(make()) {
  try {
    return make();
  } catch (const std::exception& wrong) {
    Put(error, wrong.what());
  } catch (...) {
    Put(error, "it has thrown an exception");
  }
  return nullptr;
}

}  // namespace metaprotocol::external
