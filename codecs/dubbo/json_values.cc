// See json_values.h.
#include "codecs/dubbo/json_values.h"

#include "src/codec/utf8.h"

namespace metaprotocol::dubbo {
namespace {

bool HexDigits(Bytes s, size_t at, uint32_t& value) {
  if (s.size() < at + 4) return false;
  value = 0;
  for (size_t i = at; i < at + 4; ++i) {
    const char c = s[i];
    uint32_t digit = 0;
    if (c >= '0' && c <= '9') {
      digit = static_cast<uint32_t>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      digit = static_cast<uint32_t>(c - 'a' + 10);
    } else if (c >= 'A' && c <= 'F') {
      digit = static_cast<uint32_t>(c - 'A' + 10);
    } else {
      return false;
    }
    value = value << 4 | digit;
  }
  return true;
}

// The characters between the quotes, or false.
bool Inside(Bytes token, Bytes& inside) {
  if (token.size() < 2 || token.front() != '"' || token.back() != '"') return false;
  inside = token.substr(1, token.size() - 2);
  return true;
}

bool Unescape(Bytes inside, std::string& out) {
  out.clear();
  out.reserve(inside.size());
  size_t plain = 0;  // start of the run not yet copied
  const auto copy_run = [&](size_t end) {
    const Bytes run = inside.substr(plain, end - plain);
    if (IsUtf8(run)) {
      out.append(run);
    } else {
      for (Utf8Iterator it(run); !it.Done();) AppendUtf8(out, it.Next());
    }
  };
  for (size_t i = 0; i < inside.size();) {
    if (inside[i] == '"') return false;
    if (inside[i] != '\\') {
      ++i;
      continue;
    }
    copy_run(i);
    if (++i == inside.size()) return false;
    const char c = inside[i++];
    uint32_t unit = 0;
    switch (c) {
      case '"':
      case '\\':
      case '/':
      case '\'':
        out.push_back(c);
        break;
      case 'b':
        out.push_back('\b');
        break;
      case 'f':
        out.push_back('\f');
        break;
      case 'n':
        out.push_back('\n');
        break;
      case 'r':
        out.push_back('\r');
        break;
      case 't':
        out.push_back('\t');
        break;
      case 'u': {
        if (!HexDigits(inside, i, unit)) return false;
        i += 4;
        uint32_t low = 0;
        if (unit >= 0xD800 && unit <= 0xDBFF && inside.substr(i, 2) == "\\u" &&
            HexDigits(inside, i + 2, low) && low >= 0xDC00 && low <= 0xDFFF) {
          unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
          i += 6;
        }
        AppendUtf8(out, unit);
        break;
      }
      default:
        return false;
    }
    plain = i;
  }
  copy_run(inside.size());
  return true;
}

}  // namespace

bool JsonValues::Next(Bytes& value) {
  if (position_ >= bytes_.size()) return false;
  if (has_lengths_) {
    if (bytes_.size() - position_ < 4) return false;
    const size_t length = LoadBe32(bytes_.data() + position_);
    if (length > bytes_.size() - position_ - 4) return false;
    value = bytes_.substr(position_ + 4, length);
    position_ += 4 + length;
    return true;
  }
  const size_t end = bytes_.find('\n', position_);
  if (end == Bytes::npos) {
    if (!complete_) return false;
    value = bytes_.substr(position_);
    position_ = bytes_.size();
  } else {
    value = bytes_.substr(position_, end - position_);
    position_ = end + 1;
  }
  if (!value.empty() && value.back() == '\r') value.remove_suffix(1);
  return true;
}

bool JsonIsPlain(Bytes token, std::string_view& text) {
  Bytes inside;
  if (!Inside(token, inside) || inside.find_first_of("\\\"") != Bytes::npos || !IsUtf8(inside)) {
    return false;
  }
  text = inside;
  return true;
}

bool JsonText(Bytes token, std::string& text) {
  Bytes inside;
  return Inside(token, inside) && Unescape(inside, text);
}

bool JsonText(Bytes token, Metadata& owner, std::string_view& text) {
  if (JsonIsPlain(token, text)) return true;
  std::string owned;
  if (!JsonText(token, owned)) return false;
  text = owner.Own(std::move(owned));
  return true;
}

bool JsonObjectReader::Fail() {
  malformed_ = true;
  return false;
}

void JsonObjectReader::SkipSpace() {
  while (position_ < line_.size() && (line_[position_] == ' ' || line_[position_] == '\t')) {
    ++position_;
  }
}

bool JsonObjectReader::SkipString() {
  for (size_t i = position_ + 1; i < line_.size(); ++i) {
    if (line_[i] == '\\') {
      ++i;
    } else if (line_[i] == '"') {
      position_ = i + 1;
      return true;
    }
  }
  return false;
}

bool JsonObjectReader::SkipValue() {
  // Brackets are only counted, not matched by kind: where the value ends is all that matters here.
  size_t depth = 0;
  while (position_ < line_.size()) {
    const char c = line_[position_];
    if (c == '"') {
      if (!SkipString()) return false;
      if (depth == 0) return true;
      continue;
    }
    if (depth == 0 && (c == ',' || c == '}' || c == ' ' || c == '\t')) return true;
    ++position_;
    if (c == '{' || c == '[') ++depth;
    if (c == '}' || c == ']') {
      if (depth == 0) return false;
      if (--depth == 0) return true;
    }
  }
  return false;
}

bool JsonObjectReader::Begin() {
  SkipSpace();
  if (position_ >= line_.size() || line_[position_] != '{') return false;
  ++position_;
  return true;
}

bool JsonObjectReader::Next(JsonMember& member) {
  SkipSpace();
  if (position_ >= line_.size()) return Fail();
  if (line_[position_] == '}') return false;
  if (!first_) {
    if (line_[position_] != ',') return Fail();
    ++position_;
    SkipSpace();
  }
  first_ = false;
  const size_t begin = position_;
  if (position_ >= line_.size() || line_[position_] != '"' || !SkipString()) return Fail();
  member.key = line_.substr(begin, position_ - begin);
  SkipSpace();
  if (position_ >= line_.size() || line_[position_] != ':') return Fail();
  ++position_;
  SkipSpace();
  const size_t value = position_;
  if (!SkipValue() || position_ == value) return Fail();
  member.value = line_.substr(value, position_ - value);
  member.whole = line_.substr(begin, position_ - begin);
  return true;
}

void AppendJsonString(std::string& out, std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  out.push_back('"');
  for (Utf8Iterator it(text); !it.Done();) {
    const uint32_t c = it.Next();
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(static_cast<char>(c));
    } else if (c < 0x20) {
      out.append("\\u00");
      out.push_back(kHex[c >> 4]);
      out.push_back(kHex[c & 0xf]);
    } else {
      AppendUtf8(out, c);
    }
  }
  out.push_back('"');
}

}  // namespace metaprotocol::dubbo
