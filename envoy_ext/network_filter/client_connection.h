// One client's connection: the network filter "metaprotocol" on one side, a session of the engine
// on the other.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <string_view>

#include "envoy_ext/abi/abi.h"
#include "envoy_ext/network_filter/callouts.h"
#include "envoy_ext/network_filter/client_listener.h"
#include "src/base/intrusive_list.h"
#include "src/config/config_slot.h"
#include "src/config/snapshot.h"
#include "src/engine.h"

namespace metaprotocol::envoy {

class Worker;

// One configuration of the filter: published as long as Envoy holds it.
class ClientConfig {
 public:
  explicit ClientConfig(std::shared_ptr<const Snapshot> snapshot);
  ~ClientConfig();
  ClientConfig(const ClientConfig&) = delete;
  ClientConfig& operator=(const ClientConfig&) = delete;

  const std::shared_ptr<ConfigSlot>& slot() const { return slot_; }
  // Null if it does not say which listener it is in.
  const std::shared_ptr<const ClientListener>& listener() const { return listener_; }
  // A connection was accepted under it.
  void Used() const;

 private:
  const std::shared_ptr<ConfigSlot> slot_;
  const std::shared_ptr<const ClientListener> listener_;
  const ConfigSlot::Ticket ticket_;
  mutable std::atomic<bool> used_{false};
};

struct ClientLink : ListLink {};
struct ClosingLink : ListLink {};

class ClientConnection : public ClientLink, public ClosingLink {
 public:
  ClientConnection(void* envoy_filter, const ClientConfig& config);
  ~ClientConnection();
  ClientConnection(const ClientConnection&) = delete;
  ClientConnection& operator=(const ClientConnection&) = delete;

  // --- hooks
  void OnNewConnection();
  void OnConnected();  // the TLS handshake, if any, is done
  void OnRead(bool end_stream);
  void OnClose();
  void OnWatermark(bool full);

  // --- for the host interface
  void Write(Bytes bytes);
  void Pause(bool paused);
  void FlushAndClose();
  void Abort();
  Callouts& callouts() { return callouts_; }
  bool closed() const { return state_ == State::kClosed; }
  void TellWatermark(Engine& engine);
  // If its listener has been replaced or removed since it was accepted.
  void DrainIfReplaced(Engine& engine);
  // Gives the worker a wake source, if it has none.
  void EnsureWakeSource();
  // When the last bytes of a connection that is being closed must have gone.
  uint64_t flush_deadline_us = 0;

 private:
  enum class State : uint8_t {
    kNew,      // no session yet
    kOpen,     // the engine has a session
    kClosing,  // the engine is done; the last bytes are being flushed
    kClosed,
  };

  void Open();
  ConnectionInfo Describe() const;

  void* const envoy_;
  const std::shared_ptr<ConfigSlot> slot_;
  const std::shared_ptr<const ClientListener> listener_;
  const uint64_t listener_generation_;  // when it was accepted
  Worker& worker_;
  State state_ = State::kNew;
  Session* session_ = nullptr;
  void* scheduler_ = nullptr;  // only where no carrier has given the worker one
  bool full_ = false;          // as of the last watermark hook
  bool full_told_ = false;     // as of the last word to the engine
  Callouts callouts_;          // those of its session end with it
};

}  // namespace metaprotocol::envoy
