// Gathering what an event causes, so that it is written once.
#pragma once

#include <cstddef>
#include <string>

namespace metaprotocol {

// Bytes from this size on are written straight from where they are instead of being gathered first.
inline constexpr size_t kDirectWriteBytes = 8192;

// Empties `buffer`; one that grew large for one burst is given back.
inline void ClearKeepingLittle(std::string& buffer) {
  constexpr size_t kKeepCapacity = size_t{256} << 10;
  if (buffer.capacity() > kKeepCapacity) {
    std::string().swap(buffer);
  } else {
    buffer.clear();
  }
}

}  // namespace metaprotocol
