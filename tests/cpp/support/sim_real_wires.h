// Dubbo and Thrift as the simulated clients and servers speak them: as much as scenarios need,
// written apart from the codecs so that a mistake in one does not hide in the other.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "tests/cpp/support/sim_wire.h"

namespace metaprotocol::test {

// Dubbo2 with Hessian2 bodies. The token is the method's name in requests and the value in replies;
// local errors carry none.
class DubboWire final : public Wire {
 public:
  std::string Make(char kind, uint64_t id, std::string_view token, std::string_view body,
                   const FakeKv& more) const override {
    uint8_t flags = kHessian2;
    uint8_t status = 0;
    std::string payload;
    switch (kind) {
      case 'Q':
      case 'O':
        flags |= kind == 'Q' ? kRequest | kTwoWay : kRequest;
        payload = Text("2.0.2") + Text("demo.Sim") + Text("0.0.0") + Text(token) + Text("[B") +
                  Binary(body) + "H";
        for (const auto& [key, value] : more) payload += Text(key) + Text(value);
        payload += "Z";
        break;
      case 'R':
        status = kOk;
        payload = "\x91" + Text(token);
        break;
      case 'X':
        status = kOk;
        payload = "\x90" + Text(token);
        break;
      case 'E':
        status = 70;  // service error
        payload = Text(token);
        break;
      case 'H':
        flags |= kRequest | kTwoWay | kEvent;
        payload = "N";
        break;
      case 'h':
        flags |= kEvent;
        status = kOk;
        payload = "N";
        break;
      default:
        return {};
    }
    // Large replies: the codec must not care what comes behind the value.
    if (kind == 'R' || kind == 'X') payload += Binary(body);
    std::string out = {'\xda', '\xbb', static_cast<char>(flags), static_cast<char>(status)};
    AppendBe64(out, id);
    AppendBe32(out, static_cast<uint32_t>(payload.size()));
    return out + payload;
  }

  std::optional<WireMessage> Take(Bytes bytes) const override {
    if (bytes.size() < 16) return std::nullopt;
    WireMessage message;
    const size_t size = size_t{16} + LoadBe32(bytes.data() + 12);
    if (bytes[0] != '\xda' || bytes[1] != '\xbb') return message;
    if (bytes.size() < size) return std::nullopt;
    message.size = size;
    message.id = LoadBe64(bytes.data() + 4);
    const auto flags = static_cast<uint8_t>(bytes[2]);
    const auto status = static_cast<uint8_t>(bytes[3]);
    ByteReader reader(bytes.substr(16, size - 16));
    if ((flags & kEvent) != 0) {
      message.kind = (flags & kRequest) == 0 ? 'h' : TakeText(reader) == "R" ? 'G' : 'H';
    } else if ((flags & kRequest) != 0) {
      message.kind = (flags & kTwoWay) != 0 ? 'Q' : 'O';
      for (int i = 0; i < 3; ++i) TakeText(reader);
      message.token = TakeText(reader);
    } else if (status != kOk) {
      message.kind = 'E';
    } else {
      uint8_t what = 0;
      reader.ReadU8(what);
      message.kind = what == 0x90 || what == 0x93 ? 'X' : 'R';
      message.token = TakeText(reader);
    }
    return message;
  }

  bool has_ids() const override { return true; }

 private:
  static constexpr uint8_t kRequest = 0x80;
  static constexpr uint8_t kTwoWay = 0x40;
  static constexpr uint8_t kEvent = 0x20;
  static constexpr uint8_t kHessian2 = 2;
  static constexpr uint8_t kOk = 20;

  static std::string Text(std::string_view text) {
    return std::string(1, static_cast<char>(text.size())) + std::string(text);
  }
  // In chunks of 64 KiB at most: 'A' before those that others follow, 'B' before the last.
  static std::string Binary(std::string_view bytes) {
    std::string out;
    while (bytes.size() > 0xffff) {
      out += "A\xff\xff" + std::string(bytes.substr(0, 0xffff));
      bytes.remove_prefix(0xffff);
    }
    out += 'B';
    AppendBe16(out, static_cast<uint16_t>(bytes.size()));
    return out + std::string(bytes);
  }
  static std::string TakeText(ByteReader& reader) {
    uint8_t length = 0;
    Bytes text;
    if (!reader.ReadU8(length) || !reader.ReadBytes(length, text)) return {};
    return std::string(text);
  }
};

// Thrift: strict binary protocol in frames. The token is the method's name, in both directions.
class ThriftWire final : public Wire {
 public:
  std::string Make(char kind, uint64_t id, std::string_view token, std::string_view body,
                   const FakeKv&) const override {
    char type = 0;
    switch (kind) {
      case 'Q':
        type = 1;
        break;
      case 'R':
        type = 2;
        break;
      case 'E':
        type = 3;
        break;
      case 'O':
        type = 4;
        break;
      default:
        return {};
    }
    std::string message = std::string("\x80\x01\x00", 3) + type;
    AppendBe32(message, static_cast<uint32_t>(token.size()));
    message += token;
    AppendBe32(message, static_cast<uint32_t>(id));
    message += std::string("\x0b\x00\x01", 3);  // field 1, string
    AppendBe32(message, static_cast<uint32_t>(body.size()));
    message += body;
    message += '\0';
    std::string out;
    AppendBe32(out, static_cast<uint32_t>(message.size()));
    return out + message;
  }

  std::optional<WireMessage> Take(Bytes bytes) const override {
    if (bytes.size() < 4) return std::nullopt;
    WireMessage message;
    ByteReader reader(bytes);
    uint32_t size = 0;
    Bytes frame;
    reader.ReadBe32(size);
    if (size > (uint32_t{64} << 20)) return message;
    if (!reader.ReadBytes(size, frame)) return std::nullopt;
    message.size = size_t{4} + size;
    ByteReader in(frame);
    uint32_t version = 0;
    uint32_t length = 0;
    uint32_t id = 0;
    Bytes name;
    if (!in.ReadBe32(version) || version >> 16 != 0x8001 || !in.ReadBe32(length) ||
        !in.ReadBytes(length, name) || !in.ReadBe32(id)) {
      return message;
    }
    static constexpr char kKinds[] = {0, 'Q', 'R', 'E', 'O'};
    const uint32_t type = version & 0xff;
    message.kind = type < sizeof kKinds ? kKinds[type] : '\0';
    message.id = id;
    message.token = name;
    return message;
  }

  bool has_ids() const override { return true; }
};

}  // namespace metaprotocol::test
