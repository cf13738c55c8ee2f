#include "src/limit/rate_limit_service.h"

#include <optional>

#include "src/codec/utf8.h"
#include "src/codec/varint.h"

namespace metaprotocol {
namespace {

// Wire types: https://protobuf.dev/programming-guides/encoding/.
enum WireType : uint8_t { kVarint = 0, kFixed64 = 1, kLength = 2, kFixed32 = 5 };

constexpr uint64_t Tag(uint32_t field, WireType type) { return uint64_t{field} << 3 | type; }

void AppendField(std::string& out, uint32_t field, std::string_view bytes) {
  AppendVarint(Tag(field, kLength), out);
  AppendVarint(bytes.size(), out);
  out += bytes;
}

// `text` with "?" for each byte that is no UTF-8: the service would refuse the whole question.
std::string Utf8(std::string_view text) {
  if (IsUtf8(text)) return std::string(text);
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const size_t width = Utf8At(text, i).width;
    out += width == 0 ? std::string_view("?") : text.substr(i, width);
    i += width == 0 ? 1 : width;
  }
  return out;
}

std::optional<uint64_t> TakeVarint(Bytes& bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes.size() && i < 10; ++i) {
    const auto byte = static_cast<uint8_t>(bytes[i]);
    value |= uint64_t{byte & 0x7fu} << (7 * i);
    if ((byte & 0x80) != 0) continue;
    bytes.remove_prefix(i + 1);
    return value;
  }
  return std::nullopt;
}

bool Skip(Bytes& bytes, uint64_t count) {
  if (count > bytes.size()) return false;
  bytes.remove_prefix(count);
  return true;
}

// Passes over a field's value; false if it is not there to its end.
bool SkipValue(Bytes& bytes, uint8_t type) {
  switch (type) {
    case kVarint:
      return TakeVarint(bytes).has_value();
    case kFixed64:
      return Skip(bytes, 8);
    case kLength: {
      const auto length = TakeVarint(bytes);
      return length && Skip(bytes, *length);
    }
    case kFixed32:
      return Skip(bytes, 4);
    default:
      return false;
  }
}

}  // namespace

void RateLimitRequestWriter::AddDescriptor(std::string_view key, std::string_view value) {
  std::string entry;
  AppendField(entry, 1, key);
  AppendField(entry, 2, Utf8(value));
  std::string descriptor;
  AppendField(descriptor, 1, entry);
  AppendField(descriptors_, 2, descriptor);
}

std::string RateLimitRequestWriter::Finish(std::string_view domain) const {
  std::string message;
  AppendField(message, 1, domain);
  message += descriptors_;
  AppendVarint(Tag(3, kVarint), message);  // hits_addend
  AppendVarint(1, message);
  return message;
}

RateLimitVerdict ReadRateLimitResponse(Bytes message) {
  uint64_t code = 0;
  while (!message.empty()) {
    const auto tag = TakeVarint(message);
    if (!tag) return RateLimitVerdict::kNone;
    if (*tag == Tag(1, kVarint)) {
      const auto value = TakeVarint(message);
      if (!value) return RateLimitVerdict::kNone;
      code = *value;
    } else if (!SkipValue(message, static_cast<uint8_t>(*tag & 7))) {
      return RateLimitVerdict::kNone;
    }
  }
  if (code == 1) return RateLimitVerdict::kOk;
  return code == 2 ? RateLimitVerdict::kOverLimit : RateLimitVerdict::kNone;
}

}  // namespace metaprotocol
