// Decompression of what THeader's zlib transform writes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "src/codec/bytes.h"

namespace metaprotocol::thrift {

enum class Inflation : uint8_t { kDone, kBroken, kTooLarge };

// Appends to `out` what the zlib stream `bytes` (RFC 1950), which has to end where they do, stands
// for. Ends with kTooLarge before more than `most_bytes` are there; what was appended until an
// error stays. Costs what is read and written, and as much as `other_cost` bytes more; no memory
// but that of `out`.
Inflation Inflate(Bytes bytes, size_t most_bytes, std::string& out, size_t& other_cost);

}  // namespace metaprotocol::thrift
