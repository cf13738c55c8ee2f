// Bytes that have come and are not yet used up. Taking from the front moves nothing, so that a
// buffer full of small messages can be used up one by one.
#pragma once

#include <cstddef>
#include <string>

#include "src/base/out_buffer.h"
#include "src/codec/bytes.h"

namespace metaprotocol {

class InputBuffer {
 public:
  // Once the buffer is empty, more memory than `keep` bytes is given back.
  explicit InputBuffer(size_t keep) : keep_(keep) {}

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
    ClearKeeping(bytes_, keep_);
  }

 private:
  const size_t keep_;
  std::string bytes_;
  size_t begin_ = 0;
};

}  // namespace metaprotocol
