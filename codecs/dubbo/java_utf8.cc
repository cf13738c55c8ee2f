// See java_utf8.h.
#include "codecs/dubbo/java_utf8.h"

#include "src/codec/utf8.h"

namespace metaprotocol::dubbo {
namespace {

uint8_t At(std::string_view s, size_t i) { return static_cast<uint8_t>(s[i]); }

bool IsHighSurrogate(uint32_t c) { return c >= 0xD800 && c <= 0xDBFF; }
bool IsLowSurrogate(uint32_t c) { return c >= 0xDC00 && c <= 0xDFFF; }

// One unit as Java's reader assembles it; width 0 if the bytes end too early.
CodePoint JavaUnitAt(std::string_view s, size_t i) {
  const uint32_t lead = At(s, i);
  const size_t left = s.size() - i;
  if (lead < 0x80) return {lead, 1};
  if ((lead & 0xE0) == 0xC0 && left >= 2) return {(lead & 0x1F) << 6 | (At(s, i + 1) & 0x3Fu), 2};
  if ((lead & 0xF0) == 0xE0 && left >= 3) {
    return {(lead & 0x0F) << 12 | (At(s, i + 1) & 0x3Fu) << 6 | (At(s, i + 2) & 0x3Fu), 3};
  }
  return Utf8At(s, i);
}

}  // namespace

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

}  // namespace metaprotocol::dubbo
