// See json_text.h.
#include "codecs/declared/json_text.h"

#include <array>

#include "src/codec/utf8.h"

namespace metaprotocol::declared {
namespace {

// What a string has besides plain characters: its end, escapes, and what must be escaped.
constexpr std::array<bool, 256> kSpecial = [] {
  std::array<bool, 256> special{};
  for (size_t c = 0; c < 0x20; ++c) special[c] = true;
  special['"'] = special['\\'] = true;
  return special;
}();

constexpr bool IsDigit(char c) { return c >= '0' && c <= '9'; }
constexpr bool IsHighSurrogate(uint32_t unit) { return unit >= 0xD800 && unit < 0xDC00; }
constexpr bool IsLowSurrogate(uint32_t unit) { return unit >= 0xDC00 && unit < 0xE000; }

constexpr int HexDigit(char c) {
  if (IsDigit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Of what a scanner has taken for good.
uint32_t UnitAt(Bytes raw, size_t at) {
  uint32_t unit = 0;
  for (size_t i = 0; i < 4; ++i) unit = unit << 4 | static_cast<uint32_t>(HexDigit(raw[at + i]));
  return unit;
}

char Unescaped(char c) {
  switch (c) {
    case 'b':
      return '\b';
    case 'f':
      return '\f';
    case 'n':
      return '\n';
    case 'r':
      return '\r';
    case 't':
      return '\t';
    default:
      return c;
  }
}

}  // namespace

std::string_view JsonString::Text(std::string& owner) const {
  if (!escaped) return raw;
  owner.clear();
  owner.reserve(raw.size());
  size_t at = 0;
  while (true) {
    const size_t escape = raw.find('\\', at);
    owner.append(raw.substr(at, escape - at));
    if (escape == Bytes::npos) return owner;
    if (raw[escape + 1] != 'u') {
      owner.push_back(Unescaped(raw[escape + 1]));
      at = escape + 2;
      continue;
    }
    uint32_t point = UnitAt(raw, escape + 2);
    at = escape + 6;
    if (IsHighSurrogate(point)) {
      point = 0x10000 + ((point - 0xD800) << 10) + (UnitAt(raw, at + 2) - 0xDC00);
      at += 6;
    }
    AppendUtf8(owner, point);
  }
}

bool JsonScanner::String(JsonString& string) {
  if (!Take('"')) return false;
  const char* const begin = at_;
  string.escaped = false;
  while (true) {
    while (at_ != end_ && !kSpecial[static_cast<unsigned char>(*at_)]) ++at_;
    if (at_ == end_) return false;
    if (*at_ == '"') break;
    if (*at_ != '\\' || !Escape()) return false;
    string.escaped = true;
  }
  string.raw = Bytes(begin, static_cast<size_t>(at_ - begin));
  ++at_;
  return true;
}

// From a backslash on. Half a pair of surrogates stands for no text.
bool JsonScanner::Escape() {
  ++at_;
  if (at_ == end_) return false;
  const char c = *at_++;
  if (c != 'u') return std::string_view("\"\\/bfnrt").find(c) != std::string_view::npos;
  uint32_t unit = 0;
  if (!Hex4(unit) || IsLowSurrogate(unit)) return false;
  if (!IsHighSurrogate(unit)) return true;
  if (end_ - at_ < 2 || at_[0] != '\\' || at_[1] != 'u') return false;
  at_ += 2;
  return Hex4(unit) && IsLowSurrogate(unit);
}

bool JsonScanner::Hex4(uint32_t& unit) {
  if (end_ - at_ < 4) return false;
  unit = 0;
  for (const char* const end = at_ + 4; at_ != end; ++at_) {
    const int digit = HexDigit(*at_);
    if (digit < 0) return false;
    unit = unit << 4 | static_cast<uint32_t>(digit);
  }
  return true;
}

bool JsonScanner::Number(Bytes& number) {
  SkipSpace();
  const char* const begin = at_;
  const auto digits = [this] {
    const char* const first = at_;
    while (at_ != end_ && IsDigit(*at_)) ++at_;
    return at_ != first;
  };
  if (at_ != end_ && *at_ == '-') ++at_;
  const bool zero = at_ != end_ && *at_ == '0';
  if (zero ? (++at_, at_ != end_ && IsDigit(*at_)) : !digits()) return false;
  if (at_ != end_ && *at_ == '.') {
    ++at_;
    if (!digits()) return false;
  }
  if (at_ != end_ && (*at_ == 'e' || *at_ == 'E')) {
    ++at_;
    if (at_ != end_ && (*at_ == '+' || *at_ == '-')) ++at_;
    if (!digits()) return false;
  }
  number = Bytes(begin, static_cast<size_t>(at_ - begin));
  return true;
}

bool JsonScanner::Literal(std::string_view literal) {
  if (!std::string_view(at_, static_cast<size_t>(end_ - at_)).starts_with(literal)) return false;
  at_ += literal.size();
  return true;
}

bool JsonScanner::Null() {
  SkipSpace();
  return Literal("null");
}

bool JsonScanner::Scalar() {
  JsonString string;
  Bytes number;
  switch (Peek()) {
    case '"':
      return String(string);
    case 't':
      return Literal("true");
    case 'f':
      return Literal("false");
    case 'n':
      return Literal("null");
    default:
      return Number(number);
  }
}

// What is open is known by one bit for each level.
bool JsonScanner::Value() {
  uint64_t objects = 0;
  int depth = 0;
  JsonString key;
  while (true) {
    // A value begins here.
    const char first = Peek();
    if (first == '{' || first == '[') {
      if (depth == kMaxJsonDepth) return false;
      ++at_;
      const bool object = first == '{';
      if (!Take(object ? '}' : ']')) {
        objects = objects << 1 | (object ? 1 : 0);
        ++depth;
        if (object && !(String(key) && Take(':'))) return false;
        continue;
      }
    } else if (!Scalar()) {
      return false;
    }
    // A value has ended here.
    while (true) {
      if (depth == 0) return true;
      const bool object = (objects & 1) != 0;
      if (Take(',')) {
        if (object && !(String(key) && Take(':'))) return false;
        break;
      }
      if (!Take(object ? '}' : ']')) return false;
      objects >>= 1;
      --depth;
    }
  }
}

bool ParseJsonInteger(Bytes number, uint64_t& value, bool& negative) {
  negative = number.starts_with('-');
  if (negative) number.remove_prefix(1);
  if (number.empty() || number.size() > 20) return false;
  value = 0;
  for (const char c : number) {
    if (!IsDigit(c) || __builtin_mul_overflow(value, uint64_t{10}, &value) ||
        __builtin_add_overflow(value, static_cast<uint64_t>(c - '0'), &value)) {
      return false;
    }
  }
  if (!negative) return true;
  constexpr uint64_t kLeast = uint64_t{1} << 63;
  if (value > kLeast) return false;
  value = ~value + 1;
  return true;
}

void AppendJsonString(std::string& out, std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  out.push_back('"');
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (!kSpecial[byte]) {
      out.push_back(c);
    } else if (byte >= 0x20) {
      out.append({'\\', c});
    } else {
      out.append("\\u00").append({kHex[byte >> 4], kHex[byte & 0xf]});
    }
  }
  out.push_back('"');
}

}  // namespace metaprotocol::declared
