// Codecs in shared libraries, behind the C ABI of include/metaprotocol/codec.h.
#pragma once

#include <string>
#include <string_view>

#include "src/codec/registry.h"

namespace metaprotocol::external {

// The library at the absolute path `path` is loaded by the first configuration that names it, and
// never unloaded.
LibraryCodecOrError CreateLibraryCodec(const std::string& name, const std::string& path,
                                       std::string_view options);

}  // namespace metaprotocol::external
