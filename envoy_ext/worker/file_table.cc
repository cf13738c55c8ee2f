#include "envoy_ext/worker/file_table.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>

namespace metaprotocol::envoy {
namespace {

// 128 KiB in the kernel. Beyond, growing is rare.
constexpr rlim_t kFiles = 16384;

}  // namespace

void MakeRoomForFiles() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == 0) return;
  const int file = eventfd(0, EFD_CLOEXEC);
  if (file < 0) return;
  const int last = static_cast<int>(std::min(limit.rlim_cur, kFiles) - 1);
  const int highest = fcntl(file, F_DUPFD_CLOEXEC, last);
  if (highest >= 0) close(highest);
  close(file);
}

}  // namespace metaprotocol::envoy
