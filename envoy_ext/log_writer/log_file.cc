#include "envoy_ext/log_writer/log_file.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace metaprotocol::envoy {
namespace {

using std::chrono::steady_clock;

// A line is written this long after it came at the latest, unless the file is slow; at once where
// so much waits.
constexpr auto kWriteInterval = std::chrono::milliseconds(100);
constexpr size_t kWriteEarly = kMostWaiting / 4;
// How often it is looked whether the file is still the one of that name.
constexpr auto kLookInterval = std::chrono::seconds(1);
// How long the end of the process waits for lines to be written.
constexpr auto kFarewell = std::chrono::milliseconds(500);

size_t CountLines(std::string_view text) {
  size_t lines = 0;
  for (const char c : text) lines += c == '\n' ? 1 : 0;
  return lines;
}

// What workers and the writing thread share. The mutex is held for as long as it takes to copy one
// line, or to swap two strings: never while a system call is under way.
struct Shared {
  std::mutex mutex;
  std::condition_variable wake;
  std::string waiting;
  bool closing = false;
  bool done = false;
  std::condition_variable finished;
  std::atomic<uint64_t> lost{0};
};

// All below runs on the writing thread.
class Writer {
 public:
  Writer(std::string path, std::shared_ptr<Shared> shared)
      : path_(std::move(path)), shared_(std::move(shared)) {}
  ~Writer() { Close(); }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  void Run() {
    std::string lines;
    bool closing = false;
    while (!closing) {
      lines.clear();
      {
        std::unique_lock lock(shared_->mutex);
        shared_->wake.wait(lock, [&] { return shared_->closing || !shared_->waiting.empty(); });
        // More lines for each write.
        shared_->wake.wait_for(lock, kWriteInterval, [&] {
          return shared_->closing || shared_->waiting.size() >= kWriteEarly;
        });
        closing = shared_->closing;
        std::swap(lines, shared_->waiting);
      }
      WriteAll(lines);
    }
    const std::lock_guard lock(shared_->mutex);
    shared_->done = true;
    shared_->finished.notify_all();
  }

 private:
  void WriteAll(std::string_view lines) {
    if (lines.empty()) return;
    LookAfterFile();
    // Half a line may stand there from a write that failed.
    if (fd_ >= 0 && torn_ && write(fd_, "\n", 1) == 1) torn_ = false;
    while (fd_ >= 0 && !lines.empty()) {
      const ssize_t written = write(fd_, lines.data(), lines.size());
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) {
        Close();
        break;
      }
      torn_ = lines[static_cast<size_t>(written) - 1] != '\n';
      lines.remove_prefix(static_cast<size_t>(written));
    }
    if (!lines.empty()) shared_->lost += CountLines(lines);
  }

  void LookAfterFile() {
    const auto now = steady_clock::now();
    if (now < next_look_) return;
    next_look_ = now + kLookInterval;
    if (fd_ >= 0 && !IsStill()) Close();
    if (fd_ < 0) Open();
  }

  bool IsStandard() const { return path_ == "/dev/stdout" || path_ == "/dev/stderr"; }

  void Open() {
    fd_ = IsStandard()
              ? fcntl(path_ == "/dev/stdout" ? STDOUT_FILENO : STDERR_FILENO, F_DUPFD_CLOEXEC, 0)
              : open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  }
  void Close() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }
  // The open file has not been moved away.
  bool IsStill() const {
    if (IsStandard()) return true;
    struct stat open_file;
    struct stat named;
    return fstat(fd_, &open_file) == 0 && stat(path_.c_str(), &named) == 0 &&
           open_file.st_dev == named.st_dev && open_file.st_ino == named.st_ino;
  }

  const std::string path_;
  const std::shared_ptr<Shared> shared_;
  int fd_ = -1;
  bool torn_ = false;
  steady_clock::time_point next_look_;
};

class LogFile final : public LogSink {
 public:
  explicit LogFile(const std::string& path) : shared_(std::make_shared<Shared>()) {
    // Not joined: it may be held up by its disk for as long as that likes. It has nothing of this
    // object. Envoy's signals are not for it.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    std::thread([path, shared = shared_] { Writer(path, shared).Run(); }).detach();
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  ~LogFile() override { Finish(); }

  void Write(Bytes line) override {
    const std::lock_guard lock(shared_->mutex);
    if (shared_->waiting.size() + line.size() > kMostWaiting) {
      ++shared_->lost;
      return;
    }
    const size_t before = shared_->waiting.size();
    shared_->waiting.append(line);
    const bool much = before < kWriteEarly && shared_->waiting.size() >= kWriteEarly;
    if (before == 0 || much) shared_->wake.notify_one();
  }
  uint64_t TakeLost() override {
    if (shared_->lost.load(std::memory_order_relaxed) == 0) return 0;
    return shared_->lost.exchange(0);
  }

  void Finish() {
    const std::lock_guard lock(shared_->mutex);
    shared_->closing = true;
    shared_->wake.notify_one();
  }
  const std::shared_ptr<Shared>& shared() const { return shared_; }

 private:
  const std::shared_ptr<Shared> shared_;
};

// The files that are open.
class OpenFiles {
 public:
  static OpenFiles& Get() {
    static OpenFiles files;
    return files;
  }
  // The process ends: lines that came last are still written, if the disk is well.
  ~OpenFiles() {
    const auto deadline = steady_clock::now() + kFarewell;
    for (auto& [path, weak] : files_) {
      const std::shared_ptr<LogFile> file = weak.lock();
      if (file != nullptr) file->Finish();
    }
    for (const std::weak_ptr<Shared>& weak : threads_) {
      const std::shared_ptr<Shared> shared = weak.lock();
      if (shared == nullptr) continue;
      std::unique_lock lock(shared->mutex);
      shared->finished.wait_until(lock, deadline, [&] { return shared->done; });
    }
  }

  std::shared_ptr<LogSink> Open(std::string_view path) {
    const std::lock_guard lock(mutex_);
    std::weak_ptr<LogFile>& place = files_[std::string(path)];
    std::shared_ptr<LogFile> file = place.lock();
    if (file == nullptr) {
      file = std::make_shared<LogFile>(std::string(path));
      place = file;
      std::erase_if(files_, [](const auto& entry) { return entry.second.expired(); });
      std::erase_if(threads_, [](const auto& thread) { return thread.expired(); });
      threads_.push_back(file->shared());
    }
    return file;
  }

 private:
  std::mutex mutex_;
  std::map<std::string, std::weak_ptr<LogFile>, std::less<>> files_;
  std::vector<std::weak_ptr<Shared>> threads_;
};

}  // namespace

std::shared_ptr<LogSink> OpenLogFile(std::string_view path) { return OpenFiles::Get().Open(path); }

}  // namespace metaprotocol::envoy
