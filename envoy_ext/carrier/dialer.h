// Sees to it that every worker holds a carrier, by connecting to the carrier listener from a thread
// of its own until the listener's balancing has given each worker a connection, and again whenever
// one is lost, worn out, or belongs to a listener that has been replaced.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace metaprotocol::envoy {

// One carrier filter's configuration: the listener it stands in has this address.
struct CarrierConfig {
  std::string address;  // "@name" (abstract) or "/path": a unix socket
  uint32_t workers = 1;
  uint32_t last_stream = 0;  // a carrier is replaced when its stream ids have come to this
  uint64_t generation = 0;   // counts configurations; the newest live one is the one to dial
};

// Null if `json` ({"address": "@name"}) is not one; then `error` says why.
std::shared_ptr<CarrierConfig> ParseCarrierConfig(std::string_view json, std::string& error);

class Dialer {
 public:
  static constexpr size_t kTokenBytes = 32;
  static constexpr size_t kGreetingBytes = kTokenBytes + 8;  // token, then the dial's number
  static constexpr char kDismissal = 'd';  // later on: the carrier is to end when its leases have

  // The process's only one; never destroyed.
  static Dialer& Get();

  // --- main thread
  // Numbers the configuration and begins to dial it.
  void AddConfig(std::shared_ptr<CarrierConfig> config);
  void RemoveConfig(const CarrierConfig& config);

  // --- workers
  // The dial's number if the greeting is our own; takes the same time whatever is wrong with it.
  std::optional<uint64_t> CheckGreeting(std::string_view greeting) const;
  void Accepted(uint64_t dial, uint32_t worker, uint64_t generation);
  void Retired(uint64_t dial);  // lives on, but needs a replacement
  void Gone(uint64_t dial);

  void CountStranger() { strangers_.fetch_add(1, std::memory_order_relaxed); }
  uint64_t strangers() const { return strangers_.load(std::memory_order_relaxed); }

 private:
  struct Connection {
    int fd = -1;
    bool accepted = false;
    bool retired = false;
    bool gone = false;
    uint32_t worker = 0;
    uint64_t generation = 0;
  };

  Dialer();
  void Run();
  std::shared_ptr<const CarrierConfig> Wanted() const;  // null: none. With mutex_ held
  bool Serves(const Connection& connection, const CarrierConfig& config) const;
  bool Complete(const CarrierConfig& config) const;
  void CloseGone();
  void DismissSurplus(const CarrierConfig& config);
  std::string Greeting(uint64_t dial) const;

  std::string token_;
  std::atomic<uint64_t> strangers_{0};

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<CarrierConfig>> configs_;  // oldest first
  std::map<uint64_t, Connection> connections_;           // by dial
  uint64_t next_dial_ = 1;
  uint64_t next_generation_ = 1;
  bool running_ = false;
};

}  // namespace metaprotocol::envoy
