// The captured messages of tests/vectors/thrift, and helpers to decode and build messages in tests.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "codecs/thrift/thrift_codec.h"

namespace metaprotocol::thrift {

struct Vector {
  std::string transport;
  std::string protocol;
  std::string service;  // "" if not multiplexed
  std::string method;
  std::string message_type;
  std::string status;
  uint32_t id = 0;
  std::map<std::string, std::string> headers;
  std::string wire;

  bool is_request() const { return message_type == "call" || message_type == "oneway"; }
  // npm's thrift leaves THeader's own number 0. In responses it is not told apart from the
  // message's, so that such a response comes out with both set.
  bool loses_header_id() const {
    return !is_request() && transport == "header" && LoadBe32(wire.data() + 8) != id;
  }
  Direction direction() const { return is_request() ? Direction::kRequest : Direction::kResponse; }
  std::string Describe() const {
    return transport + " " + protocol + " " + service + ":" + method + " " + message_type + " " +
           std::to_string(id);
  }
};

inline std::string FromHex(std::string_view hex) {
  const auto nibble = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes += static_cast<char>(nibble(hex[i]) << 4 | nibble(hex[i + 1]));
  }
  return bytes;
}

inline std::vector<Vector> ReadVectors() {
  std::vector<Vector> vectors;
  for (const char* name : {"thriftpy2.txt", "apache.txt", "node.txt"}) {
    std::ifstream file(std::string("tests/vectors/thrift/") + name);
    EXPECT_TRUE(file) << name << ": tests run in the repository's root";
    std::string line;
    while (std::getline(file, line)) {
      if (line.empty() || line[0] == '#') continue;
      std::istringstream columns(line);
      Vector v;
      std::string headers;
      std::string hex;
      columns >> v.transport >> v.protocol >> v.service >> v.method >> v.message_type >> v.status >>
          v.id >> headers >> hex;
      if (v.service == "-") v.service.clear();
      std::istringstream pairs(headers == "-" ? "" : headers);
      for (std::string pair; std::getline(pairs, pair, ',');) {
        v.headers[pair.substr(0, pair.find('='))] = pair.substr(pair.find('=') + 1);
      }
      v.wire = FromHex(hex);
      vectors.push_back(std::move(v));
    }
  }
  EXPECT_GT(vectors.size(), 200u);
  return vectors;
}

// One decoded message, with the copy of its bytes that its views point into. The copy ends where
// the bytes end, so that a sanitizer sees every read beyond them.
struct Decoded {
  DecodeResult result;
  Message message;
  std::shared_ptr<char[]> bytes;
};

// All metadata are wanted.
inline DecodeOptions WantingAll() {
  static const ThriftCodec codec;
  static const MetadataKeys everything = MetadataKeys::Everything(codec.traits().metadata_keys);
  DecodeOptions options;
  options.interest = codec.InterestIn(everything);
  return options;
}

inline Decoded DecodeOnce(Bytes bytes, Direction direction, DecodeOptions options = WantingAll(),
                          DecodeState* state = nullptr) {
  Decoded decoded;
  decoded.message.Clear(options.interest.keys);
  decoded.bytes = std::make_unique<char[]>(bytes.size());
  std::copy(bytes.begin(), bytes.end(), decoded.bytes.get());
  decoded.result = ThriftCodec().Decode(state, direction, {decoded.bytes.get(), bytes.size()},
                                        options, decoded.message);
  return decoded;
}

inline Decoded Request(Bytes bytes, DecodeOptions options = WantingAll(),
                       DecodeState* state = nullptr) {
  return DecodeOnce(bytes, Direction::kRequest, options, state);
}

// Our own reply to a decoded request, appended to `out`.
inline std::string ReplyTo(const Decoded& decoded, LocalReply reply, std::string_view text = "why",
                           std::string out = "") {
  const Message& request = decoded.message;
  EXPECT_TRUE(ThriftCodec().Reply({request.id, request.tag, std::string(request.reply_name)}, reply,
                                  text, out));
  return out;
}

// The whole message as Encode and its caller write it.
inline std::string EncodeWhole(const Message& message, Bytes bytes, uint64_t id,
                               std::span<const MutationOp> mutation = {}) {
  std::string out;
  const size_t taken =
      ThriftCodec().Encode(message, bytes, {.id = id, .mutation = mutation}, out).head;
  return out + std::string(bytes.substr(taken, message.length - taken));
}

// A request with its metadata changed.
inline std::string Mutate(const std::string& wire, const Mutation& mutation) {
  const Decoded decoded = Request(wire);
  EXPECT_EQ(decoded.result.status, DecodeResult::Status::kMessage) << decoded.result.error;
  return EncodeWhole(decoded.message, wire, 1, mutation);
}

}  // namespace metaprotocol::thrift
