// Gathering what an event causes, so that it is written once.
#pragma once

#include <cstddef>
#include <string>

namespace metaprotocol {

// Bytes from this size on are written straight from where they are instead of being gathered first.
inline constexpr size_t kDirectWriteBytes = 8192;

// Empties `buffer`; if it holds more than `keep` bytes of memory, those are given back.
inline void ClearKeeping(std::string& buffer, size_t keep) {
  if (buffer.capacity() > keep) {
    std::string().swap(buffer);
  } else {
    buffer.clear();
  }
}

// For what there may be a hundred thousand of.
inline constexpr size_t kKeepLittle = 1024;
inline void ClearKeepingLittle(std::string& buffer) { ClearKeeping(buffer, kKeepLittle); }

// For leases, which are few, and go when they are idle.
inline constexpr size_t kKeepMuch = size_t{256} << 10;
inline void ClearKeepingMuch(std::string& buffer) { ClearKeeping(buffer, kKeepMuch); }

}  // namespace metaprotocol
