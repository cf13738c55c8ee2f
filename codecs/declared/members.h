// Messages that are fields of a declared message, in whichever format they are.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "codecs/declared/json_members.h"
#include "codecs/declared/protobuf_members.h"
#include "codecs/declared/reading.h"
#include "codecs/declared/tables.h"
#include "src/codec/bytes.h"
#include "src/codec/entry_mutation.h"

namespace metaprotocol::declared {

// What is written of a member in place of what was there.
struct MemberChange {
  FieldIndex member = kNoField;
  bool gone = false;
  uint64_t number = 0;
  std::string_view text = {};                 // texts
  std::optional<EntryMutation> entries = {};  // lists; it is shown those of the message
};

// Values of the members of the message that is in [begin, end) of `bytes`; if it cannot be read, as
// far as it can. `metadata`, if any, gets the entries of lists.
inline MembersRead ReadMembers(const SubMessage& message, Bytes bytes, size_t begin, size_t end,
                               Values& values, Metadata* metadata) {
  Value* const first = &values[message.field + 1];
  const Value* const last = first + message.members;
  for (Value* value = first; value != last; ++value) {
    value->number = 0;
    value->present = false;
  }
  if (message.format == MessageFormat::kJson) {
    return ReadJsonMembers(message, bytes.substr(begin, end - begin), begin, values, metadata);
  }
  return ReadProtobufMembers(message, bytes, begin, end, values, metadata) ? MembersRead::kGood
                                                                           : MembersRead::kFaulty;
}

// Calls `each(key, value)` for the entries of the list `field`, which lie in `area`.
template <class Each>
void ForEachMemberEntry(const Layout& layout, const Field& field, Bytes area, Each each) {
  if (layout.FormatOf(field) == MessageFormat::kJson) return ForEachJsonEntry(area, each);
  ForEachProtobufEntry(field, area, each);
}

// Appends the message `old`, which has been read without a fault, with these changes; what they do
// not name stays as it is, byte by byte. Nothing else than `changes` is in a message that is made
// anew ("").
inline void AppendMessage(const Layout& layout, const SubMessage& message, Bytes old,
                          std::span<MemberChange> changes, std::string& out) {
  if (message.format == MessageFormat::kJson) {
    AppendJsonMessage(layout, message, old, changes, out);
  } else {
    AppendProtobufMessage(layout, message, old, changes, out);
  }
}

}  // namespace metaprotocol::declared
