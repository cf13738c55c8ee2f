// The codec of bRPC's own protocol, baidu_std. README.md describes the wire format and the limits.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "src/codec/codec.h"
#include "src/codec/registry.h"

namespace metaprotocol::brpc {

struct BrpcOptions {
  // Clients authenticate themselves in their first message, and each has upstream connections of
  // its own. Without it such messages are refused (README.md, "Authentication").
  bool authentication = false;
};

class BrpcCodec final : public Codec {
 public:
  explicit BrpcCodec(BrpcOptions options = {}) : options_(options) {}

  const CodecTraits& traits() const override;
  // All metadata are in the meta, which stands before the body.
  Interest InterestIn(const MetadataKeys& keys) const override;
  // Of clients that authenticate themselves: with what.
  std::unique_ptr<DecodeState> NewDecodeState(Direction direction) const override;
  DecodeResult Decode(DecodeState* state, Direction direction, Bytes bytes,
                      const DecodeOptions& options, Message& message) const override;
  // Rewrites the meta: a mutation goes into `ext_fields` if the request has any, else into
  // `user_fields`.
  Encoded Encode(const Message& message, Bytes bytes, const EncodeOptions& options,
                 std::string& out) const override;
  bool BlamesRequest(int32_t status_code) const override;
  bool Reply(const ReplyContext& request, LocalReply reply, std::string_view text,
             std::string& out) const override;

 private:
  const BrpcOptions options_;
};

// `options` is "" or a JSON object with members named as in BrpcOptions.
CodecOrError CreateBrpcCodec(std::string_view options);

}  // namespace metaprotocol::brpc
