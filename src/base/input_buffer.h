// Bytes that have come and are not yet used up. Taking from the front moves nothing, so that a
// buffer full of small messages can be used up one by one.
#pragma once

#include <cstddef>
#include <string>

#include "src/codec/bytes.h"

namespace metaprotocol {

class InputBuffer {
 public:
  // Memory beyond this is given back once the buffer is empty.
  static constexpr size_t kKeepCapacity = size_t{256} << 10;

  // Valid until the next change.
  Bytes view() const { return Bytes(bytes_).substr(begin_); }
  size_t size() const { return bytes_.size() - begin_; }
  bool empty() const { return size() == 0; }

  void Append(Bytes bytes) {
    if (begin_ > bytes_.size() / 2) {  // moves less than was taken since the last time
      bytes_.erase(0, begin_);
      begin_ = 0;
    }
    bytes_.append(bytes);
  }
  // Takes `n` bytes, of size() at most, from the front.
  void Consume(size_t n) {
    begin_ += n;
    if (begin_ != bytes_.size()) return;
    begin_ = 0;
    if (bytes_.capacity() > kKeepCapacity) {
      std::string().swap(bytes_);
    } else {
      bytes_.clear();
    }
  }

 private:
  std::string bytes_;
  size_t begin_ = 0;
};

}  // namespace metaprotocol
