#include "src/codec/entry_mutation.h"

namespace metaprotocol {

EntryMutation::Outcome EntryMutation::OutcomeAt(size_t place) const {
  Outcome outcome;
  for (size_t i = place; i < mutation_.size(); ++i) {
    const MutationOp& op = mutation_[i];
    if (op.key != mutation_[place].key) continue;
    const bool there = outcome.value.has_value() || (outcome.kept && Present(place));
    if (op.kind == MutationOp::Kind::kAddIfAbsent && there) continue;
    outcome.kept = false;
    outcome.value.reset();
    if (op.kind != MutationOp::Kind::kRemove) outcome.value = op.value;
  }
  return outcome;
}

bool EntryMutation::Keeps(std::string_view key) const {
  const size_t place = PlaceOf(key);
  return place == mutation_.size() || OutcomeAt(place).kept;
}

}  // namespace metaprotocol
