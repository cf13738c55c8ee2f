// A file that workers write lines to without ever waiting for a disk: a thread of its own writes
// them, and what it does not keep up with is lost and counted.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "src/host/log_sink.h"

namespace metaprotocol::envoy {

// The file of that name, opened when there is something to write; all that ask while somebody has
// it get the same. "/dev/stdout" and "/dev/stderr" are this process's own.
//
// What waits for the thread is bounded (kMostWaiting bytes); a file that was moved away or deleted
// is made anew; one that cannot be opened or written is tried again each second. Once nobody has it
// any more, what waits is still written.
std::shared_ptr<LogSink> OpenLogFile(std::string_view path);

// What may wait for a file to take it.
inline constexpr size_t kMostWaiting = size_t{1} << 20;

}  // namespace metaprotocol::envoy
