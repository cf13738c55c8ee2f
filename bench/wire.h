// The protocols of the load generator: just enough of each to send real messages and to check every
// reply, independent of the codecs under test.
//
// The message formats: Dubbo2 with Hessian2 bodies (request and response with attachments), Thrift
// framed binary, HTTP/1.1, and for clients HTTP/2 over plain TCP.
#pragma once

#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "src/codec/bytes.h"

namespace bench {

using metaprotocol::AppendBe16;
using metaprotocol::AppendBe32;
using metaprotocol::AppendBe64;
using metaprotocol::LoadBe16;
using metaprotocol::LoadBe32;
using metaprotocol::LoadBe64;

inline constexpr std::string_view kInterface = "org.apache.dubbo.samples.basic.api.DemoService";
inline constexpr std::string_view kMethod = "sayHello";

// Requests that one connection can have open at once; a request's number says which of them it is.
inline constexpr uint32_t kSlotBits = 10;
inline constexpr uint32_t kSlots = 1 << kSlotBits;

enum class Protocol { kDubbo, kThrift, kHttp1, kHttp2 };

// --- Hessian2

// A compact, short or chunked string; `text` is ASCII, so that bytes are characters.
inline void AppendHessian(std::string& out, std::string_view text) {
  for (; text.size() > 0xffff; text.remove_prefix(0xffff)) {
    out += 'R';
    AppendBe16(out, 0xffff);
    out += text.substr(0, 0xffff);
  }
  if (text.size() < 32) {
    out += static_cast<char>(text.size());
  } else if (text.size() < 1024) {
    AppendBe16(out, static_cast<uint16_t>(0x3000 + text.size()));
  } else {
    out += 'S';
    AppendBe16(out, static_cast<uint16_t>(text.size()));
  }
  out += text;
}

// Reads a string of ASCII text off `bytes` and returns its length, -1 if there is none.
inline int64_t SkipHessian(std::string_view& bytes) {
  int64_t total = 0;
  for (bool final = false; !final;) {
    if (bytes.size() < 3) return -1;
    const auto tag = static_cast<unsigned char>(bytes[0]);
    size_t head = 1;
    size_t length = tag;
    if (tag >= 0x30 && tag <= 0x33) {
      head = 2;
      length = LoadBe16(bytes.data()) - 0x3000;
    } else if (tag == 'R' || tag == 'S') {
      head = 3;
      length = LoadBe16(bytes.data() + 1);
    } else if (tag >= 32) {
      return -1;
    }
    if (bytes.size() < head + length) return -1;
    bytes.remove_prefix(head + length);
    total += static_cast<int64_t>(length);
    final = tag != 'R';
  }
  return total;
}

// --- messages, each followed by the place of its correlation id

inline constexpr size_t kDubboHead = 16;
inline constexpr size_t kDubboId = 4;
inline constexpr char kDubboTwoWay = 0x40;  // in the flags, the third byte

inline std::string DubboMessage(std::string_view flag_and_status, std::string_view body) {
  std::string message("\xda\xbb", 2);
  message += flag_and_status;
  AppendBe64(message, 0);
  AppendBe32(message, static_cast<uint32_t>(body.size()));
  message += body;
  return message;
}

inline std::string DubboRequest(size_t payload) {
  std::string body;
  for (const std::string_view text :
       {std::string_view("2.0.2"), kInterface, std::string_view("0.0.0"), kMethod,
        std::string_view("Ljava/lang/String;")}) {
    AppendHessian(body, text);
  }
  AppendHessian(body, std::string(payload, 'x'));
  body += 'H';
  const std::pair<std::string_view, std::string_view> attachments[] = {
      {"path", kInterface}, {"interface", kInterface}, {"version", "0.0.0"}, {"timeout", "1000"}};
  for (const auto& [key, value] : attachments) {
    AppendHessian(body, key);
    AppendHessian(body, value);
  }
  body += 'Z';
  return DubboMessage(std::string_view("\xc2\x00", 2), body);
}

inline std::string DubboReply(size_t payload) {
  std::string body = "\x94";  // a value, then attachments
  AppendHessian(body, std::string(payload, 'y'));
  body += 'H';
  AppendHessian(body, "dubbo");
  AppendHessian(body, "2.0.2");
  body += 'Z';
  return DubboMessage(std::string_view("\x02\x14", 2), body);
}

inline constexpr char kThriftOneWay = 4;  // the message type, behind frame length and version
inline constexpr size_t kThriftId = 4 + 4 + 4 + 8;  // behind frame length, version, name
static_assert(kMethod.size() == 8);

// One struct with one string field: the arguments (field 1) or the result (field 0).
inline std::string ThriftMessage(uint8_t type, size_t payload) {
  std::string message;
  AppendBe32(message, static_cast<uint32_t>(4 + 4 + kMethod.size() + 4 + 3 + 4 + payload + 1));
  AppendBe32(message, 0x80010000U | type);
  AppendBe32(message, static_cast<uint32_t>(kMethod.size()));
  message += kMethod;
  AppendBe32(message, 0);
  message += '\x0b';
  AppendBe16(message, type == 1 ? 1 : 0);
  AppendBe32(message, static_cast<uint32_t>(payload));
  message.append(payload, type == 1 ? 'x' : 'y');
  message += '\0';
  return message;
}

inline std::string HttpPath() { return "/" + std::string(kInterface) + "/" + std::string(kMethod); }

inline std::string Http1Request(size_t payload) {
  return "POST " + HttpPath() +
         " HTTP/1.1\r\nhost: bench\r\ncontent-length: " + std::to_string(payload) + "\r\n\r\n" +
         std::string(payload, 'x');
}

inline std::string Http1Reply(size_t payload) {
  return "HTTP/1.1 200 OK\r\ncontent-length: " + std::to_string(payload) + "\r\n\r\n" +
         std::string(payload, 'y');
}

// The length of the complete message at the front of `bytes`, 0 if it is not there yet. Nonsense
// gives nonsense, which the checks of the caller find.
inline size_t MessageLength(Protocol protocol, std::string_view bytes) {
  size_t length = 0;
  switch (protocol) {
    case Protocol::kDubbo:
      if (bytes.size() < kDubboHead) return 0;
      length = kDubboHead + LoadBe32(bytes.data() + 12);
      break;
    case Protocol::kThrift:
      if (bytes.size() < 4) return 0;
      length = 4 + size_t{LoadBe32(bytes.data())};
      break;
    case Protocol::kHttp1: {
      const size_t head = bytes.find("\r\n\r\n");
      if (head == std::string_view::npos) return 0;
      constexpr std::string_view kLength = "content-length: ";
      const size_t at = bytes.substr(0, head).find(kLength);
      length = head + 4;
      if (at != std::string_view::npos) {
        length += std::strtoul(bytes.data() + at + kLength.size(), nullptr, 10);
      }
      break;
    }
    case Protocol::kHttp2:
      break;
  }
  return bytes.size() >= length ? length : 0;
}

// --- servers

// Answers requests with as many bytes of payload as they carry themselves.
class Responder {
 public:
  explicit Responder(Protocol protocol) : protocol_(protocol) {}

