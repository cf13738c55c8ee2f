// Finds the end of one Thrift struct, as far as its bytes have arrived. Unframed messages end where
// their struct ends and nothing else tells where that is; in frames the struct must end where the
// frame does.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "codecs/thrift/dialect.h"
#include "codecs/thrift/wire.h"
#include "src/codec/bytes.h"
#include "src/codec/codec.h"

namespace metaprotocol::thrift {

// Goes forward only: bytes once passed are never read again, so a message that trickles in costs no
// more than one that comes at once. Memory is this object, whatever the peer nests; time is bounded
// by the bytes received, since each element of a container is at least one byte long.
class StructSkipper {
 public:
  // Structs and containers inside each other; Apache's implementations stop at 64 too.
  static constexpr size_t kMaxDepth = 64;

  // Begins at a struct's first byte, `position`. Not kUnknown.
  void Start(Protocol protocol, size_t position);

  // Goes on as far as `bytes`, which begin with the message, reach. kMessage: position() is the end
  // of the struct. kNeedMore: call again with more; `need` is the least the message can be long.
  // kTooLarge: that is more than `max_bytes`.
  DecodeResult Run(Bytes bytes, size_t max_bytes);

  // How far the skipping has come. A caller may not hand Run fewer bytes than this.
  size_t position() const { return position_; }
  // From now on bytes are counted from the present `origin`, which is not behind position().
  void CountFrom(size_t origin) { position_ -= origin; }

 private:
  struct Level {
    bool is_struct;
    // A list's element type twice, or a map's value and key type: elements left, modulo 2, say
    // which is next.
    uint8_t types[2];
    uint64_t left;
  };

  bool Push(Cursor& cursor, Level level);
  bool Pop();
  bool Step(Cursor& cursor);
  bool SkipVarints(Cursor& cursor, size_t max_bytes, Level& list);
  bool SkipFieldHeader(Cursor& cursor);
  bool SkipValue(Cursor& cursor, uint8_t wire_type);
  bool SkipString(Cursor& cursor);
  bool SkipListHeader(Cursor& cursor);
  bool SkipMapHeader(Cursor& cursor);
  bool SkipElements(Cursor& cursor, uint8_t key_type, uint8_t value_type, uint64_t count, bool map);

  Protocol protocol_ = Protocol::kUnknown;
  size_t position_ = 0;
  uint64_t pending_ = 0;    // bytes of the present value still to be passed over
  uint8_t value_type_ = 0;  // type of a field whose header has been read and whose value has not
  // The fewest bytes that can follow the present token: a stop for each open struct, a byte for
  // each element to come.
  uint64_t least_rest_ = 0;
  size_t depth_ = 0;
  std::array<Level, kMaxDepth> levels_;
};

}  // namespace metaprotocol::thrift
