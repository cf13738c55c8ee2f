// What a request is matched by: the message's metadata and what is known of its connection.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/codec/metadata.h"

namespace metaprotocol {

// Metadata keys that come from the connection, not from the message.
inline constexpr std::string_view kConnectionKeyPrefix = "connection.";
inline constexpr std::string_view kSourceAddressKey = "connection.source_address";
inline constexpr std::string_view kDestinationAddressKey = "connection.destination_address";
inline constexpr std::string_view kDestinationPortKey = "connection.destination_port";
inline constexpr std::string_view kSniKey = "connection.sni";
inline constexpr std::string_view kPeerUriSanKey = "connection.peer_uri_san";  // may repeat
inline constexpr std::string_view kPeerDnsSanKey = "connection.peer_dns_san";  // may repeat
inline constexpr std::string_view kPeerSubjectKey = "connection.peer_subject";

// The closed set of them; its order is that of ConnectionMetadata's slots.
inline constexpr std::array<std::string_view, 7> kConnectionKeys = {
    kSourceAddressKey, kDestinationAddressKey, kDestinationPortKey, kSniKey,
    kPeerUriSanKey,    kPeerDnsSanKey,         kPeerSubjectKey};

// Whether `key` names something of the connection rather than of the message.
inline bool IsConnectionKey(std::string_view key) { return key.starts_with(kConnectionKeyPrefix); }

// What a connection says of itself, under the keys above: views into what the session keeps.
class ConnectionMetadata {
 public:
  // Keys other than those above are left out, and further values of those that do not repeat.
  void Add(std::string_view key, std::string_view value);

  // The value of kConnectionKeys[slot]; the first, if there are several.
  std::optional<std::string_view> First(size_t slot) const {
    if (slot >= first_.size() || first_[slot].data() == nullptr) return std::nullopt;
    return first_[slot];
  }
  // Calls `each(value)` for every value until it returns true; says whether it did.
  template <class Each>
  bool Any(size_t slot, Each each) const {
    const std::optional<std::string_view> first = First(slot);
    if (!first) return false;
    if (each(*first)) return true;
    for (const More& more : more_) {
      if (more.slot == slot && each(more.value)) return true;
    }
    return false;
  }

 private:
  struct More {
    size_t slot;
    std::string_view value;
  };
  std::array<std::string_view, kConnectionKeys.size()> first_;
  std::vector<More> more_;  // of keys that repeat
};

// A condition on a key of the message looks at its one value, and at the other way to write that
// (Metadata::Alternative); one on a key of the connection holds if any of the values satisfies it.
// An inverted one holds if none does.
struct MatchInput {
  const Metadata& message;
  const ConnectionMetadata& connection;
};

// A key as configurations write it, resolved when they are loaded.
class KeyRef {
 public:
  // A key of the message is wanted from now on.
  KeyRef(std::string_view name, MetadataKeys& keys);

  const std::string& name() const { return name_; }
  bool of_connection() const { return of_connection_; }
  // Whether there can be more than one value.
  bool repeats() const;

  // The value; the first, if there are several.
  std::optional<std::string_view> Find(const MatchInput& input) const {
    return of_connection_ ? input.connection.First(slot_) : input.message.Get(slot_);
  }
  // Calls `each(value)` for every value that a condition looks at, until it returns true; says
  // whether it did.
  template <class Each>
  bool AnyValue(const MatchInput& input, Each each) const {
    if (of_connection_) return input.connection.Any(slot_, each);
    const std::optional<std::string_view> value = input.message.Get(slot_);
    if (!value) return false;
    if (each(*value)) return true;
    const std::optional<std::string_view> other = input.message.Alternative(slot_);
    return other && each(*other);
  }

 private:
  std::string name_;
  bool of_connection_;
  uint32_t slot_;  // of the message's metadata or of the connection's
};

}  // namespace metaprotocol
