// UTF-8 as Java's Hessian and JSON writers produce it, and as everybody else expects it.
//
// Hessian strings count UTF-16 units and carry characters outside the basic plane as two three-byte
// halves ("CESU-8"), because Java writes them unit by unit. Routes, logs and people want real
// UTF-8. These functions convert in both directions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace metaprotocol::dubbo {

inline constexpr uint32_t kReplacementCharacter = 0xFFFD;

// Strict UTF-8: no halves of surrogate pairs, no overlong forms, nothing beyond U+10FFFF.
bool IsUtf8(std::string_view text);

// Whether all bytes are below 0x80.
bool IsAscii(std::string_view text);

// Appends `code_point` as UTF-8; surrogates and values beyond U+10FFFF become U+FFFD.
void AppendUtf8(std::string& out, uint32_t code_point);

// Reads `bytes` the way Java's Hessian reader does (pairs of surrogate halves, overlong forms and
// unchecked continuation bytes are all taken at face value) and returns strict UTF-8 for it, so
// that what is compared here is what the server will see. What cannot be read becomes U+FFFD.
std::string JavaUtf8ToUtf8(std::string_view bytes);

// One UTF-16 unit or code point at a time out of strict or broken UTF-8. Broken bytes come out as
// U+FFFD, one per byte.
class Utf8Iterator {
 public:
  explicit Utf8Iterator(std::string_view text) : text_(text) {}
  bool Done() const { return position_ >= text_.size(); }
  uint32_t Next();

 private:
  std::string_view text_;
  size_t position_ = 0;
};

}  // namespace metaprotocol::dubbo
