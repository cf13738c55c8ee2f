// One shared library with a codec: loaded, its table checked.
#pragma once

#include <string>

#include "include/metaprotocol/codec.h"

namespace metaprotocol::external {

struct Library {
  // As if it were of this build: what the library does not have is null.
  metaprotocol_codec_table table{};
};

// The library at `path`, for ever; null and what is wrong if it is none. What has once been loaded
// from a path stays, whatever lies there later.
const Library* LoadLibrary(const std::string& path, std::string& error);

}  // namespace metaprotocol::external
