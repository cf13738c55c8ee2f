// Files that access logs are written to: whole lines, in their order, and nobody waits for a disk.
#include "envoy_ext/log_writer/log_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace metaprotocol::envoy {
namespace {

using std::chrono::milliseconds;

class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "log_file.XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string operator/(std::string_view name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

std::string Read(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// However busy the machine is.
template <typename Condition>
bool Comes(Condition condition) {
  for (int i = 0; i < 3000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(milliseconds(10));
  }
  return false;
}

TEST(LogFile, LinesOfAllWorkersAreThereOnceEach) {
  const Folder folder;
  constexpr size_t kLines = 5000;
  {
    std::vector<std::thread> workers;
    for (const char* name : {"a", "b", "c"}) {
      workers.emplace_back([&folder, name] {
        const auto log = OpenLogFile(folder / "log");
        for (size_t i = 0; i < kLines; ++i) log->Write(std::string(name) + "\n");
      });
    }
    for (std::thread& worker : workers) worker.join();
  }
  EXPECT_TRUE(Comes([&] { return Read(folder / "log").size() == 3 * kLines * 2; }));
  std::string text = Read(folder / "log");
  std::sort(text.begin(), text.end());
  EXPECT_EQ(text, std::string(3 * kLines, '\n') + std::string(kLines, 'a') +
                      std::string(kLines, 'b') + std::string(kLines, 'c'));
}

TEST(LogFile, ThatWasMovedAwayIsMadeAnew) {
  const Folder folder;
  const auto log = OpenLogFile(folder / "log");
  log->Write("one\n");
  ASSERT_TRUE(Comes([&] { return Read(folder / "log") == "one\n"; }));
  std::filesystem::rename(folder / "log", folder / "log.1");
  size_t written = 0;
  ASSERT_TRUE(Comes([&] {
    log->Write("two\n");
    ++written;
    return std::filesystem::exists(folder / "log");
  }));
  const auto lines = [&] { return Read(folder / "log").size() + Read(folder / "log.1").size(); };
  EXPECT_TRUE(Comes([&] { return lines() == 4 * (written + 1); }));
  EXPECT_EQ(log->TakeLost(), 0u);
}

TEST(LogFile, ThatCannotBeOpenedLosesItsLinesAndIsTriedAgain) {
  const Folder folder;
  const std::string path = folder / "later/log";
  const auto log = OpenLogFile(path);
  log->Write("one\n");
  uint64_t lost = 0;
  ASSERT_TRUE(Comes([&] { return (lost += log->TakeLost()) == 1; }));
  std::filesystem::create_directory(folder / "later");
  ASSERT_TRUE(Comes([&] {
    log->Write("two\n");
    return std::filesystem::exists(path);
  }));
}

TEST(LogFile, OnADiskThatIsFullLosesAndCountsWhatDoesNotFit) {
  if (access("/dev/full", W_OK) != 0) GTEST_SKIP() << "there is no /dev/full";
  const auto log = OpenLogFile("/dev/full");
  uint64_t lost = 0;
  for (int i = 0; i < 100; ++i) log->Write("line\n");
  EXPECT_TRUE(Comes([&] { return (lost += log->TakeLost()) == 100; })) << lost;
}

// A pipe that nobody reads: its writer waits for ever, and the workers not at all.
TEST(LogFile, ThatTakesNothingHoldsUpNobodyAndCostsABoundedAmount) {
  const Folder folder;
  const std::string path = folder / "pipe";
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  const int reader = open(path.c_str(), O_RDONLY | O_NONBLOCK);
  ASSERT_GE(reader, 0);
  const std::string line = std::string(1023, 'x') + "\n";
  constexpr size_t kLines = 20'000;  // 20 MB
  {
    const auto log = OpenLogFile(path);
    for (size_t i = 0; i < kLines; ++i) log->Write(line);
    const uint64_t lost = log->TakeLost();
    // Twice what may wait, one of them being written, and what the pipe holds.
    EXPECT_GE(lost, kLines - (2 * kMostWaiting + 128 * 1024) / line.size());
    EXPECT_LT(lost, kLines);
  }
  close(reader);  // the writer's write fails, and it ends
}

}  // namespace
}  // namespace metaprotocol::envoy
