// What a route is, after its configuration has been read and checked.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "src/base/priority.h"
#include "src/codec/codec.h"
#include "src/codec/mutation.h"
#include "src/route/match_input.h"
#include "src/route/retry_policy.h"

namespace metaprotocol {

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
  // Never 0 but for 0.
  static uint64_t ChanceOf(double percent) {
    return static_cast<uint64_t>(std::ceil(percent / 100 * static_cast<double>(kAlways)));
  }
  std::vector<Mirror> mirrors;

  bool is_direct_reply = false;
  LocalReply direct_reply = LocalReply::kNoContent;
  std::string direct_reply_text;

  uint64_t timeout_us = 0;  // 0: none
  // Null: what has no connection yet may get another host's, and that is all.
  std::shared_ptr<const RetryPolicy> retry;

  Priority priority = Priority::kDefault;  // of its requests, but not of their copies

  Mutation request_mutation;
  Mutation response_mutation;

  // Hashed together, in order, for ring hash and Maglev; kSourceAddressKey for the client address.
  std::vector<KeyRef> hash_keys;
};

}  // namespace metaprotocol
