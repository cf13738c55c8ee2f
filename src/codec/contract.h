// What every codec owes its caller, asserted where the engine relies on it. In builds without
// assertions none of this is there.
#pragma once

#include <cassert>

#include "src/codec/codec.h"

namespace metaprotocol {

// After each Decode of `bytes`.
inline void CheckDecoded([[maybe_unused]] const DecodeResult& result,
                         [[maybe_unused]] const Message& message, [[maybe_unused]] Bytes bytes,
                         [[maybe_unused]] const DecodeOptions& options) {
  switch (result.status) {
    case DecodeResult::Status::kNeedMore:
      assert(result.need > bytes.size() && "a codec that needs more says how much more");
      break;
    case DecodeResult::Status::kMessage:
      assert(message.length != 0 && "a message has a length");
      assert((options.allow_partial || message.length <= bytes.size()) &&
             "a message is there to its end unless the caller allows part of it");
      break;
    case DecodeResult::Status::kUndecodable:
      assert(message.length != 0 && "where an undecodable message ends is known");
      [[fallthrough]];
    case DecodeResult::Status::kTooLarge:
    case DecodeResult::Status::kError:
      assert(!result.error.empty() && "an error says what was wrong");
      break;
  }
}

// After each Encode of `bytes`, which are what is there of the message.
inline void CheckEncoded([[maybe_unused]] const Encoded& encoded,
                         [[maybe_unused]] const Message& message, [[maybe_unused]] Bytes bytes) {
  if (encoded.impossible) return;
  assert(encoded.head + encoded.tail_bytes <= bytes.size() &&
         "what is replaced of a message is part of it");
  assert((encoded.tail_bytes == 0 || bytes.size() == message.length) &&
         "a tail is replaced in whole messages only");
}

}  // namespace metaprotocol
