// Messages with other fields: templates filled in, and messages of others with mutations applied.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "codecs/declared/reading.h"
#include "codecs/declared/tables.h"
#include "src/codec/codec.h"

namespace metaprotocol::declared {

// What goes into a template.
struct Filling {
  uint64_t id = 0;
  uint64_t tag = 0;  // of the message that is answered
  std::string_view text = {};
  std::string_view reply = {};
  const uint64_t* status = nullptr;  // in place of what the template has
};

// Appends a message of that layout. Text that has no room in its field is cut, between characters.
// False, and nothing appended, if a length cannot say how many bytes its fields take.
bool AppendTemplate(const Tables& tables, Direction direction, const Template& from,
                    const Filling& filling, std::string& out);

// Numbers that stand in place of a message's own.
struct Replaced {
  std::optional<uint64_t> id;
  std::optional<uint64_t> timeout;  // in the protocol's unit
};

// Appends the beginning of a message up to the last field that is replaced, and returns how many of
// its bytes that stands for. `values`: of all fields up to that one, if they are not at fixed
// places.
size_t AppendReplaced(const Tables& tables, Direction direction, Bytes bytes, const Values& values,
                      const Replaced& replaced, std::string& out);

// The same where the id is a member of a message, which with its name takes the `size` bytes at
// `begin` (0: it is not there). 0, and nothing appended, if a length cannot say what it comes to.
size_t AppendIdInMessage(const Layout& layout, bool little_endian, Bytes bytes, size_t begin,
                         size_t size, uint64_t id, std::string& out);

// Appends the fields of a whole message with `mutation` applied, and its lengths made good; what is
// behind them stays as it is. `bytes`: fields and body. `values`: of all fields. False, and nothing
// appended, if the message cannot carry it: what is set holds a separator, or is longer than its
// length can say.
bool AppendMutated(const Tables& tables, Direction direction, Bytes bytes, const Values& values,
                   std::span<const MutationOp> mutation, const Replaced& replaced,
                   std::string& out);

}  // namespace metaprotocol::declared
