// What THeader and TTHeader have in common behind their fixed fields.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "codecs/thrift/theader.h"
#include "src/codec/bytes.h"
#include "src/codec/mutation.h"

namespace metaprotocol::thrift {

// HeaderInfo::exception_type (thrift-rpc.md, "Response struct").
inline constexpr uint8_t kInvalidTransform = 8;
inline constexpr uint8_t kInvalidProtocol = 9;

// Keys with their values, in their order.
using InfoPairs = std::vector<std::pair<std::string_view, std::string_view>>;

// Where the header ends of a frame whose fixed fields are there.
inline size_t HeaderEnd(Bytes bytes) {
  return kHeaderFixedBytes + size_t{LoadBe16(bytes.data() + kHeaderSizeOffset)} * 4;
}

// Pads what was appended since `start` to whole 4-byte words.
inline void PadHeader(size_t start, std::string& out) {
  out.append((4 - (out.size() - start) % 4) % 4, '\0');
}

// Applies `mutation`; false if a key or value to be written has more than `most_bytes`.
bool MutatePairs(std::span<const MutationOp> mutation, size_t most_bytes, InfoPairs& pairs);

}  // namespace metaprotocol::thrift
