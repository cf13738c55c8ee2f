#include "src/codec/utf8.h"

#include <cstring>

namespace metaprotocol {
namespace {

constexpr uint64_t kHighBits = 0x8080808080808080u;

uint8_t At(std::string_view s, size_t i) { return static_cast<uint8_t>(s[i]); }

bool IsContinuation(std::string_view s, size_t i) { return (At(s, i) & 0xC0) == 0x80; }

// How many bytes below 0x80 stand at text[at], looked at eight at a time; less where fewer are
// left.
size_t AsciiWords(std::string_view text, size_t at) {
  const size_t begin = at;
  for (; text.size() - at >= 8; at += 8) {
    uint64_t word;
    std::memcpy(&word, text.data() + at, sizeof word);
    if ((word & kHighBits) != 0) break;
  }
  return at - begin;
}

}  // namespace

CodePoint Utf8At(std::string_view s, size_t i) {
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

bool IsAscii(std::string_view text) {
  for (size_t i = AsciiWords(text, 0); i < text.size(); ++i) {
    if (At(text, i) >= 0x80) return false;
  }
  return true;
}

bool IsUtf8(std::string_view text) {
  for (size_t i = AsciiWords(text, 0); i < text.size();) {
    if (At(text, i) < 0x80) {
      ++i;
      continue;
    }
    const CodePoint c = Utf8At(text, i);
    if (c.width == 0) return false;
    i += c.width;
    i += AsciiWords(text, i);
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

std::string MadeUtf8(std::string_view text) {
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

}  // namespace metaprotocol
