#include "envoy_ext/network_filter/callouts.h"

#include <utility>
#include <vector>

#include "envoy_ext/abi/abi.h"
#include "envoy_ext/network_filter/grpc_frame.h"
#include "envoy_ext/worker/worker.h"

namespace metaprotocol::envoy {

void Callouts::Start(CallId call, std::string_view cluster, std::string_view path, Bytes message,
                     uint64_t timeout_us) {
  const std::vector<std::pair<std::string_view, std::string_view>> fields = {
      {":method", "POST"},
      {":path", path},
      {":authority", cluster},
      {"content-type", "application/grpc"},
      {"te", "trailers"}};
  std::vector<abi::HttpHeader> headers;
  for (const auto& [key, value] : fields) {
    headers.push_back({key.data(), key.size(), value.data(), value.size()});
  }
  const std::string body = GrpcFrame(message);
  const uint64_t timeout_ms = (timeout_us + 999) / 1000;
  uint64_t callout = 0;
  starting_ = call;
  const int started =
      abi::NetworkHttpCallout(envoy_, &callout, abi::ToBuffer(cluster), headers.data(),
                              headers.size(), abi::ToBuffer(body), timeout_ms);
  if (std::exchange(starting_, 0) == 0) return;  // answered already
  if (started == abi::kCalloutStarted) {
    calls_.emplace(callout, call);
  } else {
    Worker::Get().AnswerCall(call, std::nullopt);
  }
}

void Callouts::Done(uint64_t callout, std::optional<std::string> message) {
  CallId call = 0;
  if (const auto it = calls_.find(callout); it != calls_.end()) {
    call = it->second;
    calls_.erase(it);
  } else {
    call = std::exchange(starting_, 0);
  }
  if (call != 0) Worker::Get().AnswerCall(call, std::move(message));
}

void Callouts::AnswerAll() {
  for (const auto& [callout, call] : std::exchange(calls_, {})) {
    Worker::Get().AnswerCall(call, std::nullopt);
  }
}

}  // namespace metaprotocol::envoy
