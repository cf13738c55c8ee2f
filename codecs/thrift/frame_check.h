// Whether the struct of a framed message ends where its frame ends. Servers go on reading where the
// struct ended, so what stands behind it in the same frame is a message that nobody has routed.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

#include "codecs/thrift/struct_skipper.h"
#include "src/codec/bytes.h"

namespace metaprotocol::thrift {

// Checks a frame that is there as a whole: `frame`, with its message's struct beginning at
// `body_offset`. Returns what is wrong, "" if nothing is.
std::string_view CheckWholeFrame(Protocol protocol, size_t body_offset, Bytes frame);

// The same for a frame whose bytes come in pieces, none of which is kept. A part is refused before
// any byte behind the struct's end has been passed on.
class FrameCheck {
 public:
  // Begins with the first `begun.size()` bytes of a frame of `frame_bytes`. "" or what is wrong.
  std::string_view Start(Protocol protocol, size_t body_offset, Bytes begun, size_t frame_bytes);

  // More of it. "" or what is wrong.
  std::string_view Continue(Bytes part);

 private:
  // The longest token (StructSkipper reads one at a time): a varint of 64 bits.
  static constexpr size_t kMaxToken = 10;

  std::string_view Run(Bytes bytes);

  StructSkipper skipper_;
  size_t left_ = 0;  // bytes of the frame that have not come yet
  // The beginning of a token whose end has not come yet.
  char token_[2 * kMaxToken];
  size_t token_bytes_ = 0;
};

}  // namespace metaprotocol::thrift
