// The protocol with streams of tests/testkit/streams.py as a codec in a library of its own: 4 bytes
// length of what follows, kind, 8 bytes id, lines of keys up to a zero byte, a body.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "metaprotocol/codec.hpp"

namespace {

constexpr size_t kHead = 13;

uint64_t Load(std::string_view bytes, size_t at, size_t n) {
  uint64_t value = 0;
  for (size_t i = 0; i < n; ++i) value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return value;
}
void Append(std::string& out, uint64_t value, int bytes) {
  while (bytes-- > 0) out += static_cast<char>(value >> (8 * bytes));
}
void AppendMessage(std::string& out, char kind, uint64_t id, std::string_view body) {
  Append(out, 10 + body.size(), 4);
  out += kind;
  Append(out, id, 8);
  out += '\0';
  out += body;
}

}  // namespace

class StreamCodec final : public metaprotocol::ExternalCodec {
 public:
  explicit StreamCodec(const std::string&) {}

  static metaprotocol::ExternalTraits traits() {
    metaprotocol::ExternalTraits traits;
    traits.name = "streams";
    traits.id_bits = 64;
    traits.multiplexed = true;
    traits.streams = true;
    return traits;
  }

  Result Decode(State*, Direction, std::string_view bytes, const DecodeOptions& options,
                Message& message, metaprotocol::MetadataSink& metadata) const override {
    if (bytes.size() < kHead) return NeedMore(kHead);
    message.length = Load(bytes, 0, 4) + 4;
    if (message.length <= kHead) return Error("too short");
    const uint64_t id = Load(bytes, 5, 8);
    const char kind = bytes[4];
    if (kind == 'Q') {
      message.kind = METAPROTOCOL_KIND_REQUEST;
    } else if (kind == 'R' || kind == 'E') {
      message.kind = METAPROTOCOL_KIND_RESPONSE;
      if (kind == 'E') message.status = METAPROTOCOL_STATUS_ERROR;
    } else if (!ReadStream(kind, message)) {
      return Error("unknown kind");
    }
    (message.kind >= METAPROTOCOL_KIND_STREAM_OPEN ? message.stream_id : message.id) = id;
    if (message.length > options.max_message_bytes) return TooLarge("too large");
    if (bytes.size() < message.length) return NeedMore(message.length);
    const std::string_view rest = bytes.substr(kHead, message.length - kHead);
    const size_t end = rest.find('\0');
    if (end == std::string_view::npos) return Undecodable("no keys");
    if (kind == 'W')
      message.window = std::strtoull(std::string(rest.substr(end + 1)).c_str(), nullptr, 10);
    std::string_view keys = rest.substr(0, end);
    if (const size_t assign = keys.find('='); assign != std::string_view::npos) {
      metadata.SetNamed(keys.substr(0, assign), keys.substr(assign + 1));
    }
    return Ok();
  }

  Encoded Encode(Direction, const Message& message, std::string_view bytes,
                 const EncodeOptions& options, std::string& out) const override {
    out.append(bytes.substr(0, 5));
    const bool of_stream = message.kind >= METAPROTOCOL_KIND_STREAM_OPEN;
    Append(out, of_stream ? options.stream_id : options.id, 8);
    return {kHead, {}};
  }

  bool Reply(const ReplyContext& request, std::string_view reply, std::string_view,
             std::string& out) const override {
    AppendMessage(out, 'E', request.id, reply);
    return true;
  }

  bool ResetStream(const ReplyContext& stream, Direction, std::string_view reason, std::string_view,
                   std::string& out) const override {
    AppendMessage(out, 'Z', stream.stream_id, reason);
    return true;
  }

  bool GrantWindow(const ReplyContext& stream, Direction, uint64_t bytes,
                   std::string& out) const override {
    AppendMessage(out, 'W', stream.stream_id, std::to_string(bytes));
    return true;
  }

 private:
  static bool ReadStream(char kind, Message& message) {
    switch (kind) {
      case 'S':
        message.kind = METAPROTOCOL_KIND_STREAM_OPEN;
        return true;
      case 'D':
      case 'L':
        message.kind = METAPROTOCOL_KIND_STREAM_DATA;
        message.end_stream = kind == 'L';
        return true;
      case 'F':
        message.kind = METAPROTOCOL_KIND_STREAM_END;
        message.end_stream = true;
        return true;
      case 'Z':
        message.kind = METAPROTOCOL_KIND_STREAM_RESET;
        return true;
      case 'W':
        message.kind = METAPROTOCOL_KIND_STREAM_WINDOW;
        return true;
      default:
        return false;
    }
  }
};

METAPROTOCOL_EXPORT_CODEC(StreamCodec, "1")
