// See utf8.h.
#include "codecs/dubbo/utf8.h"

#include <cstring>

namespace metaprotocol::dubbo {
namespace {

constexpr uint64_t kHighBits = 0x8080808080808080u;

uint8_t At(std::string_view s, size_t i) { return static_cast<uint8_t>(s[i]); }

bool IsContinuation(std::string_view s, size_t i) { return (At(s, i) & 0xC0) == 0x80; }

bool IsHighSurrogate(uint32_t c) { return c >= 0xD800 && c <= 0xDBFF; }
bool IsLowSurrogate(uint32_t c) { return c >= 0xDC00 && c <= 0xDFFF; }

struct CodePoint {
  uint32_t value = 0;
  size_t width = 0;  // 0: the bytes there are not strict UTF-8
};

CodePoint StrictAt(std::string_view s, size_t i) {
  const uint32_t lead = At(s, i);
  const size_t left = s.size() - i;
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xC2) return {};
  if (lead < 0xE0) {
    if (left < 2 || !IsContinuation(s, i + 1)) return {};
    return {(lead & 0x1F) << 6 | (At(s, i + 1) & 0x3Fu), 2};
  }
  if (lead < 0xF0) {
    if (left < 3 || !IsContinuation(s, i + 1) || !IsContinuation(s, i + 2)) return {};
    const uint32_t c = (lead & 0x0F) << 12 | (At(s, i + 1) & 0x3Fu) << 6 | (At(s, i + 2) & 0x3Fu);
    if (c < 0x800 || (c >= 0xD800 && c <= 0xDFFF)) return {};
    return {c, 3};
  }
  if (lead > 0xF4 || left < 4 || !IsContinuation(s, i + 1) || !IsContinuation(s, i + 2) ||
      !IsContinuation(s, i + 3)) {
    return {};
  }
  const uint32_t c = (lead & 0x07) << 18 | (At(s, i + 1) & 0x3Fu) << 12 |
                     (At(s, i + 2) & 0x3Fu) << 6 | (At(s, i + 3) & 0x3Fu);
  if (c < 0x10000 || c > 0x10FFFF) return {};
  return {c, 4};
}

// One unit as Java's reader assembles it; width 0 if the bytes end too early.
CodePoint JavaUnitAt(std::string_view s, size_t i) {
  const uint32_t lead = At(s, i);
  const size_t left = s.size() - i;
  if (lead < 0x80) return {lead, 1};
  if ((lead & 0xE0) == 0xC0 && left >= 2) return {(lead & 0x1F) << 6 | (At(s, i + 1) & 0x3Fu), 2};
  if ((lead & 0xF0) == 0xE0 && left >= 3) {
    return {(lead & 0x0F) << 12 | (At(s, i + 1) & 0x3Fu) << 6 | (At(s, i + 2) & 0x3Fu), 3};
  }
  return StrictAt(s, i);
}

}  // namespace

bool IsAscii(std::string_view text) {
  size_t i = 0;
  for (; i + 8 <= text.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, text.data() + i, sizeof word);
    if (word & kHighBits) return false;
  }
  for (; i < text.size(); ++i) {
    if (At(text, i) & 0x80) return false;
  }
  return true;
}

bool IsUtf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = StrictAt(text, i);
    if (c.width == 0) return false;
    i += c.width;
  }
  return true;
}

void AppendUtf8(std::string& out, uint32_t c) {
  if (c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) c = kReplacementCharacter;
  if (c < 0x80) {
    out.push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    out.push_back(static_cast<char>(0xC0 | c >> 6));
    out.push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else if (c < 0x10000) {
    out.push_back(static_cast<char>(0xE0 | c >> 12));
    out.push_back(static_cast<char>(0x80 | (c >> 6 & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else {
    out.push_back(static_cast<char>(0xF0 | c >> 18));
    out.push_back(static_cast<char>(0x80 | (c >> 12 & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (c >> 6 & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (c & 0x3F)));
  }
}

std::string JavaUtf8ToUtf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  for (size_t i = 0; i < bytes.size();) {
    const CodePoint unit = JavaUnitAt(bytes, i);
    if (unit.width == 0) {
      AppendUtf8(out, kReplacementCharacter);
      ++i;
      continue;
    }
    i += unit.width;
    if (IsHighSurrogate(unit.value) && i < bytes.size()) {
      const CodePoint low = JavaUnitAt(bytes, i);
      if (low.width != 0 && IsLowSurrogate(low.value)) {
        i += low.width;
        AppendUtf8(out, 0x10000 + ((unit.value - 0xD800) << 10) + (low.value - 0xDC00));
        continue;
      }
    }
    AppendUtf8(out, unit.value);
  }
  return out;
}

uint32_t Utf8Iterator::Next() {
  const CodePoint c = StrictAt(text_, position_);
  if (c.width == 0) {
    ++position_;
    return kReplacementCharacter;
  }
  position_ += c.width;
  return c.value;
}

}  // namespace metaprotocol::dubbo
