// Reuses objects instead of freeing them, so that a steady load allocates nothing: an object keeps
// the capacity of its strings and vectors from one use to the next.
#pragma once

#include <memory>
#include <utility>
#include <vector>

namespace metaprotocol {

template <typename T>
class ObjectPool {
 public:
  // `arguments` are for the constructor of an object that is not reused.
  template <typename... Arguments>
  T& Acquire(Arguments&&... arguments) {
    if (free_.empty()) {
      all_.push_back(std::make_unique<T>(std::forward<Arguments>(arguments)...));
      return *all_.back();
    }
    T* object = free_.back();
    free_.pop_back();
    return *object;
  }
  void Release(T& object) { free_.push_back(&object); }

 private:
  std::vector<std::unique_ptr<T>> all_;
  std::vector<T*> free_;
};

}  // namespace metaprotocol
