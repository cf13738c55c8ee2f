#include "codecs/thrift/struct_skipper.h"

#include <algorithm>
#include <iterator>

namespace metaprotocol::thrift {
namespace {

// Compact types that a field header carries its value in.
constexpr uint8_t kCompactTrue = 1;
constexpr uint8_t kCompactFalse = 2;

// What a type of the wire comes to.
enum class Shape : uint8_t { kInvalid, kFixed, kVarint, kString, kStruct, kList, kMap };
struct Type {
  Shape shape = Shape::kInvalid;
  uint8_t bytes = 0;  // kFixed: size; kVarint: most it can be
};

// thrift-binary-protocol.md and thrift-compact-protocol.md, the lists of field and element types.
// A type of no size (void) is none of them: each element costs its sender a byte.
constexpr Type kBinaryTypes[] = {
    {},                   // 0 stop
    {},                   // 1 void
    {Shape::kFixed, 1},   // 2 bool
    {Shape::kFixed, 1},   // 3 i8
    {Shape::kFixed, 8},   // 4 double
    {},                   // 5
    {Shape::kFixed, 2},   // 6 i16
    {},                   // 7
    {Shape::kFixed, 4},   // 8 i32
    {},                   // 9
    {Shape::kFixed, 8},   // 10 i64
    {Shape::kString, 0},  // 11 binary
    {Shape::kStruct, 0},  // 12 struct
    {Shape::kMap, 0},     // 13 map
    {Shape::kList, 0},    // 14 set
    {Shape::kList, 0},    // 15 list
    {Shape::kFixed, 16},  // 16 uuid
};
constexpr Type kCompactTypes[] = {
    {},                    // 0 stop
    {Shape::kFixed, 1},    // 1 bool, as some write it in containers
    {Shape::kFixed, 1},    // 2 bool
    {Shape::kFixed, 1},    // 3 i8
    {Shape::kVarint, 3},   // 4 i16
    {Shape::kVarint, 5},   // 5 i32
    {Shape::kVarint, 10},  // 6 i64
    {Shape::kFixed, 8},    // 7 double
    {Shape::kString, 0},   // 8 binary
    {Shape::kList, 0},     // 9 list
    {Shape::kList, 0},     // 10 set
    {Shape::kMap, 0},      // 11 map
    {Shape::kStruct, 0},   // 12 struct
    {Shape::kFixed, 16},   // 13 uuid
};

Type TypeOf(Protocol protocol, uint8_t wire_type) {
  if (protocol == Protocol::kCompact) {
    return wire_type < std::size(kCompactTypes) ? kCompactTypes[wire_type] : Type{};
  }
  return wire_type < std::size(kBinaryTypes) ? kBinaryTypes[wire_type] : Type{};
}

}  // namespace

void StructSkipper::Start(Protocol protocol, size_t position) {
  protocol_ = protocol;
  position_ = position;
  pending_ = 0;
  value_type_ = 0;
  levels_[0] = {true, {0, 0}, 0};
  depth_ = 1;
  least_rest_ = 1;
}

DecodeResult StructSkipper::Run(Bytes bytes, size_t max_bytes) {
  Cursor cursor(bytes, position_, SIZE_MAX);
  while (true) {
    if (pending_ > 0) {
      const uint64_t passed = std::min<uint64_t>(pending_, bytes.size() - position_);
      position_ += passed;
      pending_ -= passed;
      cursor.MoveTo(position_);
    }
    uint64_t least = position_ + pending_ + least_rest_;
    if (least <= max_bytes) {
      if (pending_ > 0) return DecodeResult::NeedMore(least);
      if (depth_ == 0) return DecodeResult::Ok();
      if (Step(cursor)) {
        position_ = cursor.position();
        continue;
      }
      if (cursor.failure().status != DecodeResult::Status::kNeedMore) return cursor.failure();
      // Unless it is a field's value, the token that is missing is one that least_rest_ counts: the
      // stop of the innermost struct, or an element of the innermost container.
      least = cursor.failure().need + least_rest_ - (value_type_ == 0 ? 1 : 0);
    }
    if (least > max_bytes) return DecodeResult::TooLarge("Thrift message too large");
    return DecodeResult::NeedMore(least);
  }
}

// Consumes a token or some: field headers, values' first bytes, ends of containers. Of a token that
// is not whole, nothing.
bool StructSkipper::Step(Cursor& cursor) {
  Level& top = levels_[depth_ - 1];
  if (value_type_ == 0 && top.is_struct) {
    if (!SkipFieldHeader(cursor)) return false;
    position_ = cursor.position();
  }
  if (value_type_ != 0) {
    const uint8_t type = value_type_;
    value_type_ = 0;
    if (SkipValue(cursor, type)) return true;
    value_type_ = type;
    return false;
  }
  if (top.is_struct) return true;
  if (top.left == 0) {
    --depth_;
    return true;
  }
  if (top.types[0] == top.types[1]) {
    const Type type = TypeOf(protocol_, top.types[0]);
    if (type.shape == Shape::kVarint) return SkipVarints(cursor, type.bytes, top);
  }
  // Counted before the value, which may be a container of its own.
  --top.left;
  --least_rest_;
  if (SkipValue(cursor, top.types[(top.left + 1) & 1])) return true;
  ++top.left;
  ++least_rest_;
  return false;
}

// The elements of a list of integers, as many as are there.
bool StructSkipper::SkipVarints(Cursor& cursor, size_t max_bytes, Level& list) {
  const uint64_t before = list.left;
  while (list.left > 0 && cursor.SkipVarint(max_bytes)) --list.left;
  least_rest_ -= before - list.left;
  return list.left < before;
}

bool StructSkipper::SkipFieldHeader(Cursor& cursor) {
  uint8_t type = 0;
  if (!cursor.ReadU8(type)) return false;
  if (protocol_ == Protocol::kCompact) {
    const bool long_form = type >> 4 == 0;
    type &= 0x0F;
    if (type == 0) return Pop();
    if (long_form && !cursor.SkipVarint(3)) return false;
    if (type == kCompactTrue || type == kCompactFalse) return true;
  } else {
    uint16_t field = 0;
    if (type == 0) return Pop();
    if (!cursor.ReadBe16(field)) return false;
  }
  if (TypeOf(protocol_, type).shape == Shape::kInvalid)
    return cursor.Fail("unknown Thrift field type");
  value_type_ = type;
  return true;
}

bool StructSkipper::SkipValue(Cursor& cursor, uint8_t wire_type) {
  const Type type = TypeOf(protocol_, wire_type);
  switch (type.shape) {
    case Shape::kFixed:
      pending_ = type.bytes;
      return true;
    case Shape::kVarint:
      return cursor.SkipVarint(type.bytes);
    case Shape::kString:
      return SkipString(cursor);
    case Shape::kStruct:
      return Push(cursor, {true, {0, 0}, 0});
    case Shape::kList:
      return SkipListHeader(cursor);
    case Shape::kMap:
      return SkipMapHeader(cursor);
    case Shape::kInvalid:
      break;
  }
  return cursor.Fail("unknown Thrift element type");
}

bool StructSkipper::SkipString(Cursor& cursor) {
  uint32_t length = 0;
  const bool read =
      protocol_ == Protocol::kCompact ? cursor.ReadVarint32(length) : cursor.ReadBe32(length);
  if (!read) return false;
  if (length > INT32_MAX) return cursor.Fail("negative length of a Thrift string");
  pending_ = length;
  return true;
}

bool StructSkipper::SkipListHeader(Cursor& cursor) {
  uint8_t type = 0;
  uint32_t count = 0;
  if (!cursor.ReadU8(type)) return false;
  if (protocol_ == Protocol::kCompact) {
    count = type >> 4;
    type &= 0x0F;
    if (count == 15 && !cursor.ReadVarint32(count)) return false;
  } else if (!cursor.ReadBe32(count)) {
    return false;
  }
  return SkipElements(cursor, type, type, count, false);
}

bool StructSkipper::SkipMapHeader(Cursor& cursor) {
  uint8_t key_type = 0;
  uint8_t value_type = 0;
  uint32_t count = 0;
  if (protocol_ == Protocol::kCompact) {
    if (!cursor.ReadVarint32(count)) return false;
    if (count == 0) return true;
    if (!cursor.ReadU8(value_type)) return false;
    key_type = value_type >> 4;
    value_type &= 0x0F;
  } else if (!cursor.ReadU8(key_type) || !cursor.ReadU8(value_type) || !cursor.ReadBe32(count)) {
    return false;
  }
  return SkipElements(cursor, key_type, value_type, count, true);
}

bool StructSkipper::SkipElements(Cursor& cursor, uint8_t key_type, uint8_t value_type,
                                 uint64_t count, bool map) {
  if (count > INT32_MAX) return cursor.Fail("negative size of a Thrift container");
  if (count == 0) return true;  // some writers put type 0 there
  const Type key = TypeOf(protocol_, key_type);
  const Type value = TypeOf(protocol_, value_type);
  if (key.shape == Shape::kInvalid || value.shape == Shape::kInvalid) {
    return cursor.Fail("unknown Thrift element type");
  }
  if (key.shape == Shape::kFixed && value.shape == Shape::kFixed) {
    pending_ = count * (map ? key.bytes + value.bytes : value.bytes);
    return true;
  }
  // Counting down from an even number, a map's keys come at even counts.
  return Push(cursor, {false, {key_type, value_type}, map ? 2 * count : count});
}

bool StructSkipper::Pop() {
  --depth_;
  --least_rest_;
  return true;
}

bool StructSkipper::Push(Cursor& cursor, Level level) {
  if (depth_ == kMaxDepth) return cursor.Fail("Thrift structs and containers nested too deep");
  levels_[depth_++] = level;
  least_rest_ += level.is_struct ? 1 : level.left;
  return true;
}

}  // namespace metaprotocol::thrift
