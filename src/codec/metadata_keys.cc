#include "src/codec/metadata_keys.h"

#include <algorithm>
#include <bit>

namespace metaprotocol {
namespace {

char Folded(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; }

bool Alike(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](char x, char y) { return Folded(x) == Folded(y); });
}

// FNV-1a of the folded text. Only configurations add to the table, so nobody can crowd it.
size_t Hash(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) {
    hash = (hash ^ static_cast<unsigned char>(Folded(c))) * 0x100000001b3u;
  }
  return static_cast<size_t>(hash ^ hash >> 32);
}

}  // namespace

MetadataKeys::MetadataKeys(std::span<const std::string_view> own,
                           std::span<const std::string_view> of_unread)
    : of_unread_(of_unread.begin(), of_unread.end()) {
  for (const std::string_view name : own) Add(name);
  own_ = own.size();
}

MetadataKeys MetadataKeys::Everything(std::span<const std::string_view> own) {
  MetadataKeys keys(own);
  keys.everything_ = true;
  keys.wanted_.assign(own.size(), 1);
  return keys;
}

uint32_t MetadataKeys::Want(std::string_view name) {
  uint32_t slot = Find(name);
  if (slot == kNone) {
    slot = Add(name);
    named_lengths_ |= LengthBit(name);
  }
  if (!wants(slot)) wanted_[slot] = 1;
  return slot;
}

uint32_t MetadataKeys::WantSpellings(std::string_view name) {
  const uint32_t slot = Want(name);
  wanted_[slot] = kWithSpellings;
  return slot;
}

uint32_t MetadataKeys::Find(std::string_view name) const {
  const uint32_t first = FirstAlike(name);
  if (first < own_) return first;
  for (uint32_t slot = first; slot != kNone; slot = next_alike_[slot]) {
    if (names_[slot] == name) return slot;
  }
  return kNone;
}

uint32_t MetadataKeys::FirstAlike(std::string_view name) const {
  if (table_.empty()) return kNone;
  const size_t mask = table_.size() - 1;
  for (size_t at = Hash(name) & mask; table_[at] != kNone; at = (at + 1) & mask) {
    if (Alike(names_[table_[at]], name)) return table_[at];
  }
  return kNone;
}

uint32_t MetadataKeys::Add(std::string_view name) {
  const auto slot = static_cast<uint32_t>(names_.size());
  const uint32_t first = FirstAlike(name);
  names_.emplace_back(name);
  wanted_.push_back(0);
  next_alike_.push_back(kNone);
  if (first != kNone) {
    next_alike_[slot] = next_alike_[first];
    next_alike_[first] = slot;
    return slot;
  }
  if (names_.size() * 2 > table_.size()) {
    Grow();
    return slot;
  }
  const size_t mask = table_.size() - 1;
  size_t at = Hash(name) & mask;
  while (table_[at] != kNone) at = (at + 1) & mask;
  table_[at] = slot;
  return slot;
}

void MetadataKeys::Grow() {
  table_.assign(std::bit_ceil(names_.size() * 4), kNone);
  const size_t mask = table_.size() - 1;
  for (uint32_t slot = 0; slot < names_.size(); ++slot) {
    size_t at = Hash(names_[slot]) & mask;
    while (table_[at] != kNone && !Alike(names_[table_[at]], names_[slot])) at = (at + 1) & mask;
    if (table_[at] == kNone) table_[at] = slot;  // else it is in that one's chain
  }
}

bool MetadataKeys::KnownOfUnread(std::string_view name) const {
  return std::any_of(of_unread_.begin(), of_unread_.end(),
                     [&](std::string_view known) { return Alike(known, name); });
}

}  // namespace metaprotocol
