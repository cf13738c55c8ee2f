// Protobuf messages that are fields of a declared message: reading what is known of them, and
// writing them with some of it changed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "codecs/declared/reading.h"
#include "codecs/declared/tables.h"
#include "src/codec/bytes.h"
#include "src/codec/protobuf.h"

namespace metaprotocol::declared {

struct MemberChange;

// As ReadMembers, in members.h; false if the message cannot be read.
bool ReadProtobufMembers(const SubMessage& message, Bytes bytes, size_t begin, size_t end,
                         Values& values, Metadata* metadata);

// What is an entry of a list that is a member; nothing if it is something else. `or_text`: what has
// no key is none.
inline std::optional<ProtoEntry> EntryOf(bool or_text, Bytes bytes) {
  // As all peers write them, as far as they are short: a key and a value, in this order.
  const auto byte = [bytes](size_t at) { return static_cast<unsigned char>(bytes[at]); };
  if (bytes.size() >= 4 && byte(0) == 0x0a && byte(1) < 0x80) {
    const size_t key = byte(1);
    if (bytes.size() >= 4 + key && byte(2 + key) == 0x12 && byte(3 + key) < 0x80 &&
        bytes.size() == 4 + key + byte(3 + key) && key != 0) {
      return ProtoEntry{bytes.substr(2, key), bytes.substr(4 + key)};
    }
  }
  auto entry = ReadProtoEntry(bytes);
  if (or_text && entry && entry->key.empty()) entry.reset();
  return entry;
}

// Calls `each(key, value)` for the entries of the list `field`, which lie in `area`.
template <class Each>
void ForEachProtobufEntry(const Field& field, Bytes area, Each each) {
  ProtoReader reader(area);
  for (ProtoField found; reader.Next(found);) {
    if (!found.is(field.number_in_message, WireType::kLength)) continue;
    if (const auto entry = EntryOf(field.or_text, found.bytes)) each(entry->key, entry->value);
  }
}

// As AppendMessage, in members.h.
void AppendProtobufMessage(const Layout& layout, const SubMessage& message, Bytes old,
                           std::span<MemberChange> changes, std::string& out);

}  // namespace metaprotocol::declared
