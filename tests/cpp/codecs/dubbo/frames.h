// Dubbo frames made by hand, and what the codec makes of them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "codecs/dubbo/dubbo_codec.h"
#include "codecs/dubbo/frame.h"
#include "codecs/dubbo/hessian2.h"

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

inline Decoded Decode(Direction direction, const std::string& bytes,
                      const DecodeOptions& options = {}) {
  static const DubboCodec codec;
  Decoded decoded;
  decoded.bytes = std::make_unique<const std::string>(bytes);
  decoded.result = codec.Decode(nullptr, direction, *decoded.bytes, options, decoded.message);
  return decoded;
}

inline Decoded DecodeRequest(const std::string& bytes) {
  return Decode(Direction::kRequest, bytes);
}

inline DecodeOptions Wanting(std::vector<std::string_view> keys, bool partial = false) {
  DecodeOptions options;
  options.interest = DubboCodec().InterestIn(keys);
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