  // Takes whole requests off the front of `bytes` and appends their replies to `out`; returns how
  // many bytes it took, -1 if the client talks nonsense. Messages that want no reply are added to
  // `one_way`.
  int64_t Answer(std::string_view bytes, std::string& out, uint64_t& one_way) {
    size_t taken = 0;
    while (const size_t length = MessageLength(protocol_, bytes.substr(taken))) {
      const std::string_view request = bytes.substr(taken, length);
      const int64_t payload = Payload(request);
      if (payload < 0) return -1;
      if (IsOneWay(request)) {
        ++one_way;
        taken += length;
        continue;
      }
      const size_t at = out.size();
      out += Template(static_cast<size_t>(payload));
      if (protocol_ == Protocol::kDubbo) {
        std::memcpy(&out[at + kDubboId], &request[kDubboId], 8);
      } else if (protocol_ == Protocol::kThrift) {
        std::memcpy(&out[at + kThriftId], &request[kThriftId], 4);
      }
      taken += length;
    }
    return static_cast<int64_t>(taken);
  }

  int64_t Answer(std::string_view bytes, std::string& out) {
    uint64_t one_way = 0;
    return Answer(bytes, out, one_way);
  }

 private:
  bool IsOneWay(std::string_view request) const {
    if (protocol_ == Protocol::kDubbo) return (request[2] & kDubboTwoWay) == 0;
    return protocol_ == Protocol::kThrift && request[7] == kThriftOneWay;
  }

