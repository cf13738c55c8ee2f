// The tRPC codec: unary calls and streams. README.md describes the wire format and the limits.
#pragma once

#include <string>
#include <string_view>

#include "src/codec/codec.h"
#include "src/codec/registry.h"

namespace metaprotocol::trpc {

class TrpcCodec final : public Codec {
 public:
  const CodecTraits& traits() const override;
  // All metadata are in the head, which stands before the body.
  Interest InterestIn(const MetadataKeys& keys) const override;
  DecodeResult Decode(DecodeState* state, Direction direction, Bytes bytes,
                      const DecodeOptions& options, Message& message) const override;
  // A mutation goes into trans_info, of requests, responses and what opens a stream.
  Encoded Encode(const Message& message, Bytes bytes, const EncodeOptions& options,
                 std::string& out) const override;
  bool BlamesRequest(int32_t status_code) const override;
  bool Reply(const ReplyContext& request, LocalReply reply, std::string_view text,
             std::string& out) const override;
  bool ResetStream(const ReplyContext& stream, Direction to, LocalReply reason,
                   std::string_view text, std::string& out) const override;
  bool GrantWindow(const ReplyContext& stream, Direction to, uint64_t bytes,
                   std::string& out) const override;
};

// `options` is "" or "{}": there are none.
CodecOrError CreateTrpcCodec(std::string_view options);

}  // namespace metaprotocol::trpc
