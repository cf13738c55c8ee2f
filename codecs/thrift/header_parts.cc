#include "codecs/thrift/header_parts.h"

#include <algorithm>

namespace metaprotocol::thrift {

bool MutatePairs(std::span<const MutationOp> mutation, size_t most_bytes, InfoPairs& pairs) {
  for (const MutationOp& op : mutation) {
    const auto same = [&op](const auto& pair) { return pair.first == op.key; };
    if (op.kind == MutationOp::Kind::kAddIfAbsent &&
        std::any_of(pairs.begin(), pairs.end(), same)) {
      continue;
    }
    std::erase_if(pairs, same);
    if (op.kind == MutationOp::Kind::kRemove) continue;
    if (op.key.size() > most_bytes || op.value.size() > most_bytes) return false;
    pairs.emplace_back(op.key, op.value);
  }
  return true;
}

}  // namespace metaprotocol::thrift