  int64_t Payload(std::string_view request) const {
    switch (protocol_) {
      case Protocol::kDubbo: {
        std::string_view body = request.substr(kDubboHead);
        int64_t length = 0;
        for (int field = 0; field < 6 && length >= 0; ++field) length = SkipHessian(body);
        return length;
      }
      case Protocol::kThrift:
        if (request.size() < kThriftId + 11) return -1;
        return LoadBe32(&request[kThriftId + 7]);
      default:
        return static_cast<int64_t>(request.size() - request.find("\r\n\r\n") - 4);
    }
  }

  const std::string& Template(size_t payload) {
    if (reply_.empty() || payload != reply_payload_) {
      reply_payload_ = payload;
      reply_ = protocol_ == Protocol::kDubbo    ? DubboReply(payload)
               : protocol_ == Protocol::kThrift ? ThriftMessage(2, payload)
                                                : Http1Reply(payload);
    }
    return reply_;
  }

  const Protocol protocol_;
  std::string reply_;
  size_t reply_payload_ = 0;
};

// --- clients

// One connection's requests and replies. A request is known by its slot; a reply that does not
// belong to an open one, or is not the expected one, is reported as wrong.
class Caller {
 public:
  // Called for each reply: its slot, and whether it was as expected.
  using OnReply = std::function<void(uint32_t slot, bool ok)>;

  virtual ~Caller() = default;
  virtual void Begin(std::string&) {}
  virtual void Call(uint32_t slot, std::string& out) = 0;
  // A message without reply; nothing in protocols that have none.
  virtual void CallOneWay(std::string&) {}
  // Takes replies off the front of `bytes`; `out` is for what the protocol has to answer to them.
  // Returns how many bytes it took, -1 if the connection is beyond use.
  virtual int64_t Receive(std::string_view bytes, std::string& out, const OnReply& on_reply) = 0;

  // `longer_replies`: something may be added to replies on their way; Dubbo and Thrift only.
  static std::unique_ptr<Caller> Create(Protocol protocol, size_t payload,
                                        bool longer_replies = false);
};

// Dubbo and Thrift: the id carries the slot and a count that no two requests in flight share.
class IdCaller final : public Caller {
 public:
  IdCaller(Protocol protocol, size_t payload, bool longer_replies)
      : protocol_(protocol),
        longer_replies_(longer_replies),
        request_(protocol == Protocol::kDubbo ? DubboRequest(payload) : ThriftMessage(1, payload)),
        reply_(protocol == Protocol::kDubbo ? DubboReply(payload) : ThriftMessage(2, payload)),
        ids_(kSlots) {}

  void Call(uint32_t slot, std::string& out) override {
    const uint32_t id = (++count_ & 0x1fffff) << kSlotBits | slot;
    ids_[slot] = id;
    const size_t at = out.size();
    out += request_;
    if (protocol_ == Protocol::kDubbo) {
      metaprotocol::StoreBe64(&out[at + kDubboId], id);
    } else {
      metaprotocol::StoreBe32(&out[at + kThriftId], id);
    }
  }

  void CallOneWay(std::string& out) override {
    const size_t at = out.size();
    out += request_;
    if (protocol_ == Protocol::kDubbo) {
      out[at + 2] = static_cast<char>(out[at + 2] & ~kDubboTwoWay);
    } else {
      out[at + 7] = kThriftOneWay;
    }
  }

  int64_t Receive(std::string_view bytes, std::string&, const OnReply& on_reply) override {
    size_t taken = 0;
    while (const size_t length = MessageLength(protocol_, bytes.substr(taken))) {
      const std::string_view reply = bytes.substr(taken, length);
      const size_t id_at = protocol_ == Protocol::kDubbo ? kDubboId : kThriftId;
      const size_t id_size = protocol_ == Protocol::kDubbo ? 8 : 4;
      if (length < id_at + id_size) return -1;
      const uint64_t id =
          protocol_ == Protocol::kDubbo ? LoadBe64(&reply[id_at]) : LoadBe32(&reply[id_at]);
      const auto slot = static_cast<uint32_t>(id % kSlots);
      if (ids_[slot] != id) return -1;  // nobody asked for this
      ids_[slot] = 0;
      on_reply(slot, Expected(reply, id_at + id_size));
      taken += length;
    }
    return static_cast<int64_t>(taken);
  }

