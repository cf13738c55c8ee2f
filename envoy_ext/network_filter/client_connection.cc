#include "envoy_ext/network_filter/client_connection.h"

#include <utility>

#include "envoy_ext/abi/slices.h"
#include "envoy_ext/worker/worker.h"

namespace metaprotocol::envoy {
namespace {

// Filter configurations of all listeners meet here, by name.
ConfigRegistry& Registry() {
  static ConfigRegistry* const instance = std::make_unique<ConfigRegistry>().release();
  return *instance;
}

std::string TextOf(bool (*get)(void*, abi::Buffer*), void* filter) {
  abi::Buffer value{nullptr, 0};
  return get(filter, &value) ? std::string(value.view()) : std::string();
}

std::vector<std::string> TextsOf(size_t (*count)(void*), bool (*get)(void*, abi::Buffer*),
                                 void* filter) {
  std::vector<abi::Buffer> values(count(filter), abi::Buffer{nullptr, 0});
  if (values.empty() || !get(filter, values.data())) return {};
  std::vector<std::string> texts;
  for (const abi::Buffer& value : values) texts.emplace_back(value.view());
  return texts;
}

}  // namespace

ClientConfig::ClientConfig(std::shared_ptr<const Snapshot> snapshot)
    : slot_(Registry().Slot(snapshot->name)),
      listener_(ClientListener::Named(snapshot->listener_name)),
      ticket_(slot_->Publish(std::move(snapshot))) {}

ClientConfig::~ClientConfig() { slot_->Withdraw(ticket_); }

void ClientConfig::Used() const {
  if (!used_.exchange(true, std::memory_order_relaxed)) slot_->InForce(ticket_);
}

ClientConnection::ClientConnection(void* envoy_filter, const ClientConfig& config)
    : envoy_(envoy_filter),
      slot_(config.slot()),
      listener_(config.listener()),
      listener_generation_(listener_ ? listener_->generation.load(std::memory_order_relaxed) : 0),
      worker_(Worker::Get()),
      callouts_(envoy_filter) {
  config.Used();
  worker_.AddClient(*this);
}

ClientConnection::~ClientConnection() {
  OnClose();
  worker_.ConnectionGone(*this);
}

void ClientConnection::EnsureWakeSource() {
  if (worker_.has_wake_source() || scheduler_ != nullptr || closed()) return;
  scheduler_ = abi::NetworkSchedulerNew(envoy_);
  worker_.AddWakeSource(scheduler_);
}

void ClientConnection::OnNewConnection() {
  // A client that has sent its FIN may still wait for replies.
  abi::NetworkEnableHalfClose(envoy_, true);
  EnsureWakeSource();
}

void ClientConnection::OnConnected() {
  if (state_ == State::kNew) Open();
}

void ClientConnection::Open() {
  worker_.WithEngine([&](Engine& engine) {
    Session* const session = engine.OpenSession(slot_, Describe(), this);
    if (state_ != State::kNew) return;  // closed meanwhile
    if (session == nullptr) return Abort();
    session_ = session;
    state_ = State::kOpen;
    DrainIfReplaced(engine);  // it may have taken long to shake hands
  });
}

void ClientConnection::DrainIfReplaced(Engine& engine) {
  if (state_ != State::kOpen || listener_ == nullptr) return;
  if (listener_->generation.load(std::memory_order_relaxed) == listener_generation_) return;
  engine.DrainSession(session_);
}

ConnectionInfo ClientConnection::Describe() const {
  ConnectionInfo info;
  abi::Buffer address{nullptr, 0};
  if (abi::NetworkRemoteAddress(envoy_, &address, &info.remote_port)) {
    info.remote_address = address.view();
  }
  if (abi::NetworkLocalAddress(envoy_, &address, &info.local_port)) {
    info.local_address = address.view();
  }
  if (abi::NetworkIsTls(envoy_)) {
    info.sni = TextOf(abi::NetworkServerName, envoy_);
    info.peer_subject = TextOf(abi::NetworkPeerSubject, envoy_);
    info.peer_uri_sans = TextsOf(abi::NetworkPeerUriSanCount, abi::NetworkPeerUriSans, envoy_);
    info.peer_dns_sans = TextsOf(abi::NetworkPeerDnsSanCount, abi::NetworkPeerDnsSans, envoy_);
  }
  return info;
}

void ClientConnection::OnRead(bool end_stream) {
  EnsureWakeSource();
  if (state_ == State::kNew) Open();
  Slices slices(abi::NetworkReadChunkCount(envoy_));
  abi::NetworkReadChunks(envoy_, slices.buffers());
  const std::span<const Bytes> views = slices.Views();
  if (state_ == State::kOpen) {
    worker_.CountRead(slices.total_bytes());
    worker_.WithEngine([&](Engine& engine) { engine.SessionData(session_, views, end_stream); });
  }
  if (slices.total_bytes() != 0) abi::NetworkDrainRead(envoy_, slices.total_bytes());
}

void ClientConnection::OnClose() {
  const bool was_open = state_ == State::kOpen;
  state_ = State::kClosed;
  IntrusiveList<ClientConnection, ClosingLink>::Remove(*this);
  if (was_open) {
    Session* const session = std::exchange(session_, nullptr);
    worker_.WithEngine([&](Engine& engine) { engine.SessionClosed(session); });
  }
  // Not later: nobody else may hold the connection when Envoy lets go of it (see SetScheduler).
  if (scheduler_ != nullptr) worker_.RemoveWakeSource(std::exchange(scheduler_, nullptr));
}

void ClientConnection::OnWatermark(bool full) {
  full_ = full;
  if (state_ == State::kOpen) worker_.WriteBufferChanged(*this);
}

void ClientConnection::TellWatermark(Engine& engine) {
  if (state_ != State::kOpen || full_ == full_told_) return;
  full_told_ = full_;
  engine.SessionWriteBufferFull(session_, full_);
}

void ClientConnection::Write(Bytes bytes) {
  if (state_ == State::kClosed || bytes.empty()) return;
  abi::NetworkWrite(envoy_, abi::ToBuffer(bytes), false);
}

void ClientConnection::Pause(bool paused) {
  if (state_ != State::kClosed) abi::NetworkReadDisable(envoy_, paused);
}

void ClientConnection::FlushAndClose() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosing;
  session_ = nullptr;
  abi::NetworkClose(envoy_, abi::kFlushWrite);
}

void ClientConnection::Abort() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  session_ = nullptr;
  abi::NetworkClose(envoy_, abi::kNoFlush);
}

}  // namespace metaprotocol::envoy
