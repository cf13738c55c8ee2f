// TTHeader, the transport of Kitex and what speaks with it: laid out like THeader, but for integers
// of fixed size and blocks of its own.
//
// Source: cloudwego/kitex, pkg/remote/codec/header_codec.go (layout) and
// pkg/remote/transmeta/metakey.go (what the numbered keys mean).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "codecs/thrift/theader.h"
#include "src/codec/bytes.h"
#include "src/codec/codec.h"
#include "src/codec/metadata.h"
#include "src/codec/mutation.h"

namespace metaprotocol::thrift {

// Longest variable header: Kitex counts its bytes in 16 bits, and would see a longer one end
// somewhere else.
inline constexpr size_t kMaxTTHeaderBytes = 0xFFFF / 4 * 4;

// As ReadHeader (theader.h). `info.framed` tells whether the message has its length before it, as
// with Kitex's TTHeaderFramed; `info.body_offset` is behind that.
DecodeResult ReadTTHeader(Bytes bytes, size_t frame_end, HeaderInfo& info);

// What is said in a header that is not for routes alone.
struct TTHeaderInfos {
  uint64_t timeout_us = 0;        // what the client waits for its reply; 0: it does not say
  std::string_view service = {};  // of the IDL, by which a server with several chooses
};

// As ReadInfoHeaders (theader.h).
DecodeResult ReadTTHeaderInfos(Bytes bytes, const HeaderInfo& info, Metadata& metadata,
                               TTHeaderInfos& infos);

// As AppendMutatedHeader (theader.h). `timeout_ms` stands in place of the client's own, if it has
// one; 0: no change.
bool AppendMutatedTTHeader(Bytes bytes, std::span<const MutationOp> mutation, uint64_t timeout_ms,
                           std::string& out);

// Appends a whole header without keys, but not the frame length before it.
void AppendPlainTTHeader(uint32_t id, std::string& out);

}  // namespace metaprotocol::thrift
