// Protocols that exist in tests only, as declarations, and their messages.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "codecs/declared/declared_codec.h"
#include "src/codec/bytes.h"

namespace metaprotocol::declared {

inline constexpr auto kSet = MutationOp::Kind::kSet;
inline constexpr auto kAdd = MutationOp::Kind::kAddIfAbsent;
inline constexpr auto kRemove = MutationOp::Kind::kRemove;

// Binary: one length, headers, everything the language has for a usual protocol.
inline constexpr std::string_view kAcme = R"({
  "framing": {"length": {"fields": ["length"], "after": "length"}},
  "fields": [
    {"name": "magic", "bytes": 2, "value": 44257},
    {"name": "flags", "bytes": 1},
    {"name": "type", "bitsOf": "flags", "mask": 240,
     "names": [{"number": 0, "name": "call"}, {"number": 1, "name": "tell"}]},
    {"name": "status", "bytes": 1},
    {"name": "id", "bytes": 8},
    {"name": "timeout", "bytes": 4},
    {"name": "length", "bytes": 4}],
  "requestFields": [
    {"name": "service", "lengthPrefix": 2},
    {"name": "method", "lengthPrefix": 2},
    {"name": "headers",
     "entries": {"lengthPrefix": 2, "keyLengthPrefix": 1, "valueLengthPrefix": 2}}],
  "kinds": [
    {"kind": "ONE_WAY", "when": [{"field": "type", "values": [1]}]},
    {"kind": "HEARTBEAT", "when": [{"field": "type", "values": [2]}]},
    {"kind": "HEARTBEAT_REPLY", "when": [{"field": "type", "values": [3]}]},
    {"kind": "GO_AWAY", "when": [{"field": "type", "values": [4]}]},
    {"kind": "RESPONSE", "when": [{"field": "type", "values": [5]}]}],
  "correlationId": "id",
  "status": {"field": "status", "exception": [1]},
  "timeout": {"field": "timeout"},
  "errorReply": {
    "set": [{"field": "type", "number": 5}, {"field": "status", "number": 50}],
    "copied": ["flags"],
    "statuses": [{"replies": ["no_route"], "number": 44}],
    "body": "{reply} {status}: {text}"},
  "emptyReply": {"set": [{"field": "type", "number": 5}]},
  "heartbeatReply": {"set": [{"field": "type", "number": 3}]},
  "ping": {"set": [{"field": "type", "number": 2}]},
  "goAway": {"set": [{"field": "type", "number": 4}]}
})";

// Text by lines: "AX1 <id> <service>.<method> k=v;k=v <body>\n".
inline constexpr std::string_view kLines = R"({
  "framing": {"delimiter": "\n"},
  "fields": [
    {"name": "version", "until": " ", "textValue": "AX1"},
    {"name": "id", "until": " ", "decimal": true}],
  "requestFields": [
    {"name": "service", "until": "."},
    {"name": "method", "until": " "},
    {"name": "tags", "entries": {"until": " ", "assign": "=", "separator": ";"}}],
  "responseFields": [{"name": "status", "until": " "}],
  "kinds": [{"kind": "HEARTBEAT", "when": [{"field": "method", "texts": ["PING"]}]}],
  "correlationId": "id",
  "errorReply": {"set": [{"field": "status", "text": "ERR"}], "body": "{reply} {text}"},
  "heartbeatReply": {"set": [{"field": "status", "text": "PONG"}]}
})";

