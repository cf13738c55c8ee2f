#include "src/limit/rate_limit_service.h"

#include <optional>

namespace metaprotocol {
namespace {

// Wire types: https://protobuf.dev/programming-guides/encoding/.
enum WireType : uint8_t { kVarint = 0, kFixed64 = 1, kLength = 2, kFixed32 = 5 };

constexpr uint64_t Tag(uint32_t field, WireType type) { return uint64_t{field} << 3 | type; }

void AppendVarint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(0x80 | (value & 0x7f));
  out += static_cast<char>(value);
}

void AppendField(std::string& out, uint32_t field, std::string_view bytes) {
  AppendVarint(out, Tag(field, kLength));
  AppendVarint(out, bytes.size());
  out += bytes;
}

// `text` with "?" for each byte that is no UTF-8: the service would refuse the whole question.
std::string Utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<uint8_t>(text[i]);
    const size_t length = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    bool valid = length != 0 && lead < 0xf5 && length <= text.size() - i;
    uint32_t code = lead & (0x7fu >> length);
    for (size_t k = 1; valid && k < length; ++k) {
      const auto byte = static_cast<uint8_t>(text[i + k]);
      valid = (byte & 0xc0) == 0x80;
      code = code << 6 | (byte & 0x3f);
    }
    // Overlong forms, surrogates, beyond the last character (RFC 3629).
    if (length == 3) valid = valid && code >= 0x800 && (code < 0xd800 || code > 0xdfff);
    if (length == 4) valid = valid && code >= 0x10000 && code <= 0x10ffff;
    if (valid) {
      out += text.substr(i, length);
      i += length;
    } else {
      out += '?';
      ++i;
    }
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

void RateLimitRequestWriter::AddEntry(std::string_view key, std::string_view value) {
  std::string entry;
  AppendField(entry, 1, key);
  AppendField(entry, 2, Utf8(value));
  AppendField(descriptor_, 1, entry);
}

std::string RateLimitRequestWriter::Finish(std::string_view domain) const {
  std::string message;
  AppendField(message, 1, domain);
  AppendField(message, 2, descriptor_);
  AppendVarint(message, Tag(3, kVarint));  // hits_addend
  AppendVarint(message, 1);
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
