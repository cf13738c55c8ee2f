// The metadata keys that anybody looks at, numbered when a configuration is loaded. A codec fills
// the slots of these numbers in each message's Metadata, and conditions compare slots: what else a
// message says costs nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace metaprotocol {

// A key of the protocol's own: its place in CodecTraits::metadata_keys, which is also its slot.
using OwnKey = uint32_t;

// Names are compared without the case of ASCII letters: "Method" is the protocol's own `method`,
// and "BatchJob" is an attachment `batchjob` if the message has none that is written "BatchJob".
class MetadataKeys {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;

  // CodecTraits::metadata_keys and keys_of_unread.
  explicit MetadataKeys(std::span<const std::string_view> own = {},
                        std::span<const std::string_view> of_unread = {});
  // All that messages say is wanted, and kept under its own name: for people to read.
  static MetadataKeys Everything(std::span<const std::string_view> own);

  // The slot of `name`, which is wanted from now on.
  uint32_t Want(std::string_view name);
  // The same; and messages tell in which other cases of letters peers write it
  // (Metadata::spellings).
  uint32_t WantSpellings(std::string_view name);

  size_t size() const { return names_.size(); }
  size_t own() const { return own_; }
  std::string_view name(uint32_t slot) const { return names_[slot]; }
  bool everything() const { return everything_; }
  bool wants(uint32_t slot) const { return wanted_[slot] != 0; }
  bool wants_spellings(uint32_t slot) const { return wanted_[slot] == kWithSpellings; }
  // Anything that peers name (attachments, headers), as opposed to the protocol's own keys.
  bool wants_named() const { return everything_ || names_.size() > own_; }
  // Whether a message that nobody here can read (Metadata::SetUnread) says this all the same.
  bool KnownOfUnread(std::string_view name) const;
  // The slot that `name` is read from; kNone if it is not wanted.
  uint32_t Find(std::string_view name) const;

  // Calls `each(slot, exact)` for the slots that an entry which a peer calls `name` can fill: never
  // one of the protocol's own. `exact`: the key is written like that.
  template <class Each>
  void ForEachNamed(std::string_view name, Each each) const {
    if (!MayBeNamed(name)) return;
    for (uint32_t slot = FirstAlike(name); slot != kNone; slot = next_alike_[slot]) {
      if (slot >= own_) each(slot, names_[slot] == name);
    }
  }
  // Whether ForEachNamed would call anything.
  bool WantsNamed(std::string_view name) const {
    bool wanted = false;
    ForEachNamed(name, [&](uint32_t, bool) { wanted = true; });
    return wanted;
  }
  // Whether a peer's `name` is one of the protocol's own.
  bool IsOwn(std::string_view name) const { return FirstAlike(name) < own_; }

 private:
  static uint64_t LengthBit(std::string_view name) {
    return uint64_t{1} << (name.size() < 63 ? name.size() : 63);
  }
  // Nearly all names that nobody wants are told by their length.
  bool MayBeNamed(std::string_view name) const { return (named_lengths_ & LengthBit(name)) != 0; }
  // Of the keys that equal `name` but for the case of letters; kNone if there are none.
  uint32_t FirstAlike(std::string_view name) const;
  uint32_t Add(std::string_view name);
  void Grow();

  std::vector<std::string> names_;  // by slot; the protocol's own first
  static constexpr uint8_t kWithSpellings = 2;
  std::vector<uint8_t> wanted_;  // 0, 1 or kWithSpellings
  size_t own_ = 0;
  std::vector<std::string> of_unread_;
  bool everything_ = false;
  uint64_t named_lengths_ = 0;
  // An open-addressed table, at most half full, of the first of those keys that are alike...
  std::vector<uint32_t> table_;
  std::vector<uint32_t> next_alike_;  // ...and the next of them, by slot
};

}  // namespace metaprotocol