// Several lengths, of different heads, in the other byte order.
inline constexpr std::string_view kSizes = R"({
  "byteOrder": "LITTLE",
  "framing": {"length": {"fields": ["class_bytes", "header_bytes", "body_bytes"],
                         "after": "body_bytes"}},
  "fields": [{"name": "id", "bytes": 4}],
  "requestFields": [
    {"name": "timeout", "bytes": 4},
    {"name": "class_bytes", "bytes": 2}, {"name": "header_bytes", "bytes": 2},
    {"name": "body_bytes", "bytes": 4},
    {"name": "class", "sizedBy": "class_bytes"},
    {"name": "header", "nullable": true, "entries":
      {"sizedBy": "header_bytes", "keyLengthPrefix": 4, "valueLengthPrefix": 4}}],
  "responseFields": [
    {"name": "status", "bytes": 2},
    {"name": "class_bytes", "bytes": 2}, {"name": "header_bytes", "bytes": 2},
    {"name": "body_bytes", "bytes": 4},
    {"name": "class", "sizedBy": "class_bytes"}],
  "correlationId": "id",
  "status": {"field": "status"},
  "errorReply": {"set": [{"field": "status", "number": 3}, {"field": "class", "text": "Error"}],
                 "body": "{text}"}
})";

// No ids; a client id that may be null; a list with a count, as the last field.
inline constexpr std::string_view kNullable = R"({
  "framing": {"length": {"fields": ["size"], "after": "size"}},
  "fields": [{"name": "size", "bytes": 4}],
  "requestFields": [
    {"name": "key", "bytes": 2, "names": [{"number": 3, "name": "Metadata"}]},
    {"name": "client", "lengthPrefix": 2, "nullable": true},
    {"name": "tags", "entries": {"countPrefix": 2, "keyLengthPrefix": 1, "valueLengthPrefix": 1}}],
  "orderedReplies": true,
  "stateful": true
})";

// A head with a length of its own within the message's.
inline constexpr std::string_view kHeads = R"({
  "framing": {"length": {"fields": ["length"], "after": "length"}},
  "fields": [
    {"name": "length", "bytes": 4},
    {"name": "head_bytes", "bytes": 1, "lengthThrough": "headers"},
    {"name": "id", "bytes": 4},
    {"name": "name", "lengthPrefix": 1},
    {"name": "headers",
     "entries": {"lengthPrefix": 1, "keyLengthPrefix": 1, "valueLengthPrefix": 1}},
    {"name": "mark", "bytes": 1}],
  "correlationId": "id",
  "errorReply": {"set": [{"field": "name", "text": "{text}"}], "body": "{reply}"}
})";

// A checksum at the end of messages that say so.
inline constexpr std::string_view kChecked = R"({
  "framing": {"length": {"fields": ["length"], "after": "length"}},
  "fields": [
    {"name": "flags", "bytes": 1},
    {"name": "checked", "bitsOf": "flags", "mask": 1},
    {"name": "id", "bytes": 4},
    {"name": "length", "bytes": 2},
    {"name": "method", "lengthPrefix": 1}],
  "correlationId": "id",
  "crc32": {"when": [{"field": "checked", "values": [1]}]},
  "errorReply": {"set": [{"field": "method", "text": "{reply}"}], "copied": ["flags"],
                 "body": "{text}"}
})";

