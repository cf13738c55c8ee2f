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
// its bytes that stands for; 0, and nothing appended, if it cannot be read. `end`: of fields and
// body.
size_t AppendReplaced(const Tables& tables, Direction direction, Bytes bytes, size_t end,
                      const Replaced& replaced, std::string& out);

// The same where the id is a member of a message: in protobuf it takes the `size` bytes at `begin`
// with its tag (0: it is not there), in JSON without its name. 0, and nothing appended, if a length
// cannot say what it comes to.
size_t AppendIdInMessage(const Layout& layout, bool little_endian, Bytes bytes, size_t begin,
                         size_t size, uint64_t id, std::string& out);

// Appends the beginning of a whole message with the entries of its lists mutated, without reading
// the rest of it, and returns how many of its bytes that stands for; 0, and nothing appended, if
// the message has to be read for that, or cannot carry it. `target`: TargetOf(Message::tag).
size_t AppendEntriesChanged(const Tables& tables, Direction direction, Bytes bytes, size_t target,
                            std::span<const MutationOp> mutation, const Replaced& replaced,
                            std::string& out);

// Appends the fields of a whole message with `mutation` applied, and its lengths made good, and
// returns how many of its bytes that stands for: what is behind them stays as it is. `bytes`:
// fields and body. 0, and nothing appended, if the message cannot carry it: what is set holds a
// separator, or is longer than its length can say.
size_t AppendMutated(const Tables& tables, Direction direction, Bytes bytes,
                     std::span<const MutationOp> mutation, const Replaced& replaced,
                     std::string& out);

}  // namespace metaprotocol::declared
