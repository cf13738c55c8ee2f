// One shared library with a codec: loaded, its table checked.
#pragma once

#include <string>

#include "include/metaprotocol/codec.h"

namespace metaprotocol::external {

// The table of the library at `path`, for ever; null and what is wrong if it is none. What has once
// been loaded from a path stays, whatever lies there later.
const metaprotocol_codec_table* LoadLibrary(const std::string& path, std::string& error);

}  // namespace metaprotocol::external
