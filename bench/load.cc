// Load generator and echo server for the benchmark: one thread, epoll, every reply checked.
//
//   load serve PROTOCOL[:PORT]...           servers on loopback; prints their ports, serves until
//                                           its standard input ends
//   load client PROTOCOL PORT [options]     sends requests, prints one line of JSON
//     --connections=N   (1)
//     --in-flight=N     (1) requests open on each connection: the closed loop, in which each reply
//                       triggers the next request
//     --rate=R          requests a second in all, on a fixed schedule: the open loop. Latency
//     counts
//                       from the time a request was due, not from when it could be sent, so that a
//                       stall shows in every request it delayed
//     --seconds=S       (2) measured time, after --warmup=S (0.2) and a reply on each connection
//     --bytes=N         (100) payload of requests and replies
//     --longer-replies  something may be added to replies on their way (dubbo and thrift)
//     --one-way=N       (0) messages without reply before each request (dubbo and thrift); they
//                       count like requests, answered when the request behind them is
//     --cpu-of=PID      report the CPU time that process used in the measured time
//     --hold            send one request on each connection, print, then keep the connections idle
//                       until standard input ends
//
// At its end a server prints how many messages without reply it has had.
//
// PROTOCOL is dubbo, thrift, http1 or (client only) http2. Exit code 0 also when requests failed:
// the JSON says so.
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "bench/histogram.h"
#include "bench/stream.h"
#include "bench/wire.h"

namespace bench {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;

uint64_t ClockNs(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return static_cast<uint64_t>(t.tv_sec) * kSecond + static_cast<uint64_t>(t.tv_nsec);
}
uint64_t NowNs() { return ClockNs(CLOCK_MONOTONIC); }

Protocol ParseProtocol(std::string_view name) {
  if (name == "dubbo") return Protocol::kDubbo;
  if (name == "thrift") return Protocol::kThrift;
  if (name == "http1") return Protocol::kHttp1;
  if (name == "http2") return Protocol::kHttp2;
  Die("no such protocol: " + std::string(name));
}

// --- server

struct Listener {
  Protocol protocol;
  int fd;
};

struct Served {
  Served(int epoll, int fd, Protocol protocol) : stream(epoll, fd, this), responder(protocol) {}
  Stream stream;
  Responder responder;
};

int Serve(const std::vector<std::string>& specs) {
  const int epoll = epoll_create1(0);
  std::vector<std::unique_ptr<Listener>> listeners;
  std::string ports;
  for (const std::string& spec : specs) {
    const size_t colon = spec.find(':');
    const std::string name = spec.substr(0, colon);
    const int port = colon == std::string::npos ? 0 : std::atoi(spec.c_str() + colon + 1);
    listeners.push_back(std::make_unique<Listener>(Listener{ParseProtocol(name), Listen(port)}));
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = listeners.back().get();
    epoll_ctl(epoll, EPOLL_CTL_ADD, listeners.back()->fd, &event);
    ports += (ports.empty() ? "" : ", ") + std::to_string(PortOf(listeners.back()->fd));
  }
  epoll_event input{};
  input.events = EPOLLIN;
  input.data.ptr = nullptr;
  epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &input);
  std::printf("{\"ports\": [%s]}\n", ports.c_str());
  std::fflush(stdout);

  uint64_t one_way = 0;
  std::unordered_map<void*, std::unique_ptr<Served>> clients;
  epoll_event events[256];
  for (;;) {
    const int count = epoll_wait(epoll, events, 256, -1);
    for (int i = 0; i < count; ++i) {
      void* tag = events[i].data.ptr;
      if (tag == nullptr) {
        std::printf("{\"one_way\": %lu}\n", one_way);
        return 0;
      }
      const auto client = clients.find(tag);
      if (client == clients.end()) {
        const auto* listener = static_cast<Listener*>(tag);
        const int fd = accept(listener->fd, nullptr, nullptr);
        if (fd < 0) continue;
        auto served = std::make_unique<Served>(epoll, fd, listener->protocol);
        clients.emplace(served.get(), std::move(served));
        continue;
      }
      Served* served = client->second.get();
      bool alive = true;
      if ((events[i].events & ~static_cast<uint32_t>(EPOLLOUT)) != 0) {
        alive = served->stream.Read([&](std::string_view bytes) {
          return served->responder.Answer(bytes, served->stream.out(), one_way);
        });
      }
      if (!alive || !served->stream.Flush()) clients.erase(client);
    }
  }
}

