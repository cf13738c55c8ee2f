// What the sessions of a worker hold in buffers all together, and which of them holds most.
#pragma once

#include <array>
#include <bit>
#include <cstddef>

#include "src/base/intrusive_list.h"

namespace metaprotocol {

struct BudgetLink : ListLink {};

// A session's part.
class BufferShare : public BudgetLink {
 public:
  ~BufferShare() { Unlink(); }
  size_t bytes() const { return bytes_; }

 private:
  friend class BufferBudget;
  size_t bytes_ = 0;
};

class BufferBudget {
 public:
  // Less than this is not worth a list.
  static constexpr size_t kLeast = 4096;

  // The share is `bytes` now.
  void Set(BufferShare& share, size_t bytes) {
    if (bytes < kLeast) bytes = 0;
    if (bytes == share.bytes_) return;
    total_ += bytes - share.bytes_;
    const size_t before = ClassOf(share.bytes_);
    share.bytes_ = bytes;
    if (before == ClassOf(bytes)) return;
    share.Unlink();
    if (bytes != 0) by_size_[ClassOf(bytes)].PushBack(share);
  }

  size_t total() const { return total_; }
  // One of those with most: no other has twice as much. Null if nobody has anything.
  BufferShare* Largest() {
    for (size_t i = by_size_.size(); i != 0; --i) {
      if (!by_size_[i - 1].empty()) return &by_size_[i - 1].front();
    }
    return nullptr;
  }

 private:
  static size_t ClassOf(size_t bytes) { return static_cast<size_t>(std::bit_width(bytes)); }

  size_t total_ = 0;
  std::array<IntrusiveList<BufferShare, BudgetLink>, 65> by_size_;  // by ClassOf
};

}  // namespace metaprotocol
