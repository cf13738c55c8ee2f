// Metadata: what a codec read from one message, as views into the message's own bytes. Routes,
// limits and filters match on it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <forward_list>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/codec/metadata_keys.h"

namespace metaprotocol {

// One value per key at most. The slots of the protocol's own keys are filled by SetOwn alone, so
// nothing that a peer puts into attachments or headers can stand in for them, or be taken for them
// where they are absent.
//
// Views stay valid as long as the decoded bytes do; text that is not contiguous in them is kept
// alive by `Own`. Objects are meant to be reused message after message, and then allocate nothing.
class Metadata {
 public:
  // Empties it, for a message of which `keys` are wanted (null: nothing); they must outlive what is
  // read from it.
  void Clear(const MetadataKeys* keys = nullptr) {
    for (const uint32_t slot : filled_) slots_[slot].rank = Rank::kAbsent;
    filled_.clear();
    others_.clear();
    if (!owned_.empty()) owned_.clear();
    if (!spellings_.empty()) spellings_.clear();
    alternative_slot_ = MetadataKeys::kNone;
    unread_ = false;
    keys_ = keys;
    if (keys != nullptr && slots_.size() < keys->size()) slots_.resize(keys->size());
  }

  // --- for codecs

  bool Wants(OwnKey key) const { return keys_ != nullptr && keys_->wants(key); }
  bool WantsNamed(std::string_view name) const {
    return keys_ != nullptr && (keys_->everything() || keys_->WantsNamed(name));
  }
  void SetOwn(OwnKey key, std::string_view value) {
    if (Wants(key)) Fill(key, value, Rank::kExact);
  }
  // Another way to write what SetOwn was given: conditions hold if either satisfies them.
  void SetAlternative(OwnKey key, std::string_view value) {
    if (!Wants(key)) return;
    alternative_slot_ = key;
    alternative_ = value;
  }
  // What a peer put under `name`. A later call for the same name replaces the value, which is what
  // readers of maps do; a codec whose peers keep the first asks first.
  void SetNamed(std::string_view name, std::string_view value) {
    if (keys_ == nullptr) return;
    if (keys_->everything()) {
      if (!keys_->IsOwn(name)) others_.push_back({std::string(name), std::string(value)});
      return;
    }
    keys_->ForEachNamed(name, [&](uint32_t slot, bool exact) {
      if (!exact && keys_->wants_spellings(slot)) AddSpelling(name);
      Fill(slot, value, exact ? Rank::kExact : Rank::kOtherCase);
    });
  }
  // What a peer put under `name` is nothing that can be told. It replaces a text from before it, as
  // readers of maps do, and such a text must not be taken for what the server sees.
  void SetNamedUntold(std::string_view name) {
    if (keys_ == nullptr) return;
    if (keys_->everything()) {
      if (!keys_->IsOwn(name)) others_.push_back({std::string(name), "", false});
      return;
    }
    keys_->ForEachNamed(name, [&](uint32_t slot, bool exact) {
      if (!exact && keys_->wants_spellings(slot)) AddSpelling(name);
      if (exact && slots_[slot].rank == Rank::kExact) slots_[slot].rank = Rank::kReplaced;
    });
  }
  // The same for a value that is not contiguous in the message. It is kept once for each key,
  // however often a message repeats that.
  void SetNamedCopy(std::string_view name, const std::string& value);
  // What is said of a message without a codec, in tests and previews: its own keys by their names,
  // and then what peers name.
  void Set(std::string_view name, std::string_view value) {
    const uint32_t slot = keys_ == nullptr ? MetadataKeys::kNone : keys_->Find(name);
    if (keys_ != nullptr && slot < keys_->own()) {
      SetOwn(slot, value);
    } else {
      SetNamed(name, value);
    }
  }
  // The message is passed on although nobody here can read what it says: keys that are not set may
  // have a value all the same, of which the server knows.
  void SetUnread() { unread_ = true; }
  // Keeps `text` alive until Clear() and returns a view of it: for values of the protocol's own.
  std::string_view Own(std::string text) { return owned_.emplace_front(std::move(text)); }

  // --- for those who look

  std::optional<std::string_view> Get(uint32_t slot) const {
    if (slot >= slots_.size() || slots_[slot].rank <= Rank::kReplaced) return std::nullopt;
    return slots_[slot].view();
  }
  bool unread() const { return unread_; }
  bool has_alternative() const { return alternative_slot_ != MetadataKeys::kNone; }
  std::optional<std::string_view> Alternative(uint32_t slot) const {
    if (slot != alternative_slot_) return std::nullopt;
    return alternative_;
  }
  // By name; slower than by slot.
  std::optional<std::string_view> Find(std::string_view name) const;
  // How peers have written keys of MetadataKeys::WantSpellings, where that is not as we do; once
  // each, and no more than kMostSpellings.
  const std::vector<std::string>& spellings() const { return spellings_; }
  bool too_many_spellings() const { return spellings_.size() > kMostSpellings; }
  static constexpr size_t kMostSpellings = 32;
  // All there is, in order of the slots and then of appearance.
  std::vector<std::pair<std::string_view, std::string_view>> Entries() const;

  // The bytes that the views point into have been copied to `to`.
  void Rebase(std::string_view from, const char* to);
  // `view` itself unless it lies within `from`.
  static std::string_view Rebased(std::string_view view, std::string_view from, const char* to) {
    const std::less<> before;
    if (before(view.data(), from.data()) || !before(view.data(), from.data() + from.size())) {
      return view;
    }
    return {to + (view.data() - from.data()), view.size()};
  }

 private:
  // kReplaced: by what cannot be told.
  enum class Rank : uint8_t { kAbsent, kReplaced, kOtherCase, kExact };
  struct Slot {
    const char* data = nullptr;
    size_t size = 0;
    Rank rank = Rank::kAbsent;
    std::string copy = {};  // SetNamedCopy
    std::string_view view() const { return {data, size}; }
  };

  void Fill(uint32_t slot, std::string_view value, Rank rank) {
    Slot& target = slots_[slot];
    if (rank < target.rank) return;
    if (target.rank == Rank::kAbsent) filled_.push_back(slot);
    target.data = value.data();
    target.size = value.size();
    target.rank = rank;
  }

  void AddSpelling(std::string_view name);

  const MetadataKeys* keys_ = nullptr;
  std::vector<Slot> slots_;
  std::vector<uint32_t> filled_;
  uint32_t alternative_slot_ = MetadataKeys::kNone;
  std::string_view alternative_;
  bool unread_ = false;
  // Where everything is wanted: what peers named, as it came.
  struct Other {
    std::string name;
    std::string value;
    bool told = true;
  };
  std::vector<Other> others_;
  std::forward_list<std::string> owned_;
  std::vector<std::string> spellings_;  // one more than kMostSpellings at most
};

}  // namespace metaprotocol