// bRPC's baidu_std, whose head is protobuf: what codecs/brpc knows of it but for three things. It
// does not look into how much of a body is attachment, refuses methods with a dot in place of
// splitting them, and has one name for a service in place of two.
inline constexpr std::string_view kBrpc = R"({
  "framing": {"length": {"fields": ["bytes"], "after": "meta_bytes"}},
  "fields": [
    {"name": "magic", "bytes": 4, "value": 1347571779},
    {"name": "bytes", "bytes": 4},
    {"name": "meta_bytes", "bytes": 4}],
  "requestFields": [{"name": "meta", "message": {"sizedBy": "meta_bytes", "members": [
    {"name": "request", "path": "1", "type": "PRESENCE", "required": true},
    {"name": "service", "path": "1.1", "required": true},
    {"name": "method", "path": "1.2", "required": true, "without": "."},
    {"name": "log_id", "path": "1.3", "type": "INT64"},
    {"name": "user_fields", "path": "9", "type": "ENTRIES"},
    {"name": "ext_fields", "path": "1.7", "type": "ENTRIES"},
    {"name": "request_id", "path": "1.7"},
    {"name": "timeout_ms", "path": "1.8", "type": "INT32"},
    {"name": "response", "path": "2", "type": "PRESENCE"},
    {"name": "response_code", "path": "2.1", "type": "INT32"},
    {"name": "id", "path": "4", "type": "UINT64"},
    {"name": "authentication_data", "path": "7", "type": "PRESENCE", "value": 0},
    {"name": "stream_settings", "path": "8", "type": "PRESENCE", "value": 0}]}}],
  "responseFields": [{"name": "meta", "message": {"sizedBy": "meta_bytes", "members": [
    {"name": "request", "path": "1", "type": "PRESENCE"},
    {"name": "request_service", "path": "1.1"},
    {"name": "response", "path": "2", "type": "PRESENCE", "required": true},
    {"name": "error_code", "path": "2.1", "type": "INT32"},
    {"name": "error_text", "path": "2.2"},
    {"name": "id", "path": "4", "type": "UINT64"},
    {"name": "stream_settings", "path": "8", "type": "PRESENCE", "value": 0},
    {"name": "user_fields", "path": "9", "type": "ENTRIES"}]}}],
  "kinds": [
    {"kind": "OTHER", "sentBy": "CLIENT", "when": [{"field": "response", "values": [1]},
                                                   {"field": "request", "values": [0]}]},
    {"kind": "OTHER", "sentBy": "SERVER", "when": [{"field": "response", "values": [0]},
                                                   {"field": "request", "values": [1]}]}],
  "correlationId": "id",
  "status": {"field": "error_code", "serverErrors": [{"first": 1000, "last": 2999}]},
  "timeout": {"field": "timeout_ms"},
  "errorReply": {
    "set": [{"field": "error_code", "number": 2001}, {"field": "error_text", "text": "{text}"}],
    "statuses": [
      {"replies": ["no_route"], "number": 1001},
      {"replies": ["no_healthy_upstream"], "number": 112},
      {"replies": ["timeout"], "number": 1008},
      {"replies": ["over_limit"], "number": 2004},
      {"replies": ["denied"], "number": 1004},
      {"replies": ["upstream_lost"], "number": 1009},
      {"replies": ["too_large", "malformed"], "number": 1003},
      {"replies": ["shutting_down"], "number": 2003},
      {"replies": ["bad_response"], "number": 2002}]},
  "emptyReply": {"set": [{"field": "error_code", "number": 0}]}
})";

// Heads in JSON: everything the language has for them.
inline constexpr std::string_view kJson = R"({
  "framing": {"length": {"fields": ["length"], "after": "length"}},
  "fields": [
    {"name": "length", "bytes": 4},
    {"name": "head_bytes", "bytes": 2},
    {"name": "head", "message": {"format": "JSON", "sizedBy": "head_bytes", "members": [
      {"name": "id", "path": "id", "type": "INT32"},
      {"name": "method", "path": "call.method"},
      {"name": "timeout", "path": "call.timeout", "type": "UINT64"},
      {"name": "flags", "path": "flags", "type": "INT64"},
      {"name": "status", "path": "status", "type": "INT32",
       "names": [{"number": 0, "name": "good"}, {"number": 5, "name": "bad"}]},
      {"name": "text", "path": "text", "without": "\n"},
      {"name": "debug", "path": "debug", "type": "PRESENCE"},
      {"name": "tags", "path": "call.tags", "type": "ENTRIES"}]}},
    {"name": "tell", "bitsOf": "flags", "mask": 2},
    {"name": "beat", "bitsOf": "flags", "mask": 4}],
  "kinds": [
    {"kind": "ONE_WAY", "when": [{"field": "tell", "values": [1]}]},
    {"kind": "OTHER", "when": [{"field": "debug", "values": [1]}]},
    {"kind": "OTHER", "when": [{"field": "method", "texts": ["none \"at\" all"]}]},
    {"kind": "HEARTBEAT", "sentBy": "CLIENT", "when": [{"field": "beat", "values": [1]}]},
    {"kind": "HEARTBEAT_REPLY", "sentBy": "SERVER", "when": [{"field": "beat", "values": [1]}]}],
  "correlationId": "id",
  "status": {"field": "status"},
  "timeout": {"field": "timeout"},
  "errorReply": {"set": [{"field": "status", "text": "bad"}, {"field": "tell", "number": 1},
                         {"field": "text", "text": "{text}"}], "body": "{reply}"},
  "emptyReply": {},
  "heartbeatReply": {"set": [{"field": "beat", "number": 1}]}
})";

