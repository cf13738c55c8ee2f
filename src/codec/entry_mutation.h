// A mutation of key/value entries that lie one by one in a message, as in protobuf's maps: which of
// the message's own stay, and which are new.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "src/codec/mutation.h"

namespace metaprotocol {

// Shown all entries and asked about each, before or while they are written: the cost is that of the
// entries times that of the mutation, whatever the message says.
class EntryMutation {
 public:
  // `mutation` must outlive this.
  explicit EntryMutation(std::span<const MutationOp> mutation)
      : mutation_(mutation), many_present_(mutation.size() > kFew ? mutation.size() : 0) {}

  bool empty() const { return mutation_.empty(); }
  void See(std::string_view key) {
    if (const size_t place = PlaceOf(key); place < mutation_.size()) SetPresent(place);
  }

  // Of a key that has been seen: whether an entry with it stays as it is.
  bool Keeps(std::string_view key) const;
  // The same of one that is seen with this.
  bool SeeAndKeep(std::string_view key) {
    const size_t place = PlaceOf(key);
    if (place == mutation_.size()) return true;
    SetPresent(place);
    return OutcomeAt(place).kept;
  }
  // After all entries have been seen: calls `append(key, value)` for each that is to be written.
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

  // By place: nearly all mutations are so short that one number will do.
  static constexpr size_t kFew = 64;
  bool Present(size_t place) const {
    return many_present_.empty() ? (present_ >> place & 1) != 0 : many_present_[place];
  }
  void SetPresent(size_t place) {
    if (many_present_.empty()) {
      present_ |= uint64_t{1} << place;
    } else {
      many_present_[place] = true;
    }
  }

  const std::span<const MutationOp> mutation_;
  uint64_t present_ = 0;
  std::vector<bool> many_present_;
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
