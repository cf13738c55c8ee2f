// A mutation of key/value entries that lie one by one in a message, as in protobuf's maps: which of
// the message's own stay, and which are new.
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "src/codec/mutation.h"

namespace metaprotocol {

// Shown all entries, then asked about each: the cost is that of the entries times that of the
// mutation, whatever the message says.
class EntryMutation {
 public:
  // `mutation` must outlive this.
  explicit EntryMutation(std::span<const MutationOp> mutation)
      : mutation_(mutation), present_(mutation.size()) {}

  bool empty() const { return mutation_.empty(); }
  void See(std::string_view key) {
    if (const size_t place = PlaceOf(key); place < mutation_.size()) present_[place] = true;
  }

  // After all entries have been seen: whether one with this key stays as it is.
  bool Keeps(std::string_view key) const;
  // Calls `append(key, value)` for each entry that is to be written.
  template <class Append>
  void ForEachNew(Append append) const {
    for (size_t i = 0; i < mutation_.size(); ++i) {
      if (PlaceOf(mutation_[i].key) != i) continue;
      if (const Outcome outcome = OutcomeAt(i); outcome.value) {
        append(std::string_view(mutation_[i].key), *outcome.value);
      }
    }
  }

 private:
  struct Outcome {
    bool kept = true;  // what the message had
    std::optional<std::string_view> value;
  };
  // Of a key that mutation_[place] is the first to name.
  Outcome OutcomeAt(size_t place) const;
  // Of the first operation with that key; mutation_.size() if there is none.
  size_t PlaceOf(std::string_view key) const {
    size_t i = 0;
    while (i < mutation_.size() && mutation_[i].key != key) ++i;
    return i;
  }

  const std::span<const MutationOp> mutation_;
  std::vector<bool> present_;  // by place
};

// A mutation of a message that has several lists of entries: new ones go into one of them, and what
// they replace leaves all, whichever a reader looks into.
struct ListMutation {
  std::vector<MutationOp> target;
  std::vector<MutationOp> others;
};

// `elsewhere(key)`: whether one of the other lists has an entry of that key.
template <class Elsewhere>
ListMutation SplitMutation(std::span<const MutationOp> mutation, Elsewhere elsewhere) {
  ListMutation split;
  for (const MutationOp& op : mutation) {
    const bool leaves = std::any_of(split.others.begin(), split.others.end(),
                                    [&](const MutationOp& before) { return before.key == op.key; });
    if (op.kind == MutationOp::Kind::kAddIfAbsent && !leaves && elsewhere(op.key)) continue;
    split.target.push_back(op);
    if (!leaves) split.others.push_back({MutationOp::Kind::kRemove, op.key, ""});
  }
  return split;
}

}  // namespace metaprotocol
