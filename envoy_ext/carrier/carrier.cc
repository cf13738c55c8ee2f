#include "envoy_ext/carrier/carrier.h"

#include <deque>
#include <optional>
#include <span>
#include <utility>

#include "envoy_ext/abi/log.h"
#include "envoy_ext/abi/slices.h"
#include "envoy_ext/worker/worker.h"

namespace metaprotocol::envoy {
namespace {

// Any local process can connect to an abstract socket. This many connections per worker may be yet
// to show the token; beyond, the oldest is closed, since our own show it at once.
constexpr size_t kMaxStrangers = 64;

std::deque<Carrier*>& Strangers() {
  static thread_local std::deque<Carrier*> strangers;  // oldest first
  return strangers;
}

}  // namespace

Carrier::Carrier(void* envoy_filter, std::shared_ptr<const CarrierConfig> config)
    : envoy_(envoy_filter), config_(std::move(config)), callouts_(envoy_filter) {
  Strangers().push_back(this);
}

Carrier::~Carrier() {
  OnClose();
  callouts_.AnswerAll();
  if (worker_ == nullptr) return;
  // Envoy destroys connections with nothing of theirs on the stack.
  worker_->RunPending();
}

abi::FilterStatus Carrier::OnNewConnection() {
  if (Strangers().size() > kMaxStrangers) Strangers().front()->Close();
  return abi::kContinue;
}

abi::FilterStatus Carrier::OnRead(bool end_stream) {
  Slices slices(abi::NetworkReadChunkCount(envoy_));
  abi::NetworkReadChunks(envoy_, slices.buffers());
  for (const Bytes piece : slices.Views()) input_ += piece.substr(0, Dialer::kGreetingBytes + 1);
  if (slices.total_bytes() != 0) abi::NetworkDrainRead(envoy_, slices.total_bytes());
  switch (state_) {
    case State::kStranger:
      if (input_.size() > Dialer::kGreetingBytes || end_stream) {
        Refuse();
      } else if (input_.size() == Dialer::kGreetingBytes) {
        Greet();
      }
      break;
    case State::kLive:
      if (end_stream || input_ != std::string_view(&Dialer::kDismissal, 1)) {
        Close();
      } else if (!retiring_) {
        Retire();
      }
      input_.clear();
      break;
    case State::kClosed:
      break;
  }
  return abi::kStopIteration;
}

void Carrier::Refuse() {
  Dialer::Get().CountStranger();
  EnvoyLog(abi::kLogWarn,
           "metaprotocol: closed a connection to the carrier listener that is not our own");
  Close();
}

void Carrier::Greet() {
  const std::optional<uint64_t> dial = Dialer::Get().CheckGreeting(input_);
  input_.clear();
  if (!dial) return Refuse();
  std::erase(Strangers(), this);
  state_ = State::kLive;
  dial_ = *dial;
  worker_ = &Worker::Get();
  scheduler_ = abi::NetworkSchedulerNew(envoy_);
  worker_->AddWakeSource(scheduler_);
  worker_->CarrierReady(*this, abi::NetworkWorkerIndex(envoy_));
  Dialer::Get().Accepted(dial_, abi::NetworkWorkerIndex(envoy_), config_->generation);
}

abi::FilterStatus Carrier::OnWrite() {
  const EnvoyOnStack on_stack;
  Slices slices(abi::NetworkWriteChunkCount(envoy_));
  abi::NetworkWriteChunks(envoy_, slices.buffers());
  const std::span<const Bytes> pieces = slices.Views();
  if (state_ == State::kLive) {
    for (const Bytes piece : pieces) {
      if (!broken_ && !h2_.Receive(piece)) {
        EnvoyLog(abi::kLogError,
                 "metaprotocol: the carrier's connection manager does not speak HTTP/2; check that "
                 "the carrier listener has codec_type HTTP2");
        broken_ = true;
        worker_->OutputPending();
      }
    }
  }
  if (slices.total_bytes() != 0) abi::NetworkDrainWrite(envoy_, slices.total_bytes());
  if (state_ == State::kLive) {
    if (h2_.has_ended()) {
      for (const H2Client::Ended& ended : h2_.TakeEnded()) {
        worker_->leases().StreamEnded(*this, ended.stream, ended.body);
      }
      worker_->RunPending();  // Envoy writes when it likes: nobody else may come by soon
    }
    if (h2_.has_output()) worker_->OutputPending();
    if (h2_.going_away() && !retiring_) Retire();
  }
  return abi::kStopIteration;
}

void Carrier::RetireIfWornOut() {
  if (!retiring_ && h2_.next_stream() > config_->last_stream) Retire();
}

void Carrier::RetireFor(const Carrier& newer) {
  if (!retiring_ && config_->generation < newer.config_->generation) Retire();
}

void Carrier::Retire() {
  retiring_ = true;
  Dialer::Get().Retired(dial_);
  worker_->CarrierRetiring();
}

void Carrier::Flush() {
  if (state_ != State::kLive) return;
  if (broken_ || (retiring_ && streams_.empty())) {
    Close();
    return;
  }
  if (!h2_.has_output()) return;
  const EnvoyOnStack on_stack;
  const std::string output = h2_.TakeOutput();
  abi::NetworkInjectRead(envoy_, abi::ToBuffer(output), false);
}

void Carrier::Close() {
  if (state_ == State::kClosed) return;
  abi::NetworkClose(envoy_, abi::kNoFlush);
  OnClose();
}

void Carrier::OnClose() {
  const State before = std::exchange(state_, State::kClosed);
  if (before == State::kStranger) std::erase(Strangers(), this);
  if (before != State::kLive) return;
  worker_->CarrierGone(*this);
  Dialer::Get().Gone(dial_);
  // As ClientConnection::OnClose.
  worker_->RemoveWakeSource(std::exchange(scheduler_, nullptr));
}

std::string Carrier::DumpJson() const {
  return "{\"generation\": " + std::to_string(config_->generation) +
         ", \"streams\": " + std::to_string(streams_.size()) +
         ", \"next_stream\": " + std::to_string(h2_.next_stream()) +
         ", \"retiring\": " + (retiring_ ? "true" : "false") + "}";
}

}  // namespace metaprotocol::envoy
