#include "envoy_ext/worker/file_table.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <string>

namespace metaprotocol::envoy {
namespace {

// As the kernel has it.
size_t TableSize() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("FDSize:")) return std::stoul(line.substr(7));
  }
  return 0;
}

TEST(FileTable, HasRoomForThousandsOfConnectionsBeforeTheyCome) {
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  MakeRoomForFiles();
  EXPECT_GE(TableSize(), std::min<size_t>(limit.rlim_cur, 16384));
  // It was only about the table.
  EXPECT_FALSE(std::ifstream("/proc/self/fd/16383").is_open());
}

}  // namespace
}  // namespace metaprotocol::envoy
