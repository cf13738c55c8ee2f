// How many connections all workers have open to a cluster for the requests of one priority.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

namespace metaprotocol {

// Its law: never more than `most` are counted at a time but for those that were let in anyway.
class ConnectionCount {
 public:
  explicit ConnectionCount(uint32_t most) : most_(most) {}

  uint32_t most() const { return most_; }
  uint32_t count() const { return count_.load(std::memory_order_relaxed); }

 private:
  friend class ConnectionToken;

  bool Enter() {
    uint32_t count = count_.load(std::memory_order_relaxed);
    while (count < most_) {
      if (count_.compare_exchange_weak(count, count + 1, std::memory_order_relaxed)) return true;
    }
    return false;
  }
  void EnterAnyway() { count_.fetch_add(1, std::memory_order_relaxed); }
  void Leave() { count_.fetch_sub(1, std::memory_order_relaxed); }

  const uint32_t most_;
  std::atomic<uint32_t> count_ = 0;
};

// The right to one connection, as long as it is open. Outlives the policy that it was given by.
class ConnectionToken {
 public:
  ConnectionToken() = default;
  ~ConnectionToken() { Return(); }
  ConnectionToken(ConnectionToken&& other) noexcept = default;
  ConnectionToken& operator=(ConnectionToken&& other) noexcept {
    if (this == &other) return *this;
    Return();
    count_ = std::move(other.count_);
    return *this;
  }

  // False: there are as many as may be. `anyway`: then, too, there may be this one.
  bool Take(const std::shared_ptr<ConnectionCount>& count, bool anyway) {
    if (anyway) {
      count->EnterAnyway();
    } else if (!count->Enter()) {
      return false;
    }
    count_ = count;
    return true;
  }

 private:
  void Return() {
    if (count_ != nullptr) count_->Leave();
    count_.reset();
  }

  std::shared_ptr<ConnectionCount> count_;
};

}  // namespace metaprotocol