 private:
  // Flags, status, type and length of the reply; the text itself is the server's word.
  bool Expected(std::string_view reply, size_t behind_id) const {
    constexpr size_t kDubboBody = kDubboHead + 4;
    const std::string_view expected = reply_;
    if (reply.size() != expected.size()) {
      if (!longer_replies_ || reply.size() < expected.size()) return false;
      // What was added is behind the value, whose type is told first.
      return protocol_ == Protocol::kThrift
                 ? reply.substr(4, 4) == expected.substr(4, 4)
                 : reply.substr(0, kDubboId) == expected.substr(0, kDubboId) &&
                       reply.substr(kDubboHead, 2) == expected.substr(kDubboHead, 2);
    }
    if (protocol_ == Protocol::kDubbo) {
      return reply.substr(0, kDubboId) == expected.substr(0, kDubboId) &&
             reply.substr(behind_id, kDubboBody - behind_id) ==
                 expected.substr(behind_id, kDubboBody - behind_id);
    }
    return reply.substr(4, 4) == expected.substr(4, 4) &&
           reply.substr(behind_id, 7) == expected.substr(behind_id, 7);
  }

  const Protocol protocol_;
  const bool longer_replies_;
  const std::string request_;
  const std::string reply_;
  std::vector<uint32_t> ids_;  // of the open request in each slot; 0: none
  uint32_t count_ = 0;
};

// HTTP/1.1: replies come in the order of the requests.
class Http1Caller final : public Caller {
 public:
  explicit Http1Caller(size_t payload) : payload_(payload), request_(Http1Request(payload)) {}

  void Call(uint32_t slot, std::string& out) override {
    open_.push_back(slot);
    out += request_;
  }

  int64_t Receive(std::string_view bytes, std::string&, const OnReply& on_reply) override {
    size_t taken = 0;
    while (const size_t length = MessageLength(Protocol::kHttp1, bytes.substr(taken))) {
      const std::string_view reply = bytes.substr(taken, length);
      if (open_.empty()) return -1;
      const uint32_t slot = open_.front();
      open_.pop_front();
      const bool ok = reply.starts_with("HTTP/1.1 200") &&
                      reply.size() - reply.find("\r\n\r\n") - 4 == payload_;
      on_reply(slot, ok);
      taken += length;
    }
    return static_cast<int64_t>(taken);
  }

 private:
  const size_t payload_;
  const std::string request_;
  std::deque<uint32_t> open_;
};

// HTTP/2 (RFC 9113) as a client that knows its own few headers: one HEADERS and as many DATA frames
// as needed per request, header fields from the HPACK tables (RFC 7541) once the first request has
// put them there, windows so large that they never stop a reply.
class Http2Caller final : public Caller {
 public:
  explicit Http2Caller(size_t payload) : payload_(payload) {}

  void Begin(std::string& out) override {
    out += "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    Frame(out, 12, kSettings, 0, 0);
    AppendBe16(out, 2);  // ENABLE_PUSH
    AppendBe32(out, 0);
    AppendBe16(out, 4);  // INITIAL_WINDOW_SIZE
    AppendBe32(out, 0x7fffffff);
    Grant(out, 0x7fffffff - 65535);
  }

  // Requests wait for the server's settings and, if they are large, for its windows.
  void Call(uint32_t slot, std::string& out) override {
    waiting_.push_back(slot);
    SendWaiting(out);
  }

  int64_t Receive(std::string_view bytes, std::string& out, const OnReply& on_reply) override {
    size_t taken = 0;
    while (bytes.size() - taken >= 9) {
      const char* head = bytes.data() + taken;
      const size_t length = LoadBe32(head) >> 8;
      if (bytes.size() - taken < 9 + length) break;
      const auto type = static_cast<uint8_t>(head[3]);
      const auto flags = static_cast<uint8_t>(head[4]);
      const uint32_t stream = LoadBe32(head + 5) & 0x7fffffff;
      const std::string_view payload = bytes.substr(taken + 9, length);
      if (!OnFrame(type, flags, stream, payload, out, on_reply)) return -1;
      taken += 9 + length;
    }
    return static_cast<int64_t>(taken);
  }

 private:
  static constexpr uint8_t kData = 0, kHeaders = 1, kReset = 3, kSettings = 4, kPing = 6,
                           kGoAway = 7, kWindowUpdate = 8;
  static constexpr uint8_t kEndStream = 1, kAck = 1, kEndHeaders = 4;

