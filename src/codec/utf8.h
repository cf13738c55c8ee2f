// Strict UTF-8 (RFC 3629): no halves of surrogate pairs, no overlong forms, nothing beyond
// U+10FFFF. What codecs hand out as text, and what is sent to services that refuse anything else,
// is checked here and nowhere else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace metaprotocol {

inline constexpr uint32_t kReplacementCharacter = 0xFFFD;

struct CodePoint {
  uint32_t value = 0;
  size_t width = 0;  // in bytes; 0: what stands there is not UTF-8
};

// The character that begins at text[at], which is inside.
CodePoint Utf8At(std::string_view text, size_t at);

bool IsUtf8(std::string_view text);

// Whether all bytes are below 0x80.
bool IsAscii(std::string_view text);

// `text` with "?" for each byte that is no UTF-8: for services that would refuse the whole message.
std::string MadeUtf8(std::string_view text);

// Appends `code_point` as UTF-8; surrogates and values beyond U+10FFFF become U+FFFD.
void AppendUtf8(std::string& out, uint32_t code_point);

// One code point at a time out of strict or broken UTF-8. Broken bytes come out as U+FFFD, one per
// byte.
class Utf8Iterator {
 public:
  explicit Utf8Iterator(std::string_view text) : text_(text) {}
  bool Done() const { return position_ >= text_.size(); }
  uint32_t Next() {
    const CodePoint c = Utf8At(text_, position_);
    position_ += c.width == 0 ? 1 : c.width;
    return c.width == 0 ? kReplacementCharacter : c.value;
  }

 private:
  std::string_view text_;
  size_t position_ = 0;
};

}  // namespace metaprotocol
