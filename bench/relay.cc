// The floor: what relaying Dubbo frames costs when nothing else is done. One thread, epoll, one
// upstream connection shared by all clients, ids rewritten both ways, one write per connection and
// wake-up; no routes, limits, timeouts or defence against anything. The distance to it is what
// everything else costs.
//
//   relay UPSTREAM_PORT      listens on loopback, prints its port, relays until its standard input
//                            ends
#include <sys/prctl.h>
#include <sys/resource.h>

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "bench/stream.h"
#include "bench/wire.h"

namespace bench {
namespace {

struct Client {
  Client(int epoll, int fd) : stream(epoll, fd, this) {}
  Stream stream;
  bool dirty = false;
};

// Who waits for the reply under an id, and under which id it knows the request.
struct Waiting {
  Client* client = nullptr;
  uint64_t id = 0;
};

class Relay {
 public:
  explicit Relay(int upstream_port) : epoll_(epoll_create1(0)), listener_(Listen(0)) {
    Watch(listener_, &listener_);
    Watch(STDIN_FILENO, nullptr);
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    const sockaddr_in address = Loopback(upstream_port);
    if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      Die("cannot connect to port " + std::to_string(upstream_port));
    }
    upstream_ = std::make_unique<Stream>(epoll_, fd, &upstream_);
  }

  void Run() {
    std::printf("{\"ports\": [%d]}\n", PortOf(listener_));
    std::fflush(stdout);
    epoll_event events[256];
    for (;;) {
      const int count = epoll_wait(epoll_, events, 256, -1);
      for (int i = 0; i < count; ++i) {
        void* tag = events[i].data.ptr;
        const bool readable = (events[i].events & ~static_cast<uint32_t>(EPOLLOUT)) != 0;
        if (tag == nullptr) return;
        if (tag == &listener_) {
          Accept();
        } else if (tag == &upstream_) {
          if (readable) ReadReplies();
        } else {
          ReadRequests(*static_cast<Client*>(tag), readable);
        }
      }
      if (!upstream_->Flush()) Die("the upstream connection was closed");
      for (Client* client : dirty_) {
        client->dirty = false;
        if (!client->stream.Flush()) gone_.push_back(client);
      }
      dirty_.clear();
      for (Client* client : gone_) Forget(client);
      gone_.clear();
    }
  }

 private:
  void Watch(int fd, void* tag) const {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = tag;
    epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
  }

  void Accept() {
    const int fd = accept(listener_, nullptr, nullptr);
    if (fd < 0) return;
    auto client = std::make_unique<Client>(epoll_, fd);
    clients_.emplace(client.get(), std::move(client));
  }

  void ReadRequests(Client& client, bool readable) {
    const bool alive = !readable || client.stream.Read([&](std::string_view bytes) {
      size_t taken = 0;
      while (const size_t length = MessageLength(Protocol::kDubbo, bytes.substr(taken))) {
        const std::string_view request = bytes.substr(taken, length);
        std::string& out = upstream_->out();
        const size_t at = out.size();
        out += request;
        if ((request[2] & kDubboTwoWay) != 0) {
          metaprotocol::StoreBe64(&out[at + kDubboId],
                                  Enter({&client, LoadBe64(&request[kDubboId])}));
        }
        taken += length;
      }
      return static_cast<int64_t>(taken);
    });
    if (!alive || !client.stream.Flush()) gone_.push_back(&client);
  }

  void ReadReplies() {
    const bool alive = upstream_->Read([&](std::string_view bytes) {
      size_t taken = 0;
      while (const size_t length = MessageLength(Protocol::kDubbo, bytes.substr(taken))) {
        const std::string_view reply = bytes.substr(taken, length);
        const uint64_t id = LoadBe64(&reply[kDubboId]);
        if (id >= waiting_.size()) return int64_t{-1};
        const Waiting waiting = waiting_[id];
        free_.push_back(id);
        if (Client* client = waiting.client) {
          std::string& out = client->stream.out();
          const size_t at = out.size();
          out += reply;
          metaprotocol::StoreBe64(&out[at + kDubboId], waiting.id);
          if (!client->dirty) dirty_.push_back(client);
          client->dirty = true;
        }
        taken += length;
      }
      return static_cast<int64_t>(taken);
    });
    if (!alive) Die("the upstream connection was closed");
  }

  uint64_t Enter(Waiting waiting) {
    if (free_.empty()) {
      free_.push_back(waiting_.size());
      waiting_.emplace_back();
    }
    const uint64_t id = free_.back();
    free_.pop_back();
    waiting_[id] = waiting;
    return id;
  }

  void Forget(Client* client) {
    if (clients_.erase(client) == 0) return;
    for (Waiting& waiting : waiting_) {
      if (waiting.client == client) waiting.client = nullptr;
    }
  }

  const int epoll_;
  int listener_;
  std::unique_ptr<Stream> upstream_;
  std::unordered_map<Client*, std::unique_ptr<Client>> clients_;
  std::vector<Client*> dirty_;
  std::vector<Client*> gone_;
  std::vector<Waiting> waiting_;
  std::vector<uint64_t> free_;
};

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
  if (argc != 2) bench::Die("usage: relay UPSTREAM_PORT");
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  bench::Relay(std::atoi(argv[1])).Run();
}
