#include "src/route/match_input.h"

#include <algorithm>

namespace metaprotocol {
namespace {

size_t ConnectionSlot(std::string_view key) {
  const auto* const it = std::find(kConnectionKeys.begin(), kConnectionKeys.end(), key);
  return static_cast<size_t>(it - kConnectionKeys.begin());
}

bool Repeats(std::string_view key) { return key == kPeerUriSanKey || key == kPeerDnsSanKey; }

}  // namespace

void ConnectionMetadata::Add(std::string_view key, std::string_view value) {
  const size_t slot = ConnectionSlot(key);
  if (slot == kConnectionKeys.size()) return;
  if (first_[slot].data() == nullptr) {
    first_[slot] = value.data() == nullptr ? std::string_view("") : value;
  } else if (Repeats(key)) {
    more_.push_back({slot, value});
  }
}

KeyRef::KeyRef(std::string_view name, MetadataKeys& keys)
    : name_(name),
      of_connection_(IsConnectionKey(name)),
      slot_(of_connection_ ? static_cast<uint32_t>(ConnectionSlot(name)) : keys.Want(name)) {}

bool KeyRef::repeats() const { return of_connection_ && Repeats(name_); }

}  // namespace metaprotocol
