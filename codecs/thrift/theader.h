// The THeader transport's own header (HeaderFormat.md): info headers read, rewritten and formed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "codecs/thrift/dialect.h"
#include "src/codec/bytes.h"
#include "src/codec/codec.h"
#include "src/codec/metadata.h"
#include "src/codec/mutation.h"

namespace metaprotocol::thrift {

// Frame length, magic, flags, sequence number, header size: what precedes the variable header.
inline constexpr size_t kHeaderFixedBytes = 14;
inline constexpr size_t kHeaderIdOffset = 8;
inline constexpr size_t kHeaderSizeOffset = 12;
// Longest variable header: its size is a 16-bit number of 4-byte words.
inline constexpr size_t kMaxHeaderBytes = size_t{0xFFFF} * 4;

// More info headers than this in one message are an error, and so none is ever lost silently.
inline constexpr size_t kMaxInfoHeaders = 256;

// Longest key or value that is written: its length is a varint16 and readers take it as signed.
inline constexpr size_t kMaxInfoStringBytes = 32767;

struct HeaderInfo {
  Protocol protocol = Protocol::kUnknown;
  uint32_t id = 0;             // sequence number of the header; the message behind it has its own
  size_t infos_offset = 0;     // where the info headers begin
  size_t header_end = 0;       // where they end
  size_t body_offset = 0;      // where the message begins
  bool framed = false;         // TTHeader: with its length before it
  bool zlib = false;           // THeader: what is behind the header is compressed
  uint8_t exception_type = 0;  // on error: the TApplicationException type that says it best, or 0
};

// Reads the header, but for its info headers, of the frame that begins at bytes[0] and ends at
// `frame_end`; after kMessage the whole header is in `bytes`. `info.id` is set as soon as it is
// there, whatever the result.
DecodeResult ReadHeader(Bytes bytes, size_t frame_end, HeaderInfo& info);

// Checks the key/value info headers of a header that ReadHeader accepted, and puts into `metadata`
// what it wants of them. Of several with one key the last stays, as in the readers of all peers.
DecodeResult ReadInfoHeaders(Bytes bytes, const HeaderInfo& info, Metadata& metadata);

// Appends to `out` the variable part of the header of `bytes` (which ReadInfoHeaders accepted) with
// `mutation` applied to its key/value info headers and without transforms, padded. False, with
// `out` unchanged: the result would not fit a THeader.
bool AppendMutatedHeader(Bytes bytes, std::span<const MutationOp> mutation, std::string& out);

// Appends a whole header without transforms, info headers and the frame length before it.
void AppendPlainHeader(Protocol protocol, uint32_t id, std::string& out);

}  // namespace metaprotocol::thrift
