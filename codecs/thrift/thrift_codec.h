// The Thrift codec: framed, unframed and THeader transports; strict binary, old binary and compact
// protocols, told apart message by message. README.md describes the wire format and the limits.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>

#include "codecs/thrift/dialect.h"
#include "src/codec/codec.h"
#include "src/codec/registry.h"

namespace metaprotocol::thrift {

struct ThriftOptions {
  // Refuse framed requests with anything behind their message (README.md, "Frames").
  bool check_frames = true;
  // Calls of these methods ("note", or "Service:note") are one-way whatever they say (README.md,
  // "Options").
  std::set<std::string, std::less<>> one_way_methods = {};
};

class ThriftCodec final : public Codec {
 public:
  explicit ThriftCodec(ThriftOptions options = {}) : options_(options) {}

  const CodecTraits& traits() const override;
  Interest InterestIn(const MetadataKeys& keys) const override;
  std::unique_ptr<DecodeState> NewDecodeState(Direction direction) const override;

  // Framed and THeader messages are taken by their head, which holds all metadata; unframed ones
  // must be there to their end. In requests Message::id carries, above the 32 bits of the sequence
  // id, how THeader's own number differs from it.
  DecodeResult Decode(DecodeState* state, Direction direction, Bytes bytes,
                      const DecodeOptions& options, Message& message) const override;

  std::string_view CheckBody(DecodeState* state, Bytes part) const override;

  // Only THeader messages take a mutation: into their key/value info headers.
  Encoded Encode(const Message& message, Bytes bytes, const EncodeOptions& options,
                 std::string& out) const override;

  // A TApplicationException in the request's own transport and protocol; a void result for
  // kNoContent. False if the request's dialect was never known.
  bool BlamesRequest(int32_t status_code) const override;
  bool Reply(const ReplyContext& request, LocalReply reply, std::string_view text,
             std::string& out) const override;

 private:
  const ThriftOptions options_;
};

// `options` is "" or a JSON object with members named as in ThriftOptions.
CodecOrError CreateThriftCodec(std::string_view options);

}  // namespace metaprotocol::thrift
