// A list of views, as Envoy hands over its buffers and as the engine takes them. Short lists, which
// is nearly all, need no allocation.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "envoy_ext/abi/abi.h"
#include "src/codec/bytes.h"

namespace metaprotocol::envoy {

class Slices {
 public:
  // Room for `count` slices, which the caller lets Envoy fill in.
  explicit Slices(size_t count) : count_(count) {
    if (count > kInline) {
      more_buffers_.resize(count);
      more_views_.resize(count);
    }
  }
  Slices(const Slices&) = delete;
  Slices& operator=(const Slices&) = delete;

  abi::Buffer* buffers() { return count_ > kInline ? more_buffers_.data() : buffers_.data(); }

  // The first `count` slices as views. Call once, after filling in.
  std::span<const Bytes> Views(size_t count) {
    if (count > count_) count = count_;
    const abi::Buffer* from = buffers();
    Bytes* to = count_ > kInline ? more_views_.data() : reinterpret_cast<Bytes*>(views_.data());
    for (size_t i = 0; i < count; ++i) {
      std::construct_at(to + i, from[i].view());
      total_bytes_ += from[i].length;
    }
    return {to, count};
  }
  std::span<const Bytes> Views() { return Views(count_); }

  size_t total_bytes() const { return total_bytes_; }

 private:
  static constexpr size_t kInline = 16;
  size_t count_;
  size_t total_bytes_ = 0;
  std::array<abi::Buffer, kInline> buffers_;
  // Room for kInline views: as an array of them all would be filled in each time.
  alignas(Bytes) std::array<std::byte, kInline * sizeof(Bytes)> views_;
  std::vector<abi::Buffer> more_buffers_;
  std::vector<Bytes> more_views_;
};

}  // namespace metaprotocol::envoy
