// CRC-32 as in zlib and Ethernet (polynomial 0xedb88320, reflected), which some protocols end their
// messages with.
#pragma once

#include <cstddef>
#include <cstdint>

#include "src/codec/bytes.h"

namespace metaprotocol::declared {

inline constexpr size_t kCrc32Bytes = 4;

// That of `bytes`, behind others whose checksum is `before`.
uint32_t Crc32(Bytes bytes, uint32_t before = 0);

}  // namespace metaprotocol::declared