// --- client

struct Options {
  Protocol protocol = Protocol::kDubbo;
  std::string protocol_name;
  int port = 0;
  uint32_t connections = 1;
  uint32_t in_flight = 1;
  double rate = 0;  // 0: closed loop
  double seconds = 2;
  double warmup = 0.2;
  size_t bytes = 100;
  bool longer_replies = false;
  uint32_t one_way = 0;
  int cpu_of = 0;
  bool hold = false;
};

class Client {
 public:
  explicit Client(const Options& options) : options_(options), epoll_(epoll_create1(0)) {
    if (options_.cpu_of != 0 && clock_getcpuclockid(options_.cpu_of, &cpu_clock_) != 0) {
      Die("no process " + std::to_string(options_.cpu_of));
    }
    for (uint32_t i = 0; i < options_.connections; ++i) {
      connections_.push_back(std::make_unique<Connection>());
      Open(*connections_.back());
    }
  }

  void Run() {
    const uint64_t begin = NowNs();
    measure_from_ = begin + Ns(options_.warmup);
    measure_to_ = measure_from_ + Ns(options_.seconds);
    next_due_ = begin;
    interval_ = options_.rate > 0 ? kSecond / options_.rate : 0;
    if (options_.rate <= 0) {
      for (auto& connection : connections_) {
        for (uint32_t i = 0; i < options_.in_flight; ++i) Send(*connection, NowNs());
        Finish(*connection, connection->stream->Flush());
      }
    }
    uint64_t now = begin;
    for (; now < measure_to_ && failed_ <= kTooManyFailures; now = NowNs()) {
      if (!measuring_ && now >= measure_from_) {
        // Not before every connection works all the way, but not forever either.
        if (warm_ >= connections_.size() || now >= measure_from_ + 5 * kSecond) {
          StartMeasuring(now);
        } else {
          measure_to_ = now + Ns(options_.seconds);
        }
      }
      if (options_.rate > 0) SendDue(now);
      const uint64_t edge = measuring_ || now >= measure_from_ ? measure_to_ : measure_from_;
      Poll(options_.rate > 0 ? std::min(edge, NextDue()) : edge, now);
    }
    StopMeasuring(now);
    Drain(now + 3 * kSecond);
  }