  struct Stream {
    uint32_t slot = 0;
    size_t received = 0;
    bool ok = false;
  };

  static void Frame(std::string& out, size_t length, uint8_t type, uint8_t flags, uint32_t stream) {
    AppendBe32(out, static_cast<uint32_t>(length << 8 | type));
    out += static_cast<char>(flags);
    AppendBe32(out, stream);
  }
  static void Grant(std::string& out, uint32_t bytes) {
    Frame(out, 4, kWindowUpdate, 0, 0);
    AppendBe32(out, bytes);
  }
  // A literal field with incremental indexing and an indexed name; shorter than 127 bytes.
  static void Literal(std::string& out, uint8_t name, std::string_view value) {
    out += static_cast<char>(0x40 | name);
    out += static_cast<char>(value.size());
    out += value;
  }

  void SendWaiting(std::string& out) {
    while (!waiting_.empty() && settled_ && window_ >= static_cast<int64_t>(payload_)) {
      Send(waiting_.front(), out);
      waiting_.pop_front();
    }
  }

  void Send(uint32_t slot, std::string& out) {
    const uint32_t stream = next_stream_;
    next_stream_ += 2;
    open_[stream] = {slot, 0, false};
    window_ -= static_cast<int64_t>(payload_);
    std::string headers = "\x83\x86";  // :method POST, :scheme http
    if (stream == 1) {
      Literal(headers, 4, HttpPath());
      Literal(headers, 1, "bench");                    // :authority
      Literal(headers, 28, std::to_string(payload_));  // content-length
    } else {
      headers += "\xc0\xbf\xbe";  // the three, of which the last is the newest entry, 62
    }
    Frame(out, headers.size(), kHeaders, kEndHeaders, stream);
    out += headers;
    size_t left = payload_;
    do {
      const size_t part = left < 16384 ? left : 16384;
      left -= part;
      Frame(out, part, kData, left == 0 ? kEndStream : 0, stream);
      out.append(part, 'x');
    } while (left > 0);
  }

  bool OnFrame(uint8_t type, uint8_t flags, uint32_t stream, std::string_view payload,
               std::string& out, const OnReply& on_reply) {
    switch (type) {
      case kSettings:
        if ((flags & kAck) != 0) return true;
        Frame(out, 0, kSettings, kAck, 0);
        settled_ = true;  // the streams' windows are as the listener's configuration says: ample
        SendWaiting(out);
        return true;
      case kPing:
        if ((flags & kAck) == 0) {
          Frame(out, payload.size(), kPing, kAck, 0);
          out += payload;
        }
        return true;
      case kWindowUpdate:
        if (payload.size() != 4) return false;
        if (stream == 0) window_ += LoadBe32(payload.data()) & 0x7fffffff;
        SendWaiting(out);
        return true;
      case kHeaders:
      case kData:
        break;
      default:
        return false;  // RST_STREAM, GOAWAY, or what no server should send
    }
    const auto found = open_.find(stream);
    if (found == open_.end()) return false;
    Stream& open = found->second;
    if (type == kHeaders) {
      open.ok = payload.starts_with('\x88');  // :status 200 is the first field
    } else {
      open.received += payload.size();
      unread_ += payload.size();
      if (unread_ >= uint32_t{1} << 28) {
        Grant(out, unread_);
        unread_ = 0;
      }
    }
    if ((flags & kEndStream) != 0) {
      const bool ok = open.ok && open.received == payload_;
      const uint32_t slot = open.slot;
      open_.erase(found);
      on_reply(slot, ok);
    }
    return true;
  }

  const size_t payload_;
  uint32_t next_stream_ = 1;
  std::deque<uint32_t> waiting_;  // slots
  bool settled_ = false;
  int64_t window_ = 65535;  // of the connection, for what we send
  uint32_t unread_ = 0;     // bytes received since the connection's window was last opened
  std::unordered_map<uint32_t, Stream> open_;
};

inline std::unique_ptr<Caller> Caller::Create(Protocol protocol, size_t payload,
                                              bool longer_replies) {
  switch (protocol) {
    case Protocol::kHttp1:
      return std::make_unique<Http1Caller>(payload);
    case Protocol::kHttp2:
      return std::make_unique<Http2Caller>(payload);
    default:
      return std::make_unique<IdCaller>(protocol, payload, longer_replies);
  }
}

}  // namespace bench
