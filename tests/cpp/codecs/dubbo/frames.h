// Dubbo frames made by hand, and what the codec makes of them.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "codecs/dubbo/dubbo_codec.h"
#include "codecs/dubbo/frame.h"
#include "codecs/dubbo/hessian2.h"
#include "codecs/dubbo/request.h"

namespace metaprotocol::dubbo {

inline constexpr uint8_t kTwoWayRequest = kFlagRequest | kFlagTwoWay;

inline std::string Frame(uint8_t flags, uint8_t status, uint64_t id, const std::string& body) {
  std::string out;
  AppendHeader(out, {flags, status, id, body.size()});
  return out + body;
}

inline std::string Text(std::string_view text) {
  std::string out;
  AppendHessianString(out, text);
  return out;
}

inline std::string HeadBody(const std::string& version = "2.0.2", const std::string& types = "") {
  return Text(version) + Text("org.Demo") + Text("1.0") + Text("hello") + Text(types);
}

inline std::string Request(const std::string& body) {
  return Frame(kTwoWayRequest | 2, 0, 7, body);
}

struct Decoded {
  std::unique_ptr<const std::string> bytes;  // what the metadata are views of
  DecodeResult result;
  Message message;
  std::string Value(std::string_view key) const {
    const auto value = message.metadata.Find(key);
    return value ? std::string(*value) : "<absent>";
  }
};

// All metadata are wanted.
inline DecodeOptions WantingAll() {
  static const DubboCodec codec;
  static const MetadataKeys everything = MetadataKeys::Everything(codec.traits().metadata_keys);
  DecodeOptions options;
  options.interest = codec.InterestIn(everything);
  return options;
}

inline DecodeResult DecodeInto(Direction direction, Bytes bytes, const DecodeOptions& options,
                               Message& message) {
  message.Clear(options.interest.keys);
  return DubboCodec().Decode(nullptr, direction, bytes, options, message);
}

inline Decoded Decode(Direction direction, const std::string& bytes,
                      const DecodeOptions& options = WantingAll()) {
  Decoded decoded;
  decoded.bytes = std::make_unique<const std::string>(bytes);
  decoded.result = DecodeInto(direction, *decoded.bytes, options, decoded.message);
  return decoded;
}

inline Decoded DecodeRequest(const std::string& bytes) {
  return Decode(Direction::kRequest, bytes);
}

inline DecodeOptions Wanting(const std::vector<std::string_view>& keys, bool partial = false) {
  static std::list<MetadataKeys> all;  // the options refer to them
  MetadataKeys& wanted = all.emplace_back(DubboCodec().traits().metadata_keys);
  for (const std::string_view key : keys) wanted.Want(key);
  DecodeOptions options;
  options.interest = DubboCodec().InterestIn(wanted);
  options.allow_partial = partial;
  return options;
}

inline std::string EncodeAll(const Decoded& decoded, const std::string& bytes,
                             const Mutation& mutation, uint64_t id = 99) {
  std::string out;
  const size_t used =
      DubboCodec().Encode(decoded.message, bytes, {.id = id, .mutation = mutation}, out).head;
  return out.append(Bytes(bytes).substr(used));
}

inline Mutation Set(std::string key, std::string value) {
  return {{MutationOp::Kind::kSet, std::move(key), std::move(value)}};
}

}  // namespace metaprotocol::dubbo
