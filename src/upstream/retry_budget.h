// How many of a cluster's requests may be retries at a time. Without a bound a cluster that fails
// would get several times the load that it has failed under.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

namespace metaprotocol {

// One cluster's, on one worker.
class RetryBudget {
 public:
  size_t in_use() const { return in_use_; }

 private:
  friend class RetryToken;
  size_t in_use_ = 0;
};

// The right to one retry, from the decision (the pause before it counts, too) to its end. Outlives
// the cluster.
class RetryToken {
 public:
  RetryToken() = default;
  explicit RetryToken(std::shared_ptr<RetryBudget> budget) : budget_(std::move(budget)) {
    ++budget_->in_use_;
  }
  ~RetryToken() { Return(); }
  RetryToken(RetryToken&& other) noexcept = default;
  RetryToken& operator=(RetryToken&& other) noexcept {
    if (this == &other) return *this;
    Return();
    budget_ = std::move(other.budget_);
    return *this;
  }

  void Return() {
    if (budget_ != nullptr) --budget_->in_use_;
    budget_.reset();
  }

 private:
  std::shared_ptr<RetryBudget> budget_;
};

}  // namespace metaprotocol
