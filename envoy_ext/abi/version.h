// Versions: this module's own, and that of the ABI it is loaded under.
#pragma once

#include "envoy_ext/abi/abi.h"

namespace metaprotocol::envoy {

// The project's, see CMakeLists.txt.
inline constexpr char kModuleVersion[] = "0.1.0";

// What Envoy wants to hear: it warns of a module that names another ABI than its own, though it
// loads it. Envoy 1.40 has v0.2.0, and with it this callback.
inline const char* AbiVersion() { return abi::LogAt != nullptr ? "v0.2.0" : "v0.1.0"; }

}  // namespace metaprotocol::envoy
