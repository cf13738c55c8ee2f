// Fields of protobuf messages, for messages that are written by hand.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "src/codec/protobuf.h"

namespace metaprotocol::test::proto {

// Texts, bytes and messages.
inline std::string Text(uint32_t number, std::string_view bytes) {
  std::string out;
  AppendProtoBytes(out, number, bytes);
  return out;
}

inline std::string Number(uint32_t number, uint64_t value) {
  std::string out;
  AppendProtoVarint(out, number, value);
  return out;
}

// One of a map<string, string>.
inline std::string Entry(uint32_t number, std::string_view key, std::string_view value) {
  std::string out;
  AppendProtoEntry(out, number, key, value);
  return out;
}

}  // namespace metaprotocol::test::proto
