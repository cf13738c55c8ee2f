// A unary gRPC call's bodies: one length-prefixed message each
// (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "src/codec/bytes.h"

namespace metaprotocol::envoy {

inline std::string GrpcFrame(Bytes message) {
  std::string body(1, '\0');  // not compressed
  AppendBe32(body, static_cast<uint32_t>(message.size()));
  return body.append(message);
}

// The message in a response's body; nothing if it is not exactly one.
inline std::optional<std::string> GrpcMessage(Bytes body) {
  constexpr size_t kPrefix = 5;
  if (body.size() < kPrefix || body[0] != '\0') return std::nullopt;
  if (LoadBe32(body.data() + 1) != body.size() - kPrefix) return std::nullopt;
  return std::string(body.substr(kPrefix));
}

}  // namespace metaprotocol::envoy