  // One request on each connection, one after the other, then nothing: the proxy needs no more
  // upstream connections than it keeps for idle clients.
  void Hold() {
    measure_from_ = 0;
    sending_ = false;
    StartMeasuring(NowNs());
    for (auto& connection : connections_) {
      Send(*connection, NowNs());
      Finish(*connection, connection->stream->Flush());
      Drain(NowNs() + 5 * kSecond);
    }
    StopMeasuring(NowNs());
    Print();
    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0) {
    }
  }

  void Print() const {
    const double seconds = static_cast<double>(measured_ns_) / kSecond;
    const double requests = static_cast<double>(std::max<uint64_t>(answered_, 1));
    std::printf(
        "{\"protocol\": \"%s\", \"connections\": %u, \"in_flight\": %u, \"bytes\": %zu, "
        "\"rate\": %.1f, \"seconds\": %.3f, \"requests\": %lu, \"failed\": %lu, "
        "\"one_way\": %lu, \"requests_per_second\": %.1f, \"cpu_us_per_request\": %.3f, "
        "\"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f}\n",
        options_.protocol_name.c_str(), options_.connections, options_.in_flight, options_.bytes,
        options_.rate, seconds, answered_, failed_, sent_one_way_,
        seconds > 0 ? static_cast<double>(answered_) / seconds : 0.0,
        static_cast<double>(cpu_ns_) / 1e3 / requests,
        static_cast<double>(latency_.Percentile(50)) / 1e3,
        static_cast<double>(latency_.Percentile(99)) / 1e3,
        static_cast<double>(latency_.max()) / 1e3);
    std::fflush(stdout);
  }

 private:
  static constexpr uint64_t kTooManyFailures = 1000;

  struct Connection {
    std::unique_ptr<Stream> stream;
    std::unique_ptr<Caller> caller;
    std::vector<uint64_t> due;  // of the open request in each slot; 0: none
    std::vector<uint32_t> free_slots;
    std::deque<uint64_t> waiting;  // requests that were due while all slots were taken
    uint32_t open = 0;
    bool warm = false;  // it has had a reply
  };

  static uint64_t Ns(double seconds) { return static_cast<uint64_t>(seconds * kSecond); }

  void Open(Connection& connection) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    const sockaddr_in address = Loopback(options_.port);
    if (fd < 0) Die("no more connections can be opened: raise the limit of open files");
    if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      Die("cannot connect to port " + std::to_string(options_.port));
    }
    connection.stream = std::make_unique<Stream>(epoll_, fd, &connection);
    connection.caller = Caller::Create(options_.protocol, options_.bytes, options_.longer_replies);
    connection.due.clear();
    connection.free_slots.clear();
    connection.open = 0;
    connection.caller->Begin(connection.stream->out());
  }

  void Send(Connection& connection, uint64_t due) {
    if (connection.free_slots.empty()) {
      if (connection.due.size() == kSlots) {
        connection.waiting.push_back(due);
        return;
      }
      connection.free_slots.push_back(static_cast<uint32_t>(connection.due.size()));
      connection.due.push_back(0);
    }
    const uint32_t slot = connection.free_slots.back();
    connection.free_slots.pop_back();
    connection.due[slot] = due;
    ++connection.open;
    for (uint32_t i = 0; i < options_.one_way; ++i) {
      connection.caller->CallOneWay(connection.stream->out());
    }
    sent_one_way_ += options_.one_way;
    connection.caller->Call(slot, connection.stream->out());
  }

  uint64_t NextDue() const { return static_cast<uint64_t>(next_due_); }

  void SendDue(uint64_t now) {
    for (; NextDue() <= now; next_due_ += interval_) {
      Connection& connection = *connections_[next_connection_];
      next_connection_ = (next_connection_ + 1) % connections_.size();
      Send(connection, NextDue());
      Finish(connection, connection.stream->Flush());
    }
  }

  void Poll(uint64_t until, uint64_t now) {
    epoll_event events[256];
    const uint64_t wait = until > now ? until - now : 0;
    const timespec timeout{static_cast<time_t>(wait / kSecond), static_cast<long>(wait % kSecond)};
    const int count = epoll_pwait2(epoll_, events, 256, &timeout, nullptr);
    for (int i = 0; i < count; ++i) {
      auto& connection = *static_cast<Connection*>(events[i].data.ptr);
      bool alive = true;
      if ((events[i].events & ~static_cast<uint32_t>(EPOLLOUT)) != 0) {
        alive = connection.stream->Read([&](std::string_view bytes) {
          return connection.caller->Receive(
              bytes, connection.stream->out(),
              [&](uint32_t slot, bool ok) { OnReply(connection, slot, ok); });
        });
      }
      Finish(connection, alive && connection.stream->Flush());
    }
  }

  void OnReply(Connection& connection, uint32_t slot, bool ok) {
    const uint64_t now = NowNs();
    const uint64_t due = connection.due[slot];
    connection.due[slot] = 0;
    if (!std::exchange(connection.warm, true)) ++warm_;
    connection.free_slots.push_back(slot);
    --connection.open;
    if (!ok) {
      ++failed_;
    } else if (measuring_) {
      answered_ += 1 + options_.one_way;
      // With a schedule, only what was due in the measured time counts.
      if (options_.rate <= 0 || due >= measure_from_) latency_.Record(now - due);
    }
    if (!connection.waiting.empty()) {
      const uint64_t waited = connection.waiting.front();
      connection.waiting.pop_front();
      Send(connection, waited);
    } else if (sending_ && options_.rate <= 0) {
      Send(connection, now);
    }
  }

  // A connection that broke takes its open requests with it; a new one takes its place.
  void Finish(Connection& connection, bool alive) {
    if (alive) return;
    failed_ += std::max<uint32_t>(connection.open, 1);
    if (failed_ > kTooManyFailures) return;
    Open(connection);
    if (sending_ && options_.rate <= 0) {
      for (uint32_t i = 0; i < options_.in_flight; ++i) Send(connection, NowNs());
    }
    if (!connection.stream->Flush()) ++failed_;
  }

  void StartMeasuring(uint64_t now) {
    measuring_ = true;
    measure_from_ = now;
    measure_to_ = now + Ns(options_.seconds);
    if (options_.cpu_of != 0) cpu_ns_ = ClockNs(cpu_clock_);
  }

  void StopMeasuring(uint64_t now) {
    if (options_.cpu_of != 0) cpu_ns_ = ClockNs(cpu_clock_) - cpu_ns_;
    measured_ns_ = now - measure_from_;
    // Replies that are still to come belong to the schedule's latency, but not to the throughput.
    answered_in_time_ = answered_;
    sending_ = false;
  }

  // Waits for the replies that are still open: one that never comes is a failure.
  void Drain(uint64_t deadline) {
    const auto open = [&] {
      uint64_t sum = 0;
      for (const auto& connection : connections_) {
        sum += connection->open + connection->waiting.size();
      }
      return sum;
    };
    for (uint64_t now = NowNs(); open() > 0 && now < deadline && failed_ <= kTooManyFailures;
         now = NowNs()) {
      Poll(std::min(deadline, now + kSecond / 20), now);
    }
    failed_ += open();
    if (measured_ns_ > 0) answered_ = answered_in_time_;
  }

  const Options options_;
  const int epoll_;
  clockid_t cpu_clock_{};
  std::vector<std::unique_ptr<Connection>> connections_;

  uint64_t measure_from_ = 0;
  uint64_t measure_to_ = 0;
  uint64_t measured_ns_ = 0;
  bool measuring_ = false;
  bool sending_ = true;

  double next_due_ = 0;  // of the schedule, nanoseconds
  double interval_ = 0;
  size_t next_connection_ = 0;

  size_t warm_ = 0;  // connections that have had a reply
  uint64_t answered_ = 0;
  uint64_t answered_in_time_ = 0;
  uint64_t sent_one_way_ = 0;
  uint64_t failed_ = 0;
  uint64_t cpu_ns_ = 0;
  Histogram latency_;
};

