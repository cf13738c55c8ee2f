// See reply.h.
//
// Clients read the message of a response whose status is not OK with their serialization's
// `readUTF`, and the type of an OK one with its `readByte` (DubboCodec.decodeBody,
// DecodeableRpcResult). What those expect was taken from the classes named below, all under
// org.apache.dubbo.common.serialize, and is checked against their own output in the tests.
#include "codecs/dubbo/reply.h"

#include <array>
#include <optional>

#include "codecs/dubbo/hessian2.h"
#include "codecs/dubbo/json_values.h"
#include "codecs/dubbo/jsonb.h"
#include "src/codec/utf8.h"
#include "src/codec/varint.h"

namespace metaprotocol::dubbo {
namespace {

// Java object streams: magic and version, then block data (Java Object Serialization
// Specification, section 6.4.2).
constexpr std::string_view kJavaStreamHeader("\xac\xed\x00\x05", 4);
constexpr char kJavaBlockData = 0x77;
constexpr char kJavaBlockDataLong = 0x7a;

// Bodies of events, in Hessian.
constexpr std::string_view kHessianNull = "N";
constexpr std::string_view kReadOnlyEvent("\x01R", 2);

std::string_view DefaultText(LocalReply reply) {
  static constexpr std::array<std::string_view, kLocalReplyCount> kTexts = {
      "no content",
      "no route matches this request",
      "the route's cluster does not exist",
      "no healthy upstream host",
      "the upstream did not answer in time",
      "a limit of the proxy was reached",
      "access denied",
      "fault injected by the proxy",
      "the connection to the upstream was lost",
      "the message is too large",
      "the message could not be decoded",
      "the proxy is shutting down",
      "the upstream's reply could not be understood",
  };
  return kTexts[static_cast<size_t>(reply)];
}

// At most kMaxReplyText bytes, cut between characters.
std::string_view Cut(std::string_view text) {
  if (text.size() <= kMaxReplyText) return text;
  size_t end = kMaxReplyText;
  while (end > 0 && (static_cast<uint8_t>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end);
}

// For encodings with their own idea of other characters.
std::string ToAscii(std::string_view text) {
  std::string out;
  for (Utf8Iterator it(text); !it.Done();) {
    const uint32_t c = it.Next();
    out.push_back(c < 0x80 && c != 0 ? static_cast<char>(c) : '?');
  }
  return out;
}

void AppendJavaBlock(std::string& out, std::string_view data) {
  out.append(kJavaStreamHeader);
  if (data.size() <= 0xff) {
    out.push_back(kJavaBlockData);
    out.push_back(static_cast<char>(data.size()));
  } else {
    out.push_back(kJavaBlockDataLong);
    AppendBe32(out, static_cast<uint32_t>(data.size()));
  }
  out.append(data);
}

// What `writeUTF(text)` leaves on the wire; false if it is not known for this serialization.
bool AppendText(std::string& out, Serialization serialization, std::string_view text) {
  switch (serialization) {
    case Serialization::kHessian2:
    case Serialization::kNativeHessian:
      AppendHessianString(out, text);
      return true;
    case Serialization::kFastjson:
    case Serialization::kGson:
    case Serialization::kProtobufJson:
      AppendJsonString(out, text);
      out.push_back('\n');
      return true;
    case Serialization::kJava:
    case Serialization::kCompactedJava: {  // java/JavaObjectOutput: the length twice
      const std::string ascii = ToAscii(text);
      std::string data;
      AppendBe32(data, static_cast<uint32_t>(ascii.size()));
      AppendBe16(data, static_cast<uint16_t>(ascii.size()));
      AppendJavaBlock(out, data + ascii);
      return true;
    }
    case Serialization::kNativeJava: {  // nativejava/NativeJavaObjectOutput
      const std::string ascii = ToAscii(text);
      std::string data;
      AppendBe16(data, static_cast<uint16_t>(ascii.size()));
      AppendJavaBlock(out, data + ascii);
      return true;
    }
    case Serialization::kKryo:
    case Serialization::kKryo2: {  // kryo/KryoObjectOutput: the last of several letters is marked
      std::string ascii = ToAscii(text);
      if (ascii.size() < 2) ascii.append(2, '.');
      ascii.back() = static_cast<char>(ascii.back() | 0x80);
      out.append(ascii);
      return true;
    }
    case Serialization::kFst: {  // fst/FstObjectOutput: one byte of length, up to 127
      const std::string ascii = ToAscii(text).substr(0, 127);
      out.push_back(static_cast<char>(ascii.size()));
      out.append(ascii);
      return true;
    }
    case Serialization::kAvro: {  // avro/AvroObjectOutput: zigzag length
      const std::string ascii = ToAscii(text);
      AppendVarint(uint64_t{ascii.size()} << 1, out);
      out.append(ascii);
      return true;
    }
    case Serialization::kProtostuff: {  // protostuff/ProtostuffObjectOutput
      const std::string ascii = ToAscii(text);
      AppendBe32(out, static_cast<uint32_t>(ascii.size()));
      out.append(ascii);
      return true;
    }
    case Serialization::kProtobuf: {  // GenericProtobufObjectOutput: a delimited StringValue
      const std::string ascii = ToAscii(text);
      std::string value;
      if (!ascii.empty()) {
        value.push_back(0x0a);
        AppendVarint(ascii.size(), value);
        value.append(ascii);
      }
      AppendVarint(value.size(), out);
      out.append(value);
      return true;
    }
    case Serialization::kMsgpack: {  // msgpack/MsgpackObjectOutput: str 16
      const std::string ascii = ToAscii(text);
      out.push_back(static_cast<char>(0xda));
      AppendBe16(out, static_cast<uint16_t>(ascii.size()));
      out.append(ascii);
      return true;
    }
    case Serialization::kFastjson2: {  // fastjson2/FastJson2ObjectOutput: length, then JSONB
      std::string document;
      AppendJsonbString(document, text);
      AppendBe32(out, static_cast<uint32_t>(document.size()));
      out.append(document);
      return true;
    }
    default:
      return false;
  }
}

// What `writeByte(2)`, the type of a null value, leaves on the wire.
std::optional<std::string_view> NullResult(Serialization serialization) {
  switch (serialization) {
    case Serialization::kHessian2:
    case Serialization::kNativeHessian:
      return "\x92";
    case Serialization::kFastjson:
    case Serialization::kGson:
    case Serialization::kProtobufJson:
      return "2\n";
    case Serialization::kJava:
    case Serialization::kCompactedJava:
    case Serialization::kNativeJava:
      return std::string_view("\xac\xed\x00\x05\x77\x01\x02", 7);
    case Serialization::kKryo:
    case Serialization::kKryo2:
    case Serialization::kFst:
    case Serialization::kAvro:
    case Serialization::kProtostuff:
    case Serialization::kMsgpack:
      return "\x02";
    case Serialization::kProtobuf:
      return "\x02\x08\x02";
    case Serialization::kFastjson2:
      return std::string_view("\x00\x00\x00\x02\xbd\x02", 6);
    default:
      return std::nullopt;
  }
}

// A JSON line as Dubbo 3's extension writes the same value.
std::string WithLength(std::string_view line) {
  line.remove_suffix(1);
  std::string out;
  AppendBe32(out, static_cast<uint32_t>(line.size()));
  return out.append(line);
}

void AppendResponse(std::string& out, uint64_t id, Serialization serialization, Status status,
                    std::string_view body) {
  AppendHeader(
      out, {static_cast<uint8_t>(serialization), static_cast<uint8_t>(status), id, body.size()});
  out.append(body);
}

}  // namespace

Status StatusOf(LocalReply reply) {
  switch (reply) {
    case LocalReply::kNoContent:
      return Status::kOk;
    case LocalReply::kNoRoute:
      return Status::kServiceNotFound;
    case LocalReply::kTimeout:
      return Status::kServerTimeout;
    case LocalReply::kBadResponse:
      return Status::kBadResponse;
    case LocalReply::kTooLarge:
    case LocalReply::kMalformed:
      return Status::kBadRequest;
    case LocalReply::kClusterNotFound:
    case LocalReply::kNoHealthyUpstream:
    case LocalReply::kUpstreamLost:
    case LocalReply::kOverLimit:
    case LocalReply::kDenied:
    case LocalReply::kFault:
    case LocalReply::kShuttingDown:
      break;
  }
  return Status::kServerError;
}

void AppendReply(std::string& out, uint64_t id, Serialization serialization, bool with_lengths,
                 LocalReply reply, std::string_view text) {
  Status status = StatusOf(reply);
  if (status == Status::kOk) {
    if (const auto body = NullResult(serialization)) {
      AppendResponse(out, id, serialization, status,
                     with_lengths ? WithLength(*body) : std::string(*body));
      return;
    }
    status = Status::kServerError;
    text = "the proxy cannot write an empty result in this serialization";
  }
  if (text.empty()) text = DefaultText(reply);
  text = Cut(text);
  std::string body;
  if (!AppendText(body, serialization, text)) {
    // Error messages are read in the serialization that the response names, and every Dubbo
    // distribution has this one.
    serialization = Serialization::kHessian2;
    AppendHessianString(body, text);
    with_lengths = false;
  }
  AppendResponse(out, id, serialization, status, with_lengths ? WithLength(body) : body);
}

void AppendHeartbeat(std::string& out, uint64_t id) {
  AppendHeader(out, {static_cast<uint8_t>(kFlagRequest | kFlagTwoWay | kFlagEvent |
                                          static_cast<uint8_t>(Serialization::kHessian2)),
                     0, id, kHessianNull.size()});
  out.append(kHessianNull);
}

void AppendHeartbeatReply(std::string& out, const Header& heartbeat, Bytes body) {
  AppendHeader(out, {static_cast<uint8_t>(kFlagEvent | (heartbeat.flags & kSerializationMask)),
                     static_cast<uint8_t>(Status::kOk), heartbeat.id, body.size()});
  out.append(body);
}

void AppendReadOnlyEvent(std::string& out) {
  AppendHeader(out, {static_cast<uint8_t>(kFlagRequest | kFlagEvent |
                                          static_cast<uint8_t>(Serialization::kHessian2)),
                     0, 0, kReadOnlyEvent.size()});
  out.append(kReadOnlyEvent);
}

}  // namespace metaprotocol::dubbo
