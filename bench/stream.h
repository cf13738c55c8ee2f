// Sockets of the benchmark's programs: one thread, epoll, loopback only.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

namespace bench {

[[noreturn]] inline void Die(const std::string& why) {
  std::fprintf(stderr, "bench: %s\n", why.c_str());
  std::exit(2);
}

inline sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// A non-blocking stream with output that waits for the peer. Owns the descriptor.
class Stream {
 public:
  Stream(int epoll, int fd, void* tag) : epoll_(epoll), fd_(fd), tag_(tag) {
    const int on = 1;
    setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(fd_, F_SETFL, fcntl(fd_, F_GETFL) | O_NONBLOCK);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = tag_;
    epoll_ctl(epoll_, EPOLL_CTL_ADD, fd_, &event);
  }
  ~Stream() { close(fd_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  std::string& out() { return out_; }

  // Sends what it can. False: the connection is broken.
  bool Flush() {
    while (sent_ < out_.size()) {
      const ssize_t n = send(fd_, out_.data() + sent_, out_.size() - sent_, MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EAGAIN) break;
      if (n <= 0) return false;
      sent_ += static_cast<size_t>(n);
    }
    const bool blocked = sent_ < out_.size();
    if (!blocked) {
      out_.clear();
      sent_ = 0;
    }
    if (blocked != waiting_) {
      waiting_ = blocked;
      epoll_event event{};
      event.events = EPOLLIN | (waiting_ ? static_cast<uint32_t>(EPOLLOUT) : 0U);
      event.data.ptr = tag_;
      epoll_ctl(epoll_, EPOLL_CTL_MOD, fd_, &event);
    }
    return true;
  }

  // Reads once and hands everything unread to `consume`, which returns how many bytes it took or
  // -1. False: the connection is broken.
  template <typename Consume>
  bool Read(Consume consume) {
    static std::vector<char> buffer(size_t{1} << 20);
    const ssize_t n = recv(fd_, buffer.data(), buffer.size(), 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return true;
    if (n <= 0) return false;
    std::string_view bytes(buffer.data(), static_cast<size_t>(n));
    if (!in_.empty()) {
      in_ += bytes;
      bytes = in_;
    }
    const int64_t taken = consume(bytes);
    if (taken < 0) return false;
    if (in_.empty()) {
      in_ = bytes.substr(static_cast<size_t>(taken));
    } else {
      in_.erase(0, static_cast<size_t>(taken));
    }
    return true;
  }

 private:
  const int epoll_;
  const int fd_;
  void* const tag_;
  std::string in_;
  std::string out_;
  size_t sent_ = 0;
  bool waiting_ = false;
};

inline int Listen(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  const sockaddr_in address = Loopback(port);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      listen(fd, 4096) != 0) {
    Die("cannot listen on port " + std::to_string(port));
  }
  return fd;
}

inline int PortOf(int fd) {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.sin_port);
}

}  // namespace bench
