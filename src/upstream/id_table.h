// Correlation ids of upstream connections, and who waits under each on one that is shared.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace metaprotocol {

class Attempt;

// On leases that serve one request at a time ids are random: those of messages without reply are
// this and above, those of requests below it. All fit 31 bits.
inline constexpr uint64_t kExclusiveOneWayId = uint64_t{1} << 30;

// Ids count upwards from a random one and are never given twice, so a reply that comes after its
// request was given up cannot be taken for another's, not even on a connection that went through
// the pool meanwhile. A ring of slots finds the holder of an id in one step: an id whose slot is
// still taken by a slow request is left out.
class IdTable {
 public:
  // The 31-bit range is positive in protocols with signed 32-bit ids.
  static constexpr uint64_t kMax32 = 0x7fffffff;

  // Begins in the lower half of all ids.
  static IdTable BeginningAnywhere(int id_bits, uint64_t random) {
    return IdTable(id_bits, 1 + random % (MaxId(id_bits) / 2));
  }
  IdTable(int id_bits, uint64_t first_id)
      : max_id_(MaxId(id_bits)),
        last_at_ease_(max_id_ - (max_id_ >> 8)),
        first_(first_id),
        next_(first_id),
        slots_(kInitialSlots) {}

  // 0: ids are used up, the connection must be replaced.
  uint64_t Insert(Attempt* attempt) {
    if (used_ * 2 >= slots_.size()) Grow();
    while (At(next_).id != 0) ++next_;
    if (next_ > max_id_) return 0;
    At(next_) = {next_, attempt};
    ++used_;
    return next_++;
  }

  // Null: nobody waits for that id.
  Attempt* Find(uint64_t id) const {
    const Slot& slot = slots_[id & (slots_.size() - 1)];
    return slot.id == id ? slot.attempt : nullptr;
  }

  // Nothing more is expected under that id.
  void Erase(uint64_t id) {
    Slot& slot = At(id);
    if (slot.id != id || slot.attempt == nullptr) return;
    slot = {};
    --used_;
  }

  // Nobody waits under that id any more, but a reply may still come.
  void GiveUp(uint64_t id) {
    Slot& slot = At(id);
    if (slot.id != id || slot.attempt == nullptr) return;
    slot.attempt = nullptr;
    ++given_up_;
  }
  // The reply to one that was given up has come. False: it is no such id, or not for the first
  // time.
  bool CameLate(uint64_t id) {
    Slot& slot = At(id);
    if (id == 0 || slot.id != id || slot.attempt != nullptr) return false;
    slot = {};
    --used_;
    --given_up_;
    return true;
  }
  // How many replies may still come that nobody waits for.
  size_t given_up() const { return given_up_; }

  // Whether a request was ever sent under that id.
  bool Issued(uint64_t id) const { return id >= first_ && id < next_; }
  bool NearlyExhausted() const { return next_ > last_at_ease_; }

 private:
  static constexpr size_t kInitialSlots = 64;  // a power of two, as every size
  struct Slot {
    uint64_t id = 0;             // 0: the slot is free
    Attempt* attempt = nullptr;  // null: it was given up
  };

  static constexpr uint64_t MaxId(int id_bits) {
    return id_bits == 32 ? kMax32 : uint64_t{1} << 62;
  }
  Slot& At(uint64_t id) { return slots_[id & (slots_.size() - 1)]; }

  // Ids that differ modulo n differ modulo 2n, so nothing collides.
  void Grow() {
    std::vector<Slot> old(slots_.size() * 2);
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.id != 0) At(slot.id) = slot;
    }
  }

  const uint64_t max_id_;
  const uint64_t last_at_ease_;  // beyond it they are nearly exhausted
  const uint64_t first_;
  uint64_t next_;
  size_t used_ = 0;  // slots, those of given up ones too
  size_t given_up_ = 0;
  std::vector<Slot> slots_;
};

}  // namespace metaprotocol
