// Reuses objects instead of freeing them, so that a steady load allocates nothing: an object keeps
// the capacity of its strings and vectors from one use to the next.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

namespace metaprotocol {

// Owns its objects, those in use too. T is not final.
template <typename T>
class ObjectPool {
 public:
  // So many are kept for reuse: what a burst has needed beyond that is given back as it ends.
  static constexpr size_t kMostFree = 1024;

  ObjectPool() = default;
  ObjectPool(const ObjectPool&) = delete;
  ObjectPool& operator=(const ObjectPool&) = delete;

  // `arguments` are for the constructor of an object that is not reused.
  template <typename... Arguments>
  T& Acquire(Arguments&&... arguments) {
    if (free_.empty()) return Make(std::forward<Arguments>(arguments)...);
    Node* const node = free_.back();
    free_.pop_back();
    return *node;
  }
  void Release(T& object) {
    Node& node = static_cast<Node&>(object);
    if (free_.size() < kMostFree) {
      free_.push_back(&node);
    } else {
      Destroy(node);
    }
  }

  size_t free_count() const { return free_.size(); }

 private:
  struct Node final : T {
    using T::T;
    size_t index = 0;  // in `all_`
  };

  template <typename... Arguments>
  [[gnu::noinline]] T& Make(Arguments&&... arguments) {
    Node& node = *all_.emplace_back(std::make_unique<Node>(std::forward<Arguments>(arguments)...));
    node.index = all_.size() - 1;
    return node;
  }
  [[gnu::noinline]] void Destroy(Node& node) {
    all_.back()->index = node.index;
    std::swap(all_[node.index], all_.back());
    all_.pop_back();
  }

  std::vector<std::unique_ptr<Node>> all_;
  std::vector<Node*> free_;
};

}  // namespace metaprotocol
