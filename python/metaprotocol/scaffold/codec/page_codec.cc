// The protocol "page" in a library of its own: 4 bytes length of what follows, 1 byte kind (Q
// request, R reply, T one-way, H heartbeat, A its answer), 4 bytes id, a method name up to a zero
// byte, a body.
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

#include "metaprotocol/codec.hpp"

namespace {

constexpr size_t kHead = 9;

uint32_t Load(const char* p) {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(p[i]);
  return value;
}
void Append(std::string& out, uint64_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(value >> shift));
}
std::string Answer(char kind, uint64_t id, std::string_view text) {
  std::string out;
  Append(out, 5 + text.size() + 1);
  out.push_back(kind);
  Append(out, id);
  out.append(text).push_back('\0');
  return out;
}

}  // namespace

class PageCodec final : public metaprotocol::ExternalCodec {
 public:
  explicit PageCodec(const std::string& options) {
    if (!options.empty() && options != "{}") throw std::invalid_argument("page has no options");
  }

  static metaprotocol::ExternalTraits traits() {
    metaprotocol::ExternalTraits traits;
    traits.name = "page";
    traits.id_bits = 32;
    traits.multiplexed = true;
    traits.metadata_in_head = true;
    traits.keys = {"method"};
    return traits;
  }

  Result Decode(State*, Direction, std::string_view bytes, const DecodeOptions& options,
                Message& message, metaprotocol::MetadataSink& metadata) const override {
    if (bytes.size() < kHead) return NeedMore(kHead);
    message.length = uint64_t{Load(bytes.data())} + 4;
    if (message.length < kHead) return Error("length shorter than the header");
    message.id = Load(bytes.data() + 5);
    switch (bytes[4]) {
      case 'Q':
        message.kind = METAPROTOCOL_KIND_REQUEST;
        break;
      case 'T':
        message.kind = METAPROTOCOL_KIND_ONE_WAY;
        break;
      case 'H':
        message.kind = METAPROTOCOL_KIND_HEARTBEAT;
        break;
      case 'A':
        message.kind = METAPROTOCOL_KIND_HEARTBEAT_REPLY;
        break;
      case 'R':
        message.kind = METAPROTOCOL_KIND_RESPONSE;
        break;
      default:
        return Error("unknown kind");
    }
    if (message.length > options.max_message_bytes) return TooLarge("too large");
    if (bytes.size() < message.length && !options.allow_partial) return NeedMore(message.length);
    const std::string_view text = bytes.substr(kHead, message.length - kHead);
    const size_t end = text.find('\0');
    if (end == std::string_view::npos) {
      if (bytes.size() < message.length) return NeedMore(message.length);
      return Undecodable("no method name");
    }
    metadata.Set(0, text.substr(0, end));
    return Ok();
  }

  Encoded Encode(Direction, const Message&, std::string_view bytes, const EncodeOptions& options,
                 std::string& out) const override {
    out.append(bytes.substr(0, 5));
    Append(out, options.id);
    return {kHead};  // the rest is sent as it is
  }

  bool Reply(const ReplyContext& request, std::string_view reply, std::string_view text,
             std::string& out) const override {
    const std::string name(reply);
    out += Answer('R', request.id, reply == "no_content" ? "" : name + ": " + std::string(text));
    return true;
  }

  bool HeartbeatReply(Direction, const Message& heartbeat, std::string_view,
                      std::string& out) const override {
    out += Answer('A', heartbeat.id, "");
    return true;
  }
};

METAPROTOCOL_EXPORT_CODEC(PageCodec, "1")
