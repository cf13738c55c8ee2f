// One message: what it is, and what of it is wanted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "codecs/declared/tables.h"
#include "src/codec/bytes.h"
#include "src/codec/codec.h"

namespace metaprotocol::declared {

// The bit of Message::tag that tells messages of servers: their answers travel the other way.
inline constexpr uint64_t kFromServer = uint64_t{1} << 63;
// The bits below it are which form the message has: those of its answer, too.
inline constexpr int kFormShift = 61;
inline constexpr uint64_t kFormMask = Forms::kMost - 1;

// Where an id in a message is, which travels in Message::tag: there are no copies then.
struct IdPlace {
  size_t begin = 0;
  size_t size = 0;

  uint64_t Pack() const { return uint64_t{begin} << 8 | uint64_t{size}; }
  static IdPlace Unpack(uint64_t tag) {
    const uint64_t place = tag & ((uint64_t{1} << kFormShift) - 1);
    return {static_cast<size_t>(place >> 8), static_cast<size_t>(place & 0xff)};
  }
};

// How far a message without its end has been searched for it.
class Scanned final : public DecodeState {
 public:
  size_t bytes = 0;
};

inline Direction DirectionOf(uint64_t tag) {
  return (tag & kFromServer) != 0 ? Direction::kResponse : Direction::kRequest;
}

// A number as text, and what it is called; null if that is nothing.
std::string NumberText(const Field& field, uint64_t number);
const std::string* NameOf(const Field& field, uint64_t number);

// As Codec::Decode. `scanned`: of messages that end with a delimiter.
DecodeResult DecodeDeclared(const Forms& forms, Scanned* scanned, Direction direction, Bytes bytes,
                            const DecodeOptions& options, Message& message);

}  // namespace metaprotocol::declared