// The value of "--name=value", if that is what `argument` is.
std::optional<std::string> Value(std::string_view argument, std::string_view name) {
  if (!argument.starts_with(name) || argument.substr(name.size(), 1) != "=") return std::nullopt;
  return std::string(argument.substr(name.size() + 1));
}

int RunClient(const std::vector<std::string>& arguments) {
  if (arguments.size() < 2) Die("usage: load client PROTOCOL PORT [options]");
  Options options;
  options.protocol_name = arguments[0];
  options.protocol = ParseProtocol(arguments[0]);
  options.port = std::atoi(arguments[1].c_str());
  for (size_t i = 2; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (const auto v = Value(argument, "--connections")) {
      options.connections = static_cast<uint32_t>(std::atoi(v->c_str()));
    } else if (const auto v = Value(argument, "--in-flight")) {
      options.in_flight = static_cast<uint32_t>(std::atoi(v->c_str()));
    } else if (const auto v = Value(argument, "--rate")) {
      options.rate = std::atof(v->c_str());
    } else if (const auto v = Value(argument, "--seconds")) {
      options.seconds = std::atof(v->c_str());
    } else if (const auto v = Value(argument, "--warmup")) {
      options.warmup = std::atof(v->c_str());
    } else if (const auto v = Value(argument, "--bytes")) {
      options.bytes = static_cast<size_t>(std::atoll(v->c_str()));
    } else if (const auto v = Value(argument, "--one-way")) {
      options.one_way = static_cast<uint32_t>(std::atoi(v->c_str()));
    } else if (const auto v = Value(argument, "--cpu-of")) {
      options.cpu_of = std::atoi(v->c_str());
    } else if (argument == "--longer-replies") {
      options.longer_replies = true;
    } else if (argument == "--hold") {
      options.hold = true;
    } else {
      Die("unknown option " + argument);
    }
  }
  if (options.connections == 0 || options.in_flight == 0 || options.in_flight > kSlots) {
    Die("connections and in-flight must be positive, and in-flight at most 1024");
  }
  if (options.one_way != 0 && options.protocol != Protocol::kDubbo &&
      options.protocol != Protocol::kThrift) {
    Die("only dubbo and thrift have messages without reply");
  }
  Client client(options);
  if (options.hold) {
    client.Hold();
  } else {
    client.Run();
    client.Print();
  }
  return 0;
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  prctl(PR_SET_TIMERSLACK, 1);  // the schedule's times are microseconds apart

  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const std::vector<std::string> rest(arguments.begin() + (arguments.empty() ? 0 : 1),
                                      arguments.end());
  if (!rest.empty() && arguments[0] == "serve") return bench::Serve(rest);
  if (!rest.empty() && arguments[0] == "client") return bench::RunClient(rest);
  bench::Die("usage: load serve PROTOCOL[:PORT]... | load client PROTOCOL PORT [options]");
}
