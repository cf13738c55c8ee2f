// Which of Thrift's transports and protocols a message is written in: names, detection from a
// message's first bytes, and how both travel in Message::tag. README.md lists the byte patterns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "src/codec/bytes.h"
#include "src/codec/codec.h"

namespace metaprotocol::thrift {

enum class Transport : uint8_t {
  kUnknown,
  kFramed,          // 4-byte length, message
  kUnframed,        // the message alone; its end is where its struct ends
  kHeader,          // THeader: 4-byte length, 0x0FFF, header, message
  kTTHeader,        // Kitex's: 4-byte length, 0x1000, header, message
  kTTHeaderFramed,  // the same, and a 4-byte length before the message
};

inline bool IsTTHeader(Transport transport) {
  return transport == Transport::kTTHeader || transport == Transport::kTTHeaderFramed;
}
// Whether keys and a second sequence number precede the message.
inline bool HasHeader(Transport transport) {
  return transport == Transport::kHeader || IsTTHeader(transport);
}

enum class Protocol : uint8_t {
  kUnknown,
  kBinary,     // strict: begins with 0x8001
  kOldBinary,  // begins with the length of the name
  kCompact,    // begins with 0x82
};

// As Envoy's thrift_proxy names them, so that operators read one vocabulary. "" for kUnknown.
std::string_view TransportName(Transport transport);
std::string_view ProtocolName(Protocol protocol);

// Frames longer than this are refused whatever the caller allows: THeader's own maximum
// (HeaderFormat.md), and small enough for every sum of lengths here to fit 32 bits.
inline constexpr uint32_t kMaxFrameBytes = 0x3FFFFFFF;

// Longest method name taken, service prefix included. Bounds what must arrive before a message can
// be judged.
inline constexpr uint32_t kMaxNameBytes = 4096;

struct Dialect {
  Transport transport = Transport::kUnknown;
  Protocol protocol = Protocol::kUnknown;

  bool operator==(const Dialect&) const = default;
  bool known() const { return transport != Transport::kUnknown; }
};

// Tells the dialect of the message that begins at bytes[0]. THeader carries its protocol inside, so
// `protocol` stays kUnknown there; whether a TTHeader frame has another in it is seen behind the
// header. kMessage stands for "detected". Asks for no byte that the shortest possible message of
// what it still might be would not have.
DecodeResult Detect(Bytes bytes, Dialect& dialect);

// What Encode and Reply must know of a message: Message::tag.
struct Tag {
  Dialect dialect;
  // TApplicationException type for an error reply, where the decoder knows better than
  // LocalReply::kMalformed does; 0: it does not.
  uint8_t exception_type = 0;
  // The message is compressed (THeader's zlib transform).
  bool compressed = false;
  // Where the sequence id of the message lies, counted from its first byte on the wire, or from the
  // first of what its compressed bytes stand for.
  uint32_t id_offset = 0;

  uint64_t Pack() const {
    return uint64_t{id_offset} << 32 | uint64_t{compressed} << 24 | uint64_t{exception_type} << 16 |
           uint64_t{static_cast<uint8_t>(dialect.protocol)} << 8 |
           static_cast<uint8_t>(dialect.transport);
  }
  static Tag Unpack(uint64_t packed) {
    Tag tag;
    tag.dialect.transport = static_cast<Transport>(packed & 0xFF);
    tag.dialect.protocol = static_cast<Protocol>(packed >> 8 & 0xFF);
    tag.exception_type = static_cast<uint8_t>(packed >> 16);
    tag.compressed = (packed >> 24 & 1) != 0;
    tag.id_offset = static_cast<uint32_t>(packed >> 32);
    return tag;
  }
};

}  // namespace metaprotocol::thrift
