// The wall between this module and Envoy: no C++ exception may cross the C boundary, where it would
// end the whole Envoy. Nothing here throws by itself; what is left is std::bad_alloc and friends.
#pragma once

#include <exception>
#include <string>
#include <utility>

#include "envoy_ext/abi/log.h"

namespace metaprotocol::envoy {

inline void LogEscapedException(const char* hook, const char* what) noexcept {
  try {
    EnvoyLog(abi::kLogError, std::string("metaprotocol: exception in ") + hook + ": " + what);
  } catch (...) {
    // Not even enough memory for the line.
  }
}

// Runs `body`, the inside of the hook of that name; returns `fallback` if it throws.
template <typename Result, typename Body>
Result Guarded(const char* hook, Result fallback, Body&& body) noexcept {
  try {
    return std::forward<Body>(body)();
  } catch (const std::exception& e) {
    LogEscapedException(hook, e.what());
  } catch (...) {
    LogEscapedException(hook, "unknown");
  }
  return fallback;
}

template <typename Body>
void Guarded(const char* hook, Body&& body) noexcept {
  Guarded(hook, 0, [&] {
    std::forward<Body>(body)();
    return 0;
  });
}

}  // namespace metaprotocol::envoy
