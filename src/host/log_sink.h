// Where lines about requests go: a file that somebody else writes.
#pragma once

#include <cstdint>

#include "src/codec/bytes.h"

namespace metaprotocol {

// Any number of workers may have the same one.
class LogSink {
 public:
  virtual ~LogSink() = default;

  // One line, with its end: copied, or lost if too much waits already. Never waits for a disk.
  virtual void Write(Bytes line) = 0;
  // How many lines were lost since this was last asked, by anybody: because too much waited, or
  // because they could not be written.
  virtual uint64_t TakeLost() = 0;
};

}  // namespace metaprotocol
