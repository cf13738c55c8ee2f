#include "codecs/thrift/message_head.h"

#include "src/codec/utf8.h"
#include "src/codec/varint.h"

namespace metaprotocol::thrift {
namespace {

constexpr uint8_t kCompactId = 0x82;

void SetType(uint8_t byte, MessageHead& head) {
  head.bad_type = byte < 1 || byte > 4;
  if (!head.bad_type) head.type = static_cast<MessageType>(byte);
}

bool ReadName(uint32_t length, Cursor& cursor, MessageHead& head) {
  if (length > kMaxNameBytes) {
    return cursor.Fail(length > INT32_MAX ? "negative length of a Thrift method name"
                                          : "Thrift method name too long");
  }
  Bytes name;
  if (!cursor.ReadBytes(length, name)) return false;
  if (!IsUtf8(name)) return cursor.Fail("Thrift method name is not UTF-8");
  // Nobody could tell an unframed old binary reply to a method like these from JSON, or from a
  // framed message (Detect). Multiplexed names lose what is before their first colon in replies, in
  // which there may be another.
  if (name.find('\0') != Bytes::npos) return cursor.Fail("Thrift method name with a zero byte");
  const std::string_view called = MethodOf(name);
  for (Bytes part = name, method = called;; part = method, method = MethodOf(part)) {
    if (method.starts_with("[1")) return cursor.Fail("Thrift method name begins like JSON");
    if (method.size() == part.size()) break;
  }
  head.name = name;
  head.method = called;
  return true;
}

bool ReadFixedId(Cursor& cursor, MessageHead& head) {
  head.id_offset = cursor.position();
  return cursor.ReadBe32(head.id);
}

// thrift-binary-protocol.md, "Message", strict encoding.
bool ReadBinary(Cursor& cursor, MessageHead& head) {
  uint32_t version = 0;
  uint32_t length = 0;
  if (!cursor.ReadBe32(version)) return false;
  if (version >> 16 != 0x8001) return cursor.Fail("bad version of the Thrift binary protocol");
  SetType(version & 0xFF, head);
  return cursor.ReadBe32(length) && ReadName(length, cursor, head) && ReadFixedId(cursor, head);
}

// The same section, old encoding.
bool ReadOldBinary(Cursor& cursor, MessageHead& head) {
  uint32_t length = 0;
  uint8_t type = 0;
  if (!cursor.ReadBe32(length) || !ReadName(length, cursor, head) || !cursor.ReadU8(type)) {
    return false;
  }
  SetType(type, head);
  return ReadFixedId(cursor, head);
}

// thrift-compact-protocol.md, "Message".
bool ReadCompact(Cursor& cursor, MessageHead& head) {
  uint8_t protocol = 0;
  uint8_t type_and_version = 0;
  if (!cursor.ReadU8(protocol) || !cursor.ReadU8(type_and_version)) return false;
  const int version = type_and_version & 0x1F;
  if (protocol != kCompactId || version < 1 || version > 2) {
    return cursor.Fail("bad version of the Thrift compact protocol");
  }
  SetType(type_and_version >> 5, head);
  head.id_offset = cursor.position();
  uint32_t length = 0;
  return cursor.ReadVarint32(head.id) && cursor.ReadVarint32(length) &&
         ReadName(length, cursor, head);
}

bool ReadHead(Protocol protocol, Cursor& cursor, MessageHead& head) {
  switch (protocol) {
    case Protocol::kBinary:
      return ReadBinary(cursor, head);
    case Protocol::kOldBinary:
      return ReadOldBinary(cursor, head);
    case Protocol::kCompact:
      return ReadCompact(cursor, head);
    case Protocol::kUnknown:
      break;
  }
  return cursor.Fail("unknown Thrift protocol");
}

bool ReadFirstField(Protocol protocol, Cursor& cursor, bool& is_exception) {
  uint8_t type = 0;
  if (!cursor.ReadU8(type)) return false;
  if (protocol != Protocol::kCompact) {
    uint16_t field = 0;
    if (type == 0) return true;
    if (!cursor.ReadBe16(field)) return false;
    is_exception = field != 0;
    return true;
  }
  if ((type & 0x0F) == 0) return true;
  if (type >> 4 != 0) {  // the short form: a difference of 1 to 15 to field 0
    is_exception = true;
    return true;
  }
  uint32_t field = 0;
  if (!cursor.ReadVarint32(field)) return false;
  is_exception = field != 0;
  return true;
}

// TApplicationException: 1: string message, 2: i32 type.
constexpr uint32_t kTypeField = 2;

int32_t Unzigzag(uint32_t v) { return static_cast<int32_t>(v >> 1 ^ (0 - (v & 1))); }

// Takes one field of an exception. False at its end, and at what no exception has.
bool ReadExceptionField(Protocol protocol, Cursor& cursor, uint32_t& field, int32_t& value) {
  const bool compact = protocol == Protocol::kCompact;
  uint8_t type = 0;
  uint32_t number = 0;
  uint16_t id = 0;
  Bytes text;
  if (!cursor.ReadU8(type) || type == 0) return false;
  if (!compact) {
    if (!cursor.ReadBe16(id)) return false;
    field = id;
  } else if (type >> 4 != 0) {
    field += type >> 4;
  } else {
    if (!cursor.ReadVarint32(number)) return false;
    field = static_cast<uint32_t>(Unzigzag(number));
  }
  const uint8_t string_type = compact ? 8 : 11;
  const uint8_t int_type = compact ? 5 : 8;
  const uint8_t value_type = compact ? type & 0x0F : type;
  if (value_type != string_type && value_type != int_type) return false;
  if (!(compact ? cursor.ReadVarint32(number) : cursor.ReadBe32(number))) return false;
  if (value_type == string_type) return cursor.ReadBytes(number, text);
  value = compact ? Unzigzag(number) : static_cast<int32_t>(number);
  return true;
}

}  // namespace

DecodeResult ReadMessageHead(Protocol protocol, Cursor& cursor, MessageHead& head) {
  const bool read = ReadHead(protocol, cursor, head);
  // Said at once: the name and the id are for the reply, which goes without them if they are not
  // there.
  if (head.bad_type) return DecodeResult::Error("unknown Thrift message type");
  if (!read) return cursor.failure();
  // Every message has a struct behind its head, one byte at least, which must fit the frame too.
  head.body_offset = cursor.position();
  if (cursor.Has(1)) return DecodeResult::Ok();
  const DecodeResult missing = cursor.failure();
  const bool ends = missing.status == DecodeResult::Status::kError;
  return ends ? DecodeResult::Undecodable(missing.error) : missing;
}

DecodeResult ReadIsDeclaredException(Protocol protocol, Cursor& cursor, bool& is_exception) {
  is_exception = false;
  if (!ReadFirstField(protocol, cursor, is_exception)) return cursor.failure();
  return DecodeResult::Ok();
}

int32_t ReadExceptionType(Protocol protocol, Cursor& cursor) {
  int32_t type = 0;
  uint32_t field = 0;
  while (ReadExceptionField(protocol, cursor, field, type)) {
    if (field == kTypeField) return type;
  }
  return 0;
}

std::string_view MethodOf(std::string_view name) {
  const size_t colon = name.find(':');
  return colon == std::string_view::npos ? name : name.substr(colon + 1);
}

bool IsUnequivocal(std::string_view name) {
  const size_t colon = name.find(':');
  if (colon == std::string_view::npos) return true;
  const std::string_view method = name.substr(colon + 1);
  return colon != 0 && !method.empty() && method.find(':') == std::string_view::npos;
}

void AppendMessageHead(Protocol protocol, MessageType type, std::string_view name, uint32_t id,
                       std::string& out) {
  const auto length = static_cast<uint32_t>(name.size());
  if (protocol == Protocol::kCompact) {
    out += static_cast<char>(kCompactId);
    out += static_cast<char>(static_cast<uint8_t>(type) << 5 | 1);
    AppendVarint(id, out);
    AppendVarint(length, out);
    out += name;
    return;
  }
  if (protocol == Protocol::kBinary) AppendBe32(out, 0x80010000 | static_cast<uint8_t>(type));
  AppendBe32(out, length);
  out += name;
  if (protocol == Protocol::kOldBinary) out += static_cast<char>(type);
  AppendBe32(out, id);
}

}  // namespace metaprotocol::thrift
