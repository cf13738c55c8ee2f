// The addresses that choose a route table: "10.0.0.1:20880", "[fd00::1]:20880", "10.0.0.1:*",
// "*:20880".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace metaprotocol {

// `text` in the one way of writing it (IPv6 addresses have several), or nothing if it is no
// destination.
std::optional<std::string> NormalizeDestination(std::string_view text);

// How well a normalized destination fits the address and port that a connection was accepted on: 0:
// not at all; more is more specific.
int DestinationFit(std::string_view destination, std::string_view address, uint32_t port);

}  // namespace metaprotocol
