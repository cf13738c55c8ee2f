#include "src/config/destination.h"

#include <arpa/inet.h>

#include <array>
#include <charconv>

namespace metaprotocol {
namespace {

constexpr std::string_view kAny = "*";

// An IP address as inet_ntop writes it, which is how hosts report theirs.
std::optional<std::string> NormalizeAddress(const std::string& address, int family) {
  std::array<unsigned char, sizeof(in6_addr)> bytes{};
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (inet_pton(family, address.c_str(), bytes.data()) != 1) return std::nullopt;
  if (inet_ntop(family, bytes.data(), text.data(), text.size()) == nullptr) return std::nullopt;
  return text.data();
}

bool ParsePort(std::string_view text, uint32_t& port) {
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc() && rest == text.data() + text.size() && port >= 1 && port <= 65535;
}

}  // namespace

std::optional<std::string> NormalizeDestination(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || text.find('\0') != std::string_view::npos) {
    return std::nullopt;
  }
  std::string address(text.substr(0, colon));
  const std::string_view port_text = text.substr(colon + 1);
  uint32_t port = 0;
  if (port_text != kAny && !ParsePort(port_text, port)) return std::nullopt;
  if (address.starts_with('[') && address.ends_with(']')) {
    const auto normal = NormalizeAddress(address.substr(1, address.size() - 2), AF_INET6);
    if (!normal) return std::nullopt;
    address = "[" + *normal + "]";
  } else if (address != kAny) {
    const auto normal = NormalizeAddress(address, AF_INET);
    if (!normal) return std::nullopt;
    address = *normal;
  }
  return address + ":" + (port_text == kAny ? std::string(kAny) : std::to_string(port));
}

int DestinationFit(std::string_view destination, std::string_view address, uint32_t port) {
  const size_t colon = destination.rfind(':');
  if (colon == std::string_view::npos) return 0;
  std::string_view wanted_address = destination.substr(0, colon);
  const std::string_view wanted_port = destination.substr(colon + 1);
  if (wanted_address.starts_with('[') && wanted_address.ends_with(']')) {
    wanted_address = wanted_address.substr(1, wanted_address.size() - 2);
  }
  int fit = 1;
  if (wanted_address != kAny) {
    if (wanted_address != address) return 0;
    fit += 2;
  }
  if (wanted_port != kAny) {
    uint32_t number = 0;
    if (!ParsePort(wanted_port, number) || number != port) return 0;
    fit += 1;
  }
  return fit;
}

}  // namespace metaprotocol
