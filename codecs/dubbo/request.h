// What a request says: the strings in front, the method that a generic call means, attachments.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "codecs/dubbo/frame.h"
#include "src/codec/codec.h"

namespace metaprotocol::dubbo {

// Set in a request's Message::tag: its client understands responses with attachments (protocol
// 2.0.2 or later). CarryOver puts it into the tag of the response message, where it allows Encode
// to add attachments to a response that has none; without it only those that have some are
// rewritten.
inline constexpr uint64_t kTagReadsResponseAttachments = uint64_t{1} << 8;
// Its fastjson values have lengths in front (JsonValues), and so have those of a reply to it.
inline constexpr uint64_t kTagLengthPrefixed = uint64_t{1} << 9;

// CodecTraits::metadata_keys.
std::span<const std::string_view> RequestKeys();

// What Interest::mask says of the keys that are wanted.
uint64_t RequestMask(const MetadataKeys& keys);
// Whether it takes more than the strings in front of the arguments, and the first of these.
bool NeedsWholeRequest(uint64_t mask);

// Reads the body of the request that begins at bytes[0], of which the header is there and
// message.length set, into message.metadata, `timeout_us` and the flags above.
DecodeResult DecodeRequest(Bytes bytes, const Header& header, const DecodeOptions& options,
                           Message& message);

}  // namespace metaprotocol::dubbo
