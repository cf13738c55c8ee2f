// Ranges of IP addresses, as conditions on addresses have them.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace metaprotocol {

// An IPv4 address is one of those that IPv6 has for it (::ffff:0:0/96), so that both ways to write
// it are the same.
using AddressBytes = std::array<uint8_t, 16>;

std::optional<AddressBytes> ParseAddress(std::string_view text);

class AddressRange {
 public:
  // "10.0.0.0/8", "fd00::/8", "10.0.0.7"; nothing for what is no range.
  static std::optional<AddressRange> Parse(std::string_view text);

  // Addresses of the other family are not.
  bool Contains(const AddressBytes& address) const;

 private:
  AddressBytes first_{};
  uint32_t bits_ = 0;  // of `first_` that an address must share
};

}  // namespace metaprotocol
