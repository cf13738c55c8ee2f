#include "src/codec/metadata.h"

#include <algorithm>
#include <unordered_set>

namespace metaprotocol {

void Metadata::SetNamedCopy(std::string_view name, const std::string& value) {
  if (keys_ == nullptr || keys_->everything()) {
    SetNamed(name, value);
    return;
  }
  keys_->ForEachNamed(name, [&](uint32_t slot, bool exact) {
    if (!exact && keys_->wants_spellings(slot)) AddSpelling(name);
    const Rank rank = exact ? Rank::kExact : Rank::kOtherCase;
    if (rank < slots_[slot].rank) return;
    slots_[slot].copy = value;
    Fill(slot, slots_[slot].copy, rank);
  });
}

void Metadata::AddSpelling(std::string_view name) {
  if (too_many_spellings()) return;
  if (std::find(spellings_.begin(), spellings_.end(), name) == spellings_.end()) {
    spellings_.emplace_back(name);
  }
}

std::optional<std::string_view> Metadata::Find(std::string_view name) const {
  if (keys_ == nullptr) return std::nullopt;
  const uint32_t slot = keys_->Find(name);
  if (slot != MetadataKeys::kNone) return Get(slot);
  for (auto it = others_.rbegin(); it != others_.rend(); ++it) {
    if (it->name != name) continue;
    return it->told ? std::optional<std::string_view>(it->value) : std::nullopt;
  }
  return std::nullopt;
}

std::vector<std::pair<std::string_view, std::string_view>> Metadata::Entries() const {
  std::vector<std::pair<std::string_view, std::string_view>> entries;
  std::vector<uint32_t> slots = filled_;
  std::sort(slots.begin(), slots.end());
  for (const uint32_t slot : slots) {
    if (const auto value = Get(slot)) entries.emplace_back(keys_->name(slot), *value);
  }
  // Of several with one name the last is what counts; the others keep their order.
  std::unordered_set<std::string_view> seen;
  const auto begin = static_cast<std::ptrdiff_t>(entries.size());
  for (auto it = others_.rbegin(); it != others_.rend(); ++it) {
    if (seen.insert(it->name).second && it->told) entries.emplace_back(it->name, it->value);
  }
  std::reverse(entries.begin() + begin, entries.end());
  return entries;
}

void Metadata::Rebase(std::string_view from, const char* to) {
  for (const uint32_t slot : filled_) {
    const std::string_view moved = Rebased(slots_[slot].view(), from, to);
    slots_[slot].data = moved.data();
  }
  alternative_ = Rebased(alternative_, from, to);
}

}  // namespace metaprotocol
