// Mutation: changes that routes and filters want written into a message. A codec's Encode applies
// them to whatever the protocol carries key/value pairs in (attachments, headers, trans_info, ...).
#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <vector>

namespace metaprotocol {

struct MutationOp {
  enum class Kind {
    kSet,          // write the value, replacing every present one
    kAddIfAbsent,  // write the value unless the key is already there
    kRemove,       // take the key away; `value` is unused
  };
  Kind kind = Kind::kSet;
  std::string key;
  std::string value;
  // Where there is a place for it, but no room, or it cannot be told from others: true: the request
  // goes nowhere, as somebody counts on it who lets requests in (Encoded::impossible); false: all
  // of the mutation is left out.
  bool required = false;
};

inline bool AnyRequired(std::span<const MutationOp> mutation) {
  return std::any_of(mutation.begin(), mutation.end(),
                     [](const MutationOp& op) { return op.required; });
}

// Applied in order.
using Mutation = std::vector<MutationOp>;

}  // namespace metaprotocol
