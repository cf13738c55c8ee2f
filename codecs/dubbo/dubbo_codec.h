// Dubbo2 over TCP as a codec of the engine. README.md in this folder describes the wire format, the
// metadata and the limits.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "src/codec/codec.h"
#include "src/codec/registry.h"

namespace metaprotocol::dubbo {

class DubboCodec final : public Codec {
 public:
  const CodecTraits& traits() const override;
  Interest InterestIn(const MetadataKeys& keys) const override;
  DecodeResult Decode(DecodeState* state, Direction direction, Bytes bytes,
                      const DecodeOptions& options, Message& message) const override;
  Encoded Encode(const Message& message, Bytes bytes, const EncodeOptions& options,
                 std::string& out) const override;
  bool BlamesRequest(int32_t status_code) const override;
  void CarryOver(const ReplyContext& request, Message& response) const override;
  bool Reply(const ReplyContext& request, LocalReply reply, std::string_view text,
             std::string& out) const override;
  bool HeartbeatReply(const Message& heartbeat, Bytes bytes, std::string& out) const override;
  bool Ping(uint64_t id, std::string& out) const override;
  bool GoAway(const ReplyContext& last, std::string& out) const override;
};

// `options` is "" or a JSON object without members: this codec has no options yet.
CodecOrError CreateDubboCodec(std::string_view options);

}  // namespace metaprotocol::dubbo
