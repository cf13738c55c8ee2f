// What decoding a message leaves for encoding it, or for answering it.
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
// And those below which of several lists has entries, if no other has: its place in Layout::lists,
// beginning with 1. 0: that is not told.
inline constexpr int kTargetShift = 56;
static_assert(kMostTargets == uint64_t{1} << (kFormShift - kTargetShift));

inline size_t TargetOf(uint64_t tag) { return tag >> kTargetShift & (kMostTargets - 1); }

// Where an id in a message is, which travels in Message::tag: there are no copies then.
struct IdPlace {
  size_t begin = 0;
  size_t size = 0;

  uint64_t Pack() const { return uint64_t{begin} << 8 | uint64_t{size}; }
  static IdPlace Unpack(uint64_t tag) {
    const uint64_t place = tag & ((uint64_t{1} << kTargetShift) - 1);
    return {static_cast<size_t>(place >> 8), static_cast<size_t>(place & 0xff)};
  }
};

// What is wanted of messages of one form and direction: a byte of Interest::mask.
struct Wanted {
  uint8_t fields = 0;  // so many have to be read
  bool told = false;   // something of them is told once they have been read

  static constexpr uint8_t kTold = 0x80;
  static_assert(kMaxFields < kTold);

  uint64_t Pack() const { return fields | (told ? kTold : 0); }
  static Wanted Unpack(uint64_t byte) {
    return {static_cast<uint8_t>(byte & (kTold - 1)), (byte & kTold) != 0};
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

}  // namespace metaprotocol::declared