// Two forms of the same messages: as JSON and as bytes.
inline constexpr std::string_view kForms = R"({
  "framing": {"length": {"fields": ["length"], "after": "length"}},
  "fields": [
    {"name": "magic", "bytes": 1, "value": 77},
    {"name": "form", "bytes": 1},
    {"name": "length", "bytes": 4}],
  "forms": {"field": "form", "forms": [
    {"name": "bytes", "value": 1,
     "requestFields": [
       {"name": "id", "bytes": 4},
       {"name": "level", "bytes": 1, "names": [{"number": 2, "name": "high"}]},
       {"name": "method", "lengthPrefix": 1},
       {"name": "tags",
        "entries": {"lengthPrefix": 2, "keyLengthPrefix": 1, "valueLengthPrefix": 1}}],
     "responseFields": [
       {"name": "id", "bytes": 4},
       {"name": "status", "bytes": 1},
       {"name": "text", "lengthPrefix": 1}]},
    {"name": "json", "value": 9,
     "fields": [{"name": "head_bytes", "bytes": 1}],
     "requestFields": [
       {"name": "head", "message": {"format": "JSON", "sizedBy": "head_bytes", "members": [
         {"name": "id", "path": "id", "type": "UINT64"},
         {"name": "level", "path": "level"},
         {"name": "method", "path": "method"},
         {"name": "tags", "path": "tags", "type": "ENTRIES"}]}}],
     "responseFields": [
       {"name": "head", "message": {"format": "JSON", "sizedBy": "head_bytes", "members": [
         {"name": "id", "path": "id", "type": "UINT64"},
         {"name": "status", "path": "status", "type": "UINT64"},
         {"name": "text", "path": "text"}]}}]}]},
  "correlationId": "id",
  "status": {"field": "status"},
  "errorReply": {"set": [{"field": "status", "number": 3}, {"field": "text", "text": "{text}"}],
                 "body": "{reply}"}
})";

inline std::shared_ptr<const DeclaredCodec> Make(std::string_view json) {
  CodecOrError made = CreateDeclaredCodec("test", json);
  if (made.codec == nullptr) throw std::runtime_error(made.error);
  return std::static_pointer_cast<const DeclaredCodec>(made.codec);
}

inline std::string Be16(size_t n) {
  std::string out;
  AppendBe16(out, static_cast<uint16_t>(n));
  return out;
}
inline std::string Be32(size_t n) {
  std::string out;
  AppendBe32(out, static_cast<uint32_t>(n));
  return out;
}

using Headers = std::vector<std::pair<std::string, std::string>>;

inline std::string AcmeHeaders(const Headers& headers) {
  std::string list;
  for (const auto& [key, value] : headers) {
    list.push_back(static_cast<char>(key.size()));
    list += key + Be16(value.size()) + value;
  }
  return Be16(list.size()) + list;
}

inline std::string AcmeFrame(int type, int status, uint64_t id, std::string_view rest,
                             uint32_t timeout = 0) {
  std::string frame = "\xac\xe1";
  frame.push_back(static_cast<char>(type << 4));
  frame.push_back(static_cast<char>(status));
  AppendBe64(frame, id);
  frame += Be32(timeout) + Be32(rest.size());
  return frame.append(rest);
}

inline std::string AcmeRequest(uint64_t id, std::string_view service, std::string_view method,
                               const Headers& headers = {}, std::string_view body = "body",
                               int type = 0) {
  std::string rest = Be16(service.size()).append(service);
  rest += Be16(method.size()).append(method);
  return AcmeFrame(type, 0, id, rest.append(AcmeHeaders(headers)).append(body));
}

}  // namespace metaprotocol::declared
