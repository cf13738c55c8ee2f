// This module's own version; the project's, see CMakeLists.txt.
#pragma once

namespace metaprotocol::envoy {

inline constexpr char kModuleVersion[] = "0.1.0";

}  // namespace metaprotocol::envoy
