// Log lines into Envoy's own log, under its logger "dynamic_modules".
#pragma once

#include <cstdint>
#include <string_view>

#include "envoy_ext/abi/abi.h"

namespace metaprotocol::envoy {

inline bool EnvoyLogEnabled(abi::LogLevel level) {
  return abi::LogEnabled != nullptr && abi::LogEnabled(level);
}

// `file` as seen from the repository, for a reader of the log.
inline void EnvoyLog(abi::LogLevel level, std::string_view text,
                     std::string_view file = __builtin_FILE(), uint32_t line = __builtin_LINE()) {
  if (abi::LogAt != nullptr) {
    const size_t root = file.rfind("envoy_ext/");
    if (root != std::string_view::npos) file.remove_prefix(root);
    abi::LogAt(level, abi::ToBuffer(text), abi::ToBuffer(file), line);
  } else if (abi::Log != nullptr) {
    abi::Log(level, abi::ToBuffer(text));
  }
}

}  // namespace metaprotocol::envoy
