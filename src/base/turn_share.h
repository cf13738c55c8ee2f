// How many messages are handled in one turn of the host's loop, so that none waits for long because
// one peer sends many.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace metaprotocol {

class TurnShare {
 public:
  // So many bytes that come out of a compressed message are as much work as a small message.
  static constexpr size_t kUnpackedBytesOfOne = 512;

  // `most`: messages of each turn. The first one is still to be taken up.
  explicit TurnShare(size_t most) : most_(most) {}
  // For what has to be handled whatever it takes.
  static TurnShare Boundless() {
    TurnShare share(std::numeric_limits<size_t>::max());
    share.Begin(0);
    return share;
  }

  // `turn` is the host's number of the present one. A new one has room again.
  void TakeUp(uint64_t turn) {
    if (turn != turn_) Begin(turn);
  }
  void Begin(uint64_t turn) {
    turn_ = turn;
    left_ = most_;
  }
  // One more message; false if it has to wait for the next turn.
  bool Take() {
    if (left_ == 0) return false;
    --left_;
    return true;
  }
  // What was taken meant more work than its bytes do.
  void TakeUnpacked(size_t bytes) { left_ -= std::min(left_, bytes / kUnpackedBytesOfOne); }
  bool over() const { return left_ == 0; }

 private:
  size_t most_;
  uint64_t turn_ = 0;
  size_t left_ = 0;
};

}  // namespace metaprotocol
