#include "src/route/address_range.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <cstring>

namespace metaprotocol {
namespace {

constexpr AddressBytes kV4Prefix = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
constexpr uint32_t kV4PrefixBits = 96;

bool SameBits(const AddressBytes& a, const AddressBytes& b, uint32_t bits) {
  const uint32_t whole = bits / 8;
  if (!std::equal(a.begin(), a.begin() + whole, b.begin())) return false;
  const uint32_t rest = bits % 8;
  return rest == 0 || (a[whole] ^ b[whole]) >> (8 - rest) == 0;
}

bool IsV4(const AddressBytes& address) { return SameBits(address, kV4Prefix, kV4PrefixBits); }

}  // namespace

std::optional<AddressBytes> ParseAddress(std::string_view text) {
  std::array<char, INET6_ADDRSTRLEN> terminated{};
  if (text.size() >= terminated.size() || text.find('\0') != std::string_view::npos) {
    return std::nullopt;
  }
  std::copy(text.begin(), text.end(), terminated.begin());
  AddressBytes bytes = kV4Prefix;
  if (inet_pton(AF_INET, terminated.data(), bytes.data() + kV4PrefixBits / 8) == 1) return bytes;
  if (inet_pton(AF_INET6, terminated.data(), bytes.data()) == 1) return bytes;
  return std::nullopt;
}

std::optional<AddressRange> AddressRange::Parse(std::string_view text) {
  const size_t slash = text.find('/');
  const auto first = ParseAddress(text.substr(0, slash));
  if (!first) return std::nullopt;
  AddressRange range;
  range.first_ = *first;
  range.bits_ = 128;
  if (slash == std::string_view::npos) return range;
  const std::string_view number = text.substr(slash + 1);
  // As the address is written: ::ffff:10.0.0.0/104 and 10.0.0.0/8 are the same.
  const bool v4 = text.substr(0, slash).find(':') == std::string_view::npos;
  const uint32_t offset = v4 ? kV4PrefixBits : 0;
  uint32_t bits = 0;
  const auto [rest, error] = std::from_chars(number.data(), number.data() + number.size(), bits);
  if (error != std::errc() || rest != number.data() + number.size() || bits > 128 - offset) {
    return std::nullopt;
  }
  range.bits_ = offset + bits;
  return range;
}

bool AddressRange::Contains(const AddressBytes& address) const {
  if (IsV4(address) && bits_ < kV4PrefixBits) return false;
  return SameBits(address, first_, bits_);
}

}  // namespace metaprotocol
