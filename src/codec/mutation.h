// Mutation: changes that routes and filters want written into a message. A codec's Encode applies
// them to whatever the protocol carries key/value pairs in (attachments, headers, trans_info, ...).
#pragma once

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
};

// Applied in order.
using Mutation = std::vector<MutationOp>;

}  // namespace metaprotocol
