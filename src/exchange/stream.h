// What an exchange that is a stream has besides what every exchange has.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace metaprotocol {

// One direction of a stream: what its receiver has let its sender send (kStreamWindow), as far as
// that is passed on.
//
// The windows that a stream begins with are the peers' own affair. What is granted later passes
// through here: never more than the receiver has granted, nothing while the receiver does not take
// what it has been sent, and never more than kMostAhead ahead of what has come. So a sender that
// keeps to its window cannot have more than that, and what the stream began with, kept for a
// receiver that stalls, whatever that one has granted.
class StreamWindow {
 public:
  static constexpr uint64_t kMostAhead = uint64_t{256} << 10;

  // By the receiver.
  void Granted(uint64_t bytes) {
    held_ += std::min(bytes, std::numeric_limits<uint64_t>::max() - held_);
  }
  // Data has come from the sender. Counted as on the wire, which is more than the protocol may
  // count: too much is then granted early, never too little.
  void Sent(size_t bytes) { ahead_ -= std::min<uint64_t>(ahead_, bytes); }

  bool holds_any() const { return held_ != 0; }
  // How much more the sender may be granted now.
  uint64_t Take(bool receiver_stalls) {
    if (receiver_stalls || ahead_ >= kMostAhead) return 0;
    const uint64_t bytes = std::min(held_, kMostAhead - ahead_);
    if (bytes < held_ && bytes < kMostAhead / 4) return 0;  // not in crumbs
    held_ -= bytes;
    ahead_ += bytes;
    return bytes;
  }
  // A new grant of that much may go as it is.
  bool TakeWhole(uint64_t bytes, bool receiver_stalls) {
    if (receiver_stalls || held_ != 0 || bytes > kMostAhead - ahead_) return false;
    ahead_ += bytes;
    return true;
  }

 private:
  uint64_t held_ = 0;   // granted, and not passed on
  uint64_t ahead_ = 0;  // passed on, and nothing sent for it; kMostAhead at most
};

struct StreamState {
  bool client_done = false;  // sends no more
  bool server_done = false;
  bool answered = false;  // something has come from the server
  StreamWindow to_server;
  StreamWindow to_client;
  uint64_t active_us = 0;    // when the last message was passed on
  uint64_t stalled_us = 0;   // since when the client's next message waits for the server; 0: none
  uint64_t deadline_us = 0;  // the client's own; 0: none
};

}  // namespace metaprotocol
