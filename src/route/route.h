// What a route is, after its configuration has been read and checked.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "src/codec/codec.h"
#include "src/codec/mutation.h"

namespace metaprotocol {

// Metadata keys that come from the connection, not from the message. A condition on one of them
// looks at the session.
inline constexpr std::string_view kConnectionKeyPrefix = "connection.";
inline constexpr std::string_view kSourceAddressKey = "connection.source_address";
inline constexpr std::string_view kDestinationAddressKey = "connection.destination_address";
inline constexpr std::string_view kDestinationPortKey = "connection.destination_port";
inline constexpr std::string_view kSniKey = "connection.sni";
inline constexpr std::string_view kPeerUriSanKey = "connection.peer_uri_san";  // may repeat
inline constexpr std::string_view kPeerDnsSanKey = "connection.peer_dns_san";  // may repeat
inline constexpr std::string_view kPeerSubjectKey = "connection.peer_subject";

struct Route {
  uint32_t index = 0;  // within its snapshot, over all tables, from 0
  std::string name;    // never empty: "<table>/<position>" if none was given

  // Exactly one of: clusters (one or several), a direct reply.
  struct WeightedCluster {
    std::string name;
    uint32_t weight = 1;
  };
  std::vector<WeightedCluster> clusters;
  // Order in which a worker uses `clusters`, as indices, evenly interleaved; its length is the sum
  // of the weights divided by their greatest common divisor. Empty for a single cluster.
  std::vector<uint16_t> schedule;

  // Clusters that get copies of the requests.
  struct Mirror {
    std::string cluster;
    uint64_t chance = kAlways;  // of kAlways, that a request is copied
  };
  static constexpr uint64_t kAlways = uint64_t{1} << 32;
  std::vector<Mirror> mirrors;

  bool is_direct_reply = false;
  LocalReply direct_reply = LocalReply::kNoContent;
  std::string direct_reply_text;

  uint64_t timeout_us = 0;  // 0: none

  Mutation request_mutation;
  Mutation response_mutation;

  // Hashed together, in order, for ring hash and Maglev; kSourceAddressKey for the client address.
  std::vector<std::string> hash_keys;
};

}  // namespace metaprotocol
