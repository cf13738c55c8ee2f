// The 16-byte header of Dubbo2 and the numbers in it.
//
// Source: Apache Dubbo's protocol documentation (apache/dubbo-website, reference/protocols/tcp.md)
// and org.apache.dubbo.remoting.exchange.codec.ExchangeCodec, which decides where that is silent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "src/codec/bytes.h"

namespace metaprotocol::dubbo {

inline constexpr size_t kHeaderBytes = 16;
inline constexpr uint16_t kMagic = 0xdabb;

// Byte 2: three flags and five bits of serialization id.
inline constexpr uint8_t kFlagRequest = 0x80;
inline constexpr uint8_t kFlagTwoWay = 0x40;
inline constexpr uint8_t kFlagEvent = 0x20;
inline constexpr uint8_t kSerializationMask = 0x1f;

inline constexpr size_t kStatusOffset = 3;
inline constexpr size_t kIdOffset = 4;
inline constexpr size_t kLengthOffset = 12;

// Body lengths are a Java int.
inline constexpr size_t kMaxBodyBytes = 0x7fffffff;

// Byte 3 of responses: org.apache.dubbo.remoting.exchange.Response.
enum class Status : uint8_t {
  kOk = 20,
  kSerializationError = 25,
  kClientTimeout = 30,
  kServerTimeout = 31,
  kChannelInactive = 35,
  kBadRequest = 40,
  kBadResponse = 50,
  kServiceNotFound = 60,
  kServiceError = 70,
  kServerError = 80,
  kClientError = 90,
  kServerThreadpoolExhausted = 100,
};

// First value in the body of an OK response: org.apache.dubbo.rpc.protocol.dubbo.DubboCodec.
enum class ResponseType : uint8_t {
  kException = 0,
  kValue = 1,
  kNull = 2,
  kExceptionWithAttachments = 3,
  kValueWithAttachments = 4,
  kNullWithAttachments = 5,
};
inline constexpr uint8_t kResponseTypes = 6;
// From a type without attachments to the same with them.
inline constexpr uint8_t kWithAttachments = 3;

// org.apache.dubbo.common.serialize.Constants; those this codec treats each in its own way.
enum class Serialization : uint8_t {
  kHessian2 = 2,
  kJava = 3,
  kCompactedJava = 4,
  kFastjson = 6,
  kNativeJava = 7,
  kKryo = 8,
  kFst = 9,
  kNativeHessian = 10,
  kAvro = 11,
  kProtostuff = 12,
  kGson = 16,
  kProtobufJson = 21,
  kProtobuf = 22,
  kFastjson2 = 23,
  kKryo2 = 25,
  kMsgpack = 27,
};

// "hessian2", "fastjson", ...; the number in decimal where Dubbo has given it no name.
std::string_view SerializationName(Serialization serialization);

struct Header {
  uint8_t flags = 0;
  uint8_t status = 0;
  uint64_t id = 0;
  size_t body_bytes = 0;

  bool request() const { return (flags & kFlagRequest) != 0; }
  bool two_way() const { return (flags & kFlagTwoWay) != 0; }
  bool event() const { return (flags & kFlagEvent) != 0; }
  Serialization serialization() const {
    return static_cast<Serialization>(flags & kSerializationMask);
  }
};

// `bytes` holds at least kHeaderBytes. The magic number is not looked at.
inline Header ReadHeader(Bytes bytes) {
  const char* p = bytes.data();
  return {static_cast<uint8_t>(p[2]), static_cast<uint8_t>(p[kStatusOffset]),
          LoadBe64(p + kIdOffset), LoadBe32(p + kLengthOffset)};
}

inline void AppendHeader(std::string& out, const Header& header) {
  AppendBe16(out, kMagic);
  out.push_back(static_cast<char>(header.flags));
  out.push_back(static_cast<char>(header.status));
  AppendBe64(out, header.id);
  AppendBe32(out, static_cast<uint32_t>(header.body_bytes));
}

}  // namespace metaprotocol::dubbo
