// Unary gRPC calls through one network filter: Envoy's clusters have HTTP clients that a filter may
// use as long as it lives.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "src/codec/bytes.h"
#include "src/host/host.h"

namespace metaprotocol::envoy {

class Callouts {
 public:
  explicit Callouts(void* envoy_filter) : envoy_(envoy_filter) {}

  // See Host::StartCall; the answer goes to Worker::AnswerCall.
  void Start(CallId call, std::string_view cluster, std::string_view path, Bytes message,
             uint64_t timeout_us);
  // The filter's `http_callout_done` hook.
  void Done(uint64_t callout, std::optional<std::string> message);
  // The filter goes, and with it Envoy's side of the calls: they have no answer.
  void AnswerAll();

 private:
  void* const envoy_;
  std::unordered_map<uint64_t, CallId> calls_;  // by Envoy's number of the callout
  CallId starting_ = 0;                         // it has no number yet
};

}  // namespace metaprotocol::envoy
