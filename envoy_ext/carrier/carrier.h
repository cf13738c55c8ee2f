// A carrier: a connection of this Envoy to itself that owns a worker's leases.
//
// The network filter "metaprotocol.carrier" sits in front of an HTTP connection manager. What the
// manager reads, the filter injects; what the manager writes, the filter takes out of the write
// path. The socket itself carries nothing but the token by which the module knows its own
// connections.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include "envoy_ext/abi/abi.h"
#include "envoy_ext/carrier/dialer.h"
#include "envoy_ext/carrier/h2_client.h"
#include "envoy_ext/network_filter/callouts.h"
#include "src/host/host.h"

namespace metaprotocol::envoy {

class Worker;

class Carrier {
 public:
  Carrier(void* envoy_filter, std::shared_ptr<const CarrierConfig> config);
  ~Carrier();
  Carrier(const Carrier&) = delete;
  Carrier& operator=(const Carrier&) = delete;

  // --- hooks
  abi::FilterStatus OnNewConnection();
  abi::FilterStatus OnRead(bool end_stream);
  abi::FilterStatus OnWrite();
  void OnClose();

  Callouts& callouts() { return callouts_; }
  H2Client& h2() { return h2_; }
  // Which lease each open stream stands for.
  std::unordered_map<uint32_t, LeaseId>& streams() { return streams_; }
  // Takes no new leases; a replacement is there or on its way. Closed with its last lease.
  bool retiring() const { return retiring_; }
  // Retires when few stream ids are left.
  void RetireIfWornOut();
  // Retires for `newer`, if that one belongs to a newer carrier listener.
  void RetireFor(const Carrier& newer);
  // Hands the connection manager what the HTTP/2 client has written. Only on a clean stack.
  void Flush();

  std::string DumpJson() const;

 private:
  enum class State : uint8_t { kStranger, kLive, kClosed };

  void Greet();
  void Refuse();
  void Retire();
  void Close();

  void* const envoy_;
  const std::shared_ptr<const CarrierConfig> config_;
  State state_ = State::kStranger;
  bool retiring_ = false;
  bool broken_ = false;  // the connection manager does not make sense; close at the next Flush
  Worker* worker_ = nullptr;
  void* scheduler_ = nullptr;
  uint64_t dial_ = 0;
  std::string input_;  // what came over the socket itself
  Callouts callouts_;
  H2Client h2_;
  std::unordered_map<uint32_t, LeaseId> streams_;
};

}  // namespace metaprotocol::envoy
