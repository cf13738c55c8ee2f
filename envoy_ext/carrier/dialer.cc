#include "envoy_ext/carrier/dialer.h"

#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <nlohmann/json.hpp>
#include <thread>

#include "envoy_ext/abi/log.h"
#include "envoy_ext/carrier/h2_client.h"
#include "src/codec/bytes.h"

namespace metaprotocol::envoy {
namespace {

constexpr auto kFirstPause = std::chrono::milliseconds(10);
constexpr auto kLongestPause = std::chrono::milliseconds(500);
// How long a connection may wait in the listener's backlog: at start-up until Envoy's workers run.
constexpr auto kAcceptTimeout = std::chrono::seconds(10);

// After that long without carriers it is worth a line in the log.
constexpr auto kPatience = std::chrono::seconds(5);

// A carrier is replaced when it has used up its stream ids but for this many, which cover the
// leases opened until the replacement is there.
constexpr uint32_t kSpareStreams = uint32_t{1} << 24;

// Connects to a unix socket; -1 if nobody listens there.
int Connect(const std::string& address) {
  sockaddr_un target{};
  target.sun_family = AF_UNIX;
  std::memcpy(target.sun_path, address.data(), address.size());
  socklen_t length = offsetof(sockaddr_un, sun_path) + address.size();
  if (address[0] == '@') {
    target.sun_path[0] = '\0';
  } else {
    ++length;  // the terminating NUL belongs to the path
  }
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  if (connect(fd, reinterpret_cast<const sockaddr*>(&target), length) != 0) {
    close(fd);
    return -1;
  }
  return fd;
}

}  // namespace

std::shared_ptr<CarrierConfig> ParseCarrierConfig(std::string_view json, std::string& error) {
  const auto parsed = nlohmann::json::parse(json, nullptr, false);
  if (!parsed.is_object()) {
    error = "the carrier's configuration must be an object: {\"address\": \"@name\"}";
    return nullptr;
  }
  auto config = std::make_shared<CarrierConfig>();
  config->last_stream = H2Client::kLastStream - kSpareStreams;
  for (const auto& [key, value] : parsed.items()) {
    if (key == "address" && value.is_string()) {
      config->address = value.get<std::string>();
    } else if (key == "streams_per_carrier" && value.is_number() && value.get<double>() >= 1 &&
               value.get<double>() <= (H2Client::kLastStream - kSpareStreams) / 2) {
      config->last_stream = static_cast<uint32_t>(value.get<double>()) * 2;
    } else {
      error = key +
              ": unknown field or wrong value; known are \"address\" (text) and "
              "\"streams_per_carrier\" (number)";
      return nullptr;
    }
  }
  const bool unix_address = config->address.size() > 1 &&
                            (config->address[0] == '@' || config->address[0] == '/') &&
                            config->address.size() < sizeof(sockaddr_un::sun_path);
  if (!unix_address) {
    error =
        "address: \"" + config->address +
        "\": must be the carrier listener's own unix socket, \"@name\" (abstract) or \"/path\", "
        "of at most 107 bytes";
    return nullptr;
  }
  return config;
}

Dialer& Dialer::Get() {
  static Dialer* const instance = std::unique_ptr<Dialer>(new Dialer()).release();
  return *instance;
}

Dialer::Dialer() : token_(kTokenBytes, '\0') {
  if (getrandom(token_.data(), token_.size(), 0) != static_cast<ssize_t>(token_.size())) {
    token_.clear();  // accepts nobody
  }
}

std::string Dialer::Greeting(uint64_t dial) const {
  std::string greeting = token_;
  AppendBe64(greeting, dial);
  return greeting;
}

std::optional<uint64_t> Dialer::CheckGreeting(std::string_view greeting) const {
  if (token_.size() != kTokenBytes || greeting.size() != kGreetingBytes) return std::nullopt;
  unsigned difference = 0;
  for (size_t i = 0; i < kTokenBytes; ++i) {
    difference |= static_cast<unsigned char>(greeting[i]) ^ static_cast<unsigned char>(token_[i]);
  }
  if (difference != 0) return std::nullopt;
  return LoadBe64(greeting.data() + kTokenBytes);
}

void Dialer::AddConfig(std::shared_ptr<CarrierConfig> config) {
  const std::lock_guard lock(mutex_);
  config->generation = next_generation_++;
  configs_.push_back(std::move(config));
  if (!running_) {
    running_ = true;
    std::thread([this] { Run(); }).detach();
  }
  changed_.notify_one();
}

void Dialer::RemoveConfig(const CarrierConfig& config) {
  const std::lock_guard lock(mutex_);
  std::erase_if(configs_, [&](const auto& live) { return live.get() == &config; });
  changed_.notify_one();
}

void Dialer::Accepted(uint64_t dial, uint32_t worker, uint64_t generation) {
  const std::lock_guard lock(mutex_);
  const auto it = connections_.find(dial);
  if (it == connections_.end()) return;
  it->second.accepted = true;
  it->second.worker = worker;
  it->second.generation = generation;
  changed_.notify_one();
}

void Dialer::Retired(uint64_t dial) {
  const std::lock_guard lock(mutex_);
  const auto it = connections_.find(dial);
  if (it == connections_.end()) return;
  it->second.retired = true;
  changed_.notify_one();
}

void Dialer::Gone(uint64_t dial) {
  const std::lock_guard lock(mutex_);
  const auto it = connections_.find(dial);
  if (it == connections_.end()) return;
  it->second.gone = true;
  changed_.notify_one();
}

std::shared_ptr<const CarrierConfig> Dialer::Wanted() const {
  return configs_.empty() ? nullptr : configs_.back();
}

bool Dialer::Serves(const Connection& connection, const CarrierConfig& config) const {
  return connection.accepted && !connection.retired && !connection.gone &&
         connection.generation == config.generation;
}

bool Dialer::Complete(const CarrierConfig& config) const {
  std::vector<bool> served(config.workers);
  for (const auto& [dial, connection] : connections_) {
    if (Serves(connection, config) && connection.worker < served.size()) {
      served[connection.worker] = true;
    }
  }
  return std::find(served.begin(), served.end(), false) == served.end();
}

void Dialer::CloseGone() {
  for (auto it = connections_.begin(); it != connections_.end();) {
    if (it->second.gone) {
      if (it->second.fd >= 0) close(it->second.fd);
      it = connections_.erase(it);
    } else {
      ++it;
    }
  }
}

// A worker's second carrier only helped the listener's balancing along. It is asked to go rather
// than closed, since the worker may just have begun to use it in place of its first.
void Dialer::DismissSurplus(const CarrierConfig& config) {
  std::vector<bool> served(config.workers);
  for (auto& [dial, connection] : connections_) {
    if (!Serves(connection, config)) continue;
    if (connection.worker < served.size() && !served[connection.worker]) {
      served[connection.worker] = true;
      continue;
    }
    connection.retired = true;
    if (send(connection.fd, &kDismissal, 1, MSG_NOSIGNAL | MSG_DONTWAIT) != 1) {
      connection.gone = true;
    }
  }
}

void Dialer::Run() {
  auto pause = kFirstPause;
  uint64_t complained_of = 0;  // the configuration's generation
  auto last_served = std::chrono::steady_clock::now();
  std::unique_lock lock(mutex_);
  for (;;) {
    const std::shared_ptr<const CarrierConfig> config = Wanted();
    const bool complete = config == nullptr || Complete(*config);
    CloseGone();
    if (complete) {
      if (config != nullptr) DismissSurplus(*config);
      pause = kFirstPause;
      changed_.wait(lock);
      last_served = std::chrono::steady_clock::now();
      continue;
    }
    // A round that does not come to an end, because the listener does not balance: start over.
    if (connections_.size() > size_t{16} * (config->workers + 4)) DismissSurplus(*config);

    const uint64_t dial = next_dial_++;
    connections_.emplace(dial, Connection());  // before its worker can say a word of it
    const std::string greeting = Greeting(dial);
    lock.unlock();
    const int fd = Connect(config->address);
    const bool sent =
        fd >= 0 && send(fd, greeting.data(), greeting.size(), MSG_NOSIGNAL | MSG_DONTWAIT) ==
                       static_cast<ssize_t>(greeting.size());
    lock.lock();
    Connection& connection = connections_[dial];
    connection.fd = fd;
    if (sent) {
      changed_.wait_for(lock, kAcceptTimeout, [&] {
        return connection.accepted || connection.gone || Wanted() != config;
      });
    }
    if (!connection.accepted) connection.gone = true;
    const auto now = std::chrono::steady_clock::now();
    if (Serves(connection, *config)) {
      pause = kFirstPause;
      last_served = now;
    } else {
      if (now - last_served > kPatience && complained_of != config->generation) {
        complained_of = config->generation;
        EnvoyLog(abi::kLogWarn,
                 "metaprotocol: no carrier for some worker yet, so that its requests wait: nobody "
                 "accepts at " +
                     config->address + ", the carrier listener's configured address");
      }
      changed_.wait_for(lock, pause);
      pause = std::min(pause * 2, kLongestPause);
    }
  }
}

}  // namespace metaprotocol::envoy
