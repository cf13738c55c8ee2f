// Reuses objects instead of freeing them, so that a steady load allocates nothing: an object keeps
// the capacity of its strings and vectors from one use to the next.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "src/base/intrusive_list.h"

namespace metaprotocol {

// Owns its objects, those in use too. T is not final.
template <typename T>
class ObjectPool {
 public:
  // So many are kept for reuse: what a burst has needed beyond that is given back as it ends.
  static constexpr size_t kMostFree = 1024;

  ObjectPool() = default;
  ~ObjectPool() {
    while (!used_.empty()) Take(used_.front());
  }
  ObjectPool(const ObjectPool&) = delete;
  ObjectPool& operator=(const ObjectPool&) = delete;

  // `arguments` are for the constructor of an object that is not reused.
  template <typename... Arguments>
  T& Acquire(Arguments&&... arguments) {
    if (free_.empty()) {
      free_.push_back(std::make_unique<Node>(std::forward<Arguments>(arguments)...));
    }
    Node& node = *free_.back().release();
    free_.pop_back();
    used_.PushBack(node);
    return node;
  }
  void Release(T& object) {
    std::unique_ptr<Node> node = Take(static_cast<Node&>(object));
    if (free_.size() < kMostFree) free_.push_back(std::move(node));
  }

  size_t free_count() const { return free_.size(); }

 private:
  struct PoolLink : ListLink {};
  struct Node final : T, PoolLink {
    using T::T;
  };

  static std::unique_ptr<Node> Take(Node& node) {
    IntrusiveList<Node, PoolLink>::Remove(node);
    return std::unique_ptr<Node>(&node);
  }

  IntrusiveList<Node, PoolLink> used_;
  std::vector<std::unique_ptr<Node>> free_;
};

}  // namespace metaprotocol
