// Thrift messages written by hand, for what no real client writes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "codecs/thrift/wire.h"
#include "src/codec/bytes.h"
#include "src/codec/varint.h"

namespace metaprotocol::thrift {

inline constexpr int kCall = 1;
inline constexpr int kReply = 2;
inline constexpr int kException = 3;
inline constexpr int kOneWay = 4;

// A struct without fields, in every protocol.
inline const std::string kEmptyStruct(1, '\0');

inline std::string Be32(uint32_t v) {
  std::string out;
  AppendBe32(out, v);
  return out;
}

inline std::string Varint(uint32_t v) {
  std::string out;
  AppendVarint(v, out);
  return out;
}

inline std::string Binary(int type, std::string_view name, uint32_t id,
                          const std::string& body = kEmptyStruct) {
  return Be32(0x80010000u | static_cast<uint32_t>(type)) +
         Be32(static_cast<uint32_t>(name.size())) + std::string(name) + Be32(id) + body;
}

inline std::string OldBinary(int type, std::string_view name, uint32_t id,
                             const std::string& body = kEmptyStruct) {
  return Be32(static_cast<uint32_t>(name.size())) + std::string(name) + static_cast<char>(type) +
         Be32(id) + body;
}

inline std::string Compact(int type, std::string_view name, uint32_t id,
                           const std::string& body = kEmptyStruct, int version = 1) {
  std::string out = {static_cast<char>(0x82), static_cast<char>(type << 5 | version)};
  return out + Varint(id) + Varint(static_cast<uint32_t>(name.size())) + std::string(name) + body;
}

inline std::string Framed(const std::string& message) {
  return Be32(static_cast<uint32_t>(message.size())) + message;
}

// THeader's variable part before padding: protocol, no transforms, one block of key/value headers.
inline std::string Infos(int protocol,
                         const std::vector<std::pair<std::string, std::string>>& pairs) {
  std::string out = {static_cast<char>(protocol), '\0'};
  if (pairs.empty()) return out;
  out += '\1' + Varint(static_cast<uint32_t>(pairs.size()));
  for (const auto& [key, value] : pairs) {
    out += Varint(static_cast<uint32_t>(key.size())) + key;
    out += Varint(static_cast<uint32_t>(value.size())) + value;
  }
  return out;
}

inline std::string Header(std::string infos, uint32_t id, const std::string& message) {
  infos.resize((infos.size() + 3) / 4 * 4);
  std::string rest = {'\x0F', '\xFF', '\0', '\0'};
  rest += Be32(id);
  AppendBe16(rest, static_cast<uint16_t>(infos.size() / 4));
  return Framed(rest + infos + message);
}

inline const std::string kEcho = Binary(kCall, "echo", 1);

}  // namespace metaprotocol::thrift
