// Flow control towards a server: how many of the bytes written to one upstream connection may still
// lie in buffers of this process, because the server does not read.
//
// Whether somebody waits for an answer does not matter here: messages without reply, requests that
// were given up, copies and answers to heartbeats take memory like any other. A reply proves
// nothing either, since a server may answer what it has not read. The only proof is the host's: it
// is asked from time to time (a probe) to tell when the server has taken what was written before.
//
// A position is the number of bytes that have been written, or wait to be.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace metaprotocol {

class FlowControl {
 public:
  // The host is asked once for this many bytes: rarely enough to cost nothing, and often enough for
  // what is not asked about not to matter beside what the host may keep in any case.
  static constexpr size_t kMostUnprobed = size_t{256} << 10;

  // `bound`: what the connection may owe at most. Whoever writes sees to it.
  explicit FlowControl(size_t bound)
      : probe_every_(std::clamp<size_t>(bound / 8, 1, kMostUnprobed)) {}

  // Bytes before `position` that the server is not known to have taken. So few that no probe was
  // worth its while count as taken.
  size_t Owed(uint64_t position) const {
    const uint64_t unproven = position - taken_;
    return unproven < probe_every_ ? 0 : static_cast<size_t>(unproven);
  }

  bool WantsProbe(uint64_t position) const {
    return !probing_ && position - taken_ >= probe_every_;
  }
  // The host was asked, behind `position`.
  void Probed(uint64_t position) {
    probing_ = true;
    probed_at_ = position;
  }
  // The host's answer.
  void Drained() {
    if (!probing_) return;
    probing_ = false;
    taken_ = probed_at_;
  }

 private:
  size_t probe_every_;
  uint64_t taken_ = 0;
  uint64_t probed_at_ = 0;
  bool probing_ = false;
};

}  // namespace metaprotocol
