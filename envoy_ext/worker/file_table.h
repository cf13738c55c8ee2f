// The process's table of open files, as far as it can hold up a worker.
#pragma once

namespace metaprotocol::envoy {

// Has the kernel make the table large enough for many connections now.
//
// It grows by itself when it is full, the first time at 64 files and then by doubling. In a process
// of several threads the kernel waits until none of them looks at the old one (synchronize_rcu in
// fs/file.c), which takes 10 ms and more, and the worker that has accepted one connection too many
// serves nobody meanwhile. To be called on the main thread, while Envoy starts.
void MakeRoomForFiles();

}  // namespace metaprotocol::envoy
