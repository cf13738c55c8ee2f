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

// Set in a request's Message::tag: its client understands responses with attachments (protocol
// 2.0.2 or later). CarryOver puts it into the tag of the response message, where it allows Encode
// to add attachments to a response that has none; without it only those that have some are
// rewritten.
inline constexpr uint64_t kTagReadsResponseAttachments = uint64_t{1} << 8;

class DubboCodec final : public Codec {
 public:
  const CodecTraits& traits() const override;
  Interest InterestIn(std::span<const std::string_view> keys) const override;
  DecodeResult Decode(DecodeState* state, Direction direction, Bytes bytes,
                      const DecodeOptions& options, Message& message) const override;
  Encoded Encode(const Message& message, Bytes bytes, const EncodeOptions& options,
                 std::string& out) const override;
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
