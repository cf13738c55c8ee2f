// Messages of others with other numbers and with mutations applied.
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

// The same where the id is a member of a message: in protobuf it takes the `size` bytes at `begin`
// with its tag (0: it is not there), in JSON without its name. 0, and nothing appended, if a length
// cannot say what it comes to.
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
