// Messages in JSON that are fields of a declared message: reading what is known of them, and
// writing them with some of it changed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "codecs/declared/json_text.h"
#include "codecs/declared/reading.h"
#include "codecs/declared/tables.h"
#include "src/codec/bytes.h"
#include "src/codec/metadata.h"

namespace metaprotocol::declared {

struct MemberChange;

// As ReadMembers, in members.h, of a message that is `content` and begins at `begin`.
MembersRead ReadJsonMembers(const SubMessage& message, Bytes content, size_t begin, Values& values,
                            Metadata* metadata);

// Calls `each(key, value)` for the entries of a list that is a member, which lie in `area`; both
// are views that last as long as the call.
template <class Each>
void ForEachJsonEntry(Bytes area, Each each) {
  JsonScanner scanner(area);
  std::string key_owner;
  std::string value_owner;
  JsonString key;
  while (!scanner.AtEnd()) {
    if (!scanner.String(key) || !scanner.Take(':')) return;
    if (scanner.Peek() == '"') {
      JsonString value;
      if (!scanner.String(value)) return;
      each(key.Text(key_owner), value.Text(value_owner));
    } else if (!scanner.Null()) {
      const size_t begin = scanner.position();
      if (!scanner.Value()) return;
      each(key.Text(key_owner), area.substr(begin, scanner.position() - begin));
    }
    if (!scanner.Take(',')) return;
  }
}

// Appends a number as a member of that type has it.
void AppendJsonNumber(std::string& out, MemberType type, uint64_t number);

// As AppendMessage, in members.h. `old` has been read without a fault, or is "".
void AppendJsonMessage(const Layout& layout, const SubMessage& message, Bytes old,
                       std::span<MemberChange> changes, std::string& out);

}  // namespace metaprotocol::declared
