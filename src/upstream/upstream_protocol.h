// A protocol as the worker hub knows it.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "src/codec/codec.h"
#include "src/config/cluster_policy.h"

namespace metaprotocol {

// What requests must have in common to use the same leases. Whoever sends them makes one of these
// and keeps it up to date; another codec or mode is another object.
struct UpstreamProtocol {
  std::string name;  // label `protocol` of metrics
  std::shared_ptr<const Codec> codec;
  UpstreamMode mode = UpstreamMode::kShared;
  Interest response_interest;                         // nothing, unless filters look at replies...
  std::shared_ptr<const MetadataKeys> response_keys;  // ...and who keeps what it points to
  size_t max_message_bytes = 0;                       // of a reply
  size_t stream_message_bytes = 0;  // longer messages may be passed on as they arrive
  bool retired = false;             // another one has taken its place
};

}  // namespace metaprotocol
