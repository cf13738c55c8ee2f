// One client's connection: the network filter "metaprotocol" on one side, a session of the engine
// on the other.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "envoy_ext/abi/abi.h"
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

 private:
  const std::shared_ptr<const Snapshot> snapshot_;
  const std::shared_ptr<ConfigSlot> slot_;
  const std::shared_ptr<const ClientListener> listener_;
};

struct ClientLink : ListLink {};

class ClientConnection : public ClientLink {
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
  void OnCalloutDone(uint64_t callout, std::optional<std::string> message);

  // --- for the host interface
  void Write(Bytes bytes);
  void Pause(bool paused);
  void FlushAndClose();
  void Abort();
  void StartCall(CallId call, std::string_view cluster, std::string_view path, Bytes message,
                 uint64_t timeout_us);
  bool closed() const { return state_ == State::kClosed; }
  void TellWatermark(Engine& engine);
  // If its listener has been replaced or removed since it was accepted.
  void DrainIfReplaced(Engine& engine);

 private:
  enum class State : uint8_t {
    kNew,      // no session yet
    kOpen,     // the engine has a session
    kClosing,  // the engine is done; the last bytes are being flushed
    kClosed,
  };

  void Open();
  ConnectionInfo Describe() const;
  void EnsureWakeSource();

  void* const envoy_;
  const std::shared_ptr<ConfigSlot> slot_;
  const std::shared_ptr<const ClientListener> listener_;
  const uint64_t listener_generation_;  // when it was accepted
  Worker& worker_;
  State state_ = State::kNew;
  Session* session_ = nullptr;
  void* scheduler_ = nullptr;                   // only where no carrier has given the worker one
  bool full_ = false;                           // as of the last watermark hook
  bool full_told_ = false;                      // as of the last word to the engine
  std::unordered_map<uint64_t, CallId> calls_;  // by Envoy's number of the callout
  CallId starting_ = 0;                         // it has no number yet
};

}  // namespace metaprotocol::envoy
