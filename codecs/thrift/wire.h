// Reading pieces of Thrift: a cursor that tells "not yet here" from "cannot be".
#pragma once

#include <cstddef>
#include <cstdint>

#include "src/codec/bytes.h"
#include "src/codec/codec.h"

namespace metaprotocol::thrift {

// Apache's numbers for message types (thrift-rpc.md); 0 is none of them.
enum class MessageType : uint8_t {
  kUnknown = 0,
  kCall = 1,
  kReply = 2,
  kException = 3,
  kOneWay = 4
};

// Reads forward through bytes of which only a part may have arrived, inside a unit (frame, header)
// that is known to end at `limit`. After a failed read `failure()` says what to return: kNeedMore
// if the bytes have not arrived, kError if the unit is too short for them.
class Cursor {
 public:
  // `limit` counts from bytes[0]; it may lie beyond bytes.size(). Precondition: position <= limit.
  Cursor(Bytes bytes, size_t position, size_t limit)
      : bytes_(bytes), position_(position), limit_(limit) {}

  size_t position() const { return position_; }
  void MoveTo(size_t position) { position_ = position; }
  bool at_limit() const { return position_ == limit_; }
  const DecodeResult& failure() const { return failure_; }

  bool Fail(std::string_view why) {
    failure_ = DecodeResult::Error(why);
    return false;
  }

  // Whether `n` more bytes are there.
  bool Has(size_t n) {
    if (n > limit_ - position_) return Fail("a Thrift field runs over the end of its frame");
    if (position_ + n > bytes_.size()) {
      failure_ = DecodeResult::NeedMore(position_ + n);
      return false;
    }
    return true;
  }

  bool ReadU8(uint8_t& v) {
    if (!Has(1)) return false;
    v = static_cast<uint8_t>(bytes_[position_++]);
    return true;
  }
  bool ReadBe16(uint16_t& v) {
    if (!Has(2)) return false;
    v = LoadBe16(bytes_.data() + position_);
    position_ += 2;
    return true;
  }
  bool ReadBe32(uint32_t& v) {
    if (!Has(4)) return false;
    v = LoadBe32(bytes_.data() + position_);
    position_ += 4;
    return true;
  }
  bool ReadBytes(size_t n, Bytes& v) {
    if (!Has(n)) return false;
    v = bytes_.substr(position_, n);
    position_ += n;
    return true;
  }
  // An unsigned LEB128 of at most 32 bits in at most 5 bytes.
  bool ReadVarint32(uint32_t& v) {
    uint64_t value = 0;
    for (size_t i = 0; i < 5; ++i) {
      if (!Has(i + 1)) return false;
      const auto byte = static_cast<uint8_t>(bytes_[position_ + i]);
      value |= uint64_t{byte & 0x7Fu} << (7 * i);
      if (byte < 0x80) {
        if (value > UINT32_MAX) break;
        v = static_cast<uint32_t>(value);
        position_ += i + 1;
        return true;
      }
    }
    return Fail("a Thrift varint does not fit 32 bits");
  }
  // Goes over a LEB128 of at most `max_bytes` bytes.
  bool SkipVarint(size_t max_bytes) {
    for (size_t i = 0; i < max_bytes; ++i) {
      if (!Has(i + 1)) return false;
      if (static_cast<uint8_t>(bytes_[position_ + i]) < 0x80) {
        position_ += i + 1;
        return true;
      }
    }
    return Fail("a Thrift varint is too long");
  }

 private:
  Bytes bytes_;
  size_t position_;
  size_t limit_;
  DecodeResult failure_;
};

}  // namespace metaprotocol::thrift
