// Protobuf messages on the wire, field by field: for codecs whose heads are protobuf, which neither
// know all fields of their peers nor may lose any. Wire format:
// https://protobuf.dev/programming-guides/encoding/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "src/codec/bytes.h"
#include "src/codec/varint.h"

namespace metaprotocol {

enum class WireType : uint8_t { kVarint = 0, kFixed64 = 1, kLength = 2, kFixed32 = 5 };

// One field of a message. As everywhere in protobuf, one that is known by its number but has
// another wire type than it should is one that is not known.
struct ProtoField {
  uint32_t number = 0;
  WireType type = WireType::kVarint;
  uint64_t value = 0;  // kVarint
  Bytes bytes;         // kLength: the content
  size_t begin = 0;    // of the field with its tag, in the message
  size_t end = 0;

  bool is(uint32_t wanted_number, WireType wanted_type) const {
    return number == wanted_number && type == wanted_type;
  }
};

// Reads the fields of one message in order, in time linear in its bytes. Groups, which are
// deprecated since before all protocols that are read here, are taken for broken.
class ProtoReader {
 public:
  explicit ProtoReader(Bytes message) : message_(message) {}

  // The next field; false at the end, and where what follows is no field.
  bool Next(ProtoField& field);
  bool broken() const { return broken_; }

 private:
  bool Broken() {
    broken_ = true;
    return false;
  }
  bool ReadVarint(uint64_t& value, size_t max_bytes = kMaxVarintBytes);

  const Bytes message_;
  size_t position_ = 0;
  bool broken_ = false;
};

// An entry of a map<string, string> or map<string, bytes>: key (field 1) and value (2), each empty
// where it is absent. Null if `entry` is no message.
struct ProtoEntry {
  std::string_view key;
  std::string_view value;
};
std::optional<ProtoEntry> ReadProtoEntry(Bytes entry);

inline constexpr uint64_t ProtoTag(uint32_t number, WireType type) {
  return uint64_t{number} << 3 | static_cast<uint8_t>(type);
}

inline void AppendProtoVarint(std::string& out, uint32_t number, uint64_t value) {
  char buffer[2 * kMaxVarintBytes];
  const size_t tag = StoreVarint(buffer, ProtoTag(number, WireType::kVarint));
  out.append(buffer, tag + StoreVarint(buffer + tag, value));
}
inline void AppendProtoBytes(std::string& out, uint32_t number, std::string_view bytes) {
  char buffer[2 * kMaxVarintBytes];
  const size_t tag = StoreVarint(buffer, ProtoTag(number, WireType::kLength));
  out.append(buffer, tag + StoreVarint(buffer + tag, bytes.size())).append(bytes);
}
inline void AppendProtoFixed64(std::string& out, uint32_t number, uint64_t value) {
  AppendVarint(ProtoTag(number, WireType::kFixed64), out);
  for (int shift = 0; shift < 64; shift += 8) out += static_cast<char>(value >> shift);
}
void AppendProtoEntry(std::string& out, uint32_t number, std::string_view key,
                      std::string_view value);
// Appends a field that is a message, which `append()` writes behind what is in `out` by then: the
// length before it is made good once it is known. Returns how many bytes the message has.
template <class Append>
size_t AppendProtoMessage(std::string& out, uint32_t number, Append append) {
  AppendVarint(ProtoTag(number, WireType::kLength), out);
  const size_t begin = out.size();
  out.push_back('\0');  // mostly it fits one byte
  append();
  const size_t size = out.size() - begin - 1;
  char length[kMaxVarintBytes];
  const size_t bytes = StoreVarint(length, size);
  out[begin] = length[0];
  if (bytes > 1) out.insert(begin + 1, length + 1, bytes - 1);
  return size;
}

}  // namespace metaprotocol
