// A message as a declared codec sees it.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "codecs/declared/declared_codec.h"
#include "src/codec/codec.h"

namespace metaprotocol::declared {

struct Seen {
  DecodeResult result;
  Message message;
  std::string bytes;
  const DeclaredCodec* codec;
  MetadataKeys keys;

  Seen(const DeclaredCodec& of, Direction direction, std::string wire)
      : bytes(std::move(wire)),
        codec(&of),
        keys(MetadataKeys::Everything(of.traits().metadata_keys)) {
    message.Clear(&keys);
    DecodeOptions options;
    options.interest = of.InterestIn(keys);
    result = of.Decode(nullptr, direction, bytes, options, message);
  }
  std::string Find(std::string_view key) const {
    return std::string(message.metadata.Find(key).value_or("(absent)"));
  }
  std::string Written(const EncodeOptions& options) const {
    std::string out;
    const Encoded encoded = codec->Encode(message, bytes, options, out);
    if (encoded.impossible) return "(impossible)";
    return out.append(encoded.Unchanged(bytes)).append(encoded.Tail());
  }
};

}  // namespace metaprotocol::declared
