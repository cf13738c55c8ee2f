// See jsonb.h.
#include "codecs/dubbo/jsonb.h"

#include <array>
#include <limits>
#include <utility>

#include "src/codec/utf8.h"

namespace metaprotocol::dubbo {
namespace {

// Codes, by the names that com.alibaba.fastjson2.JSONB.Constants has for them. Those of ranges that
// carry a small number or length are the range's first and last.
enum Code : uint8_t {
  kInt32NumMax = 0x2f,
  kInt32ByteMin = 0x30,
  kInt32ByteZero = 0x38,
  kInt32ByteMax = 0x3f,
  kInt32ShortMin = 0x40,
  kInt32ShortZero = 0x44,
  kInt32ShortMax = 0x47,
  kInt32 = 0x48,
  kStrAsciiFixMin = 0x49,
  kStrAsciiFixMax = 0x78,
  kStrAscii = 0x79,
  kStrUtf8 = 0x7a,
  kStrUtf16 = 0x7b,
  kStrUtf16Le = 0x7c,
  kStrUtf16Be = 0x7d,
  kStrGb18030 = 0x7e,
  kSymbol = 0x7f,
  kChar = 0x90,
  kBinary = 0x91,
  kTypedAny = 0x92,
  kReference = 0x93,
  kArrayFixMin = 0x94,
  kArrayFixMax = 0xa3,
  kArray = 0xa4,
  kObjectEnd = 0xa5,
  kObject = 0xa6,
  kLocalTime = 0xa7,
  kLocalDatetime = 0xa8,
  kLocalDate = 0xa9,
  kTimestampWithTimezone = 0xaa,
  kTimestampMillis = 0xab,
  kTimestampSeconds = 0xac,
  kTimestampMinutes = 0xad,
  kTimestamp = 0xae,
  kNull = 0xaf,
  kFalse = 0xb0,
  kDoubleNum1 = 0xb3,
  kDoubleLong = 0xb4,
  kDouble = 0xb5,
  kFloatInt = 0xb6,
  kFloat = 0xb7,
  kDecimalLong = 0xb8,
  kDecimal = 0xb9,
  kBigintLong = 0xba,
  kBigint = 0xbb,
  kInt16 = 0xbc,
  kInt8 = 0xbd,
  kInt64 = 0xbe,
  kInt64Int = 0xbf,
  kInt64ShortMin = 0xc0,
  kInt64ShortMax = 0xc7,
  kInt64ByteMin = 0xc8,
  kInt64ByteMax = 0xd7,
  kInt64NumMin = 0xd8,
  kInt64NumMax = 0xef,
  kInt32NumMin = 0xf0,
};

// Of an object: items up to its end.
constexpr size_t kOpen = std::numeric_limits<size_t>::max();

bool Within(uint8_t code, Code first, Code last) { return first <= code && code <= last; }
bool IsSmallInt(uint8_t code) { return code <= kInt32NumMax || code >= kInt32NumMin; }

// How many bytes follow the code of a number of known size; -1 for everything else.
int BytesOfNumber(uint8_t code) {
  if (IsSmallInt(code) || Within(code, kInt64NumMin, kInt64NumMax)) return 0;
  if (Within(code, kInt32ByteMin, kInt32ByteMax) || Within(code, kInt64ByteMin, kInt64ByteMax)) {
    return 1;
  }
  if (Within(code, kInt32ShortMin, kInt32ShortMax) ||
      Within(code, kInt64ShortMin, kInt64ShortMax)) {
    return 2;
  }
  switch (code) {
    case kInt8:
      return 1;
    case kInt16:
      return 2;
    case kInt32:
    case kInt64Int:
      return 4;
    case kInt64:
      return 8;
    default:
      return -1;
  }
}

void AppendCompactInt(std::string& out, size_t value) {
  constexpr size_t kByteMost = 0x7ff;
  constexpr size_t kShortMost = 0x3ffff;
  if (value <= kInt32NumMax) {
    out.push_back(static_cast<char>(value));
  } else if (value <= kByteMost) {
    out.push_back(static_cast<char>(kInt32ByteZero + (value >> 8)));
    out.push_back(static_cast<char>(value));
  } else if (value <= kShortMost) {
    out.push_back(static_cast<char>(kInt32ShortZero + (value >> 16)));
    AppendBe16(out, static_cast<uint16_t>(value));
  } else {
    out.push_back(static_cast<char>(kInt32));
    AppendBe32(out, static_cast<uint32_t>(value));
  }
}

void AppendLatin1(std::string& out, Bytes raw) {
  for (const char c : raw) AppendUtf8(out, static_cast<uint8_t>(c));
}

// Halves of pairs that stand alone become U+FFFD. False: a byte is left over.
bool AppendUtf16(std::string& out, Bytes raw, bool little_endian) {
  if (raw.size() % 2 != 0) return false;
  const auto unit_at = [&](size_t at) {
    const auto first = static_cast<uint8_t>(raw[at]);
    const auto second = static_cast<uint8_t>(raw[at + 1]);
    return static_cast<uint32_t>(little_endian ? second << 8 | first : first << 8 | second);
  };
  for (size_t at = 0; at < raw.size(); at += 2) {
    uint32_t unit = unit_at(at);
    if (unit >= 0xD800 && unit <= 0xDBFF && at + 2 < raw.size()) {
      const uint32_t low = unit_at(at + 2);
      if (low >= 0xDC00 && low <= 0xDFFF) {
        unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
        at += 2;
      }
    }
    AppendUtf8(out, unit);
  }
  return true;
}

}  // namespace

bool JsonbString::IsView() const {
  if (charset == Charset::kLatin1) return IsAscii(raw);
  return charset == Charset::kUtf8 && IsUtf8(raw);
}

bool JsonbString::Text(std::string& text) const {
  text.clear();
  switch (charset) {
    case Charset::kLatin1:
      AppendLatin1(text, raw);
      return true;
    case Charset::kUtf8:
      if (!IsUtf8(raw)) return false;
      text = raw;
      return true;
    case Charset::kUtf16Be:
      return AppendUtf16(text, raw, false);
    case Charset::kUtf16Le:
      return AppendUtf16(text, raw, true);
    case Charset::kUnknown:
      return false;
  }
  return false;
}

bool JsonbString::Text(std::string& room, std::string_view& text) const {
  if (IsView()) {
    text = raw;
    return true;
  }
  if (!Text(room)) return false;
  text = room;
  return true;
}

bool JsonbString::Text(Metadata& owner, std::string_view& text) const {
  std::string room;
  if (!Text(room, text)) return false;
  if (text.data() == room.data()) text = owner.Own(std::move(room));
  return true;
}

bool JsonbReader::NextIsString() const {
  return !AtEnd() && Within(tag(), kStrAsciiFixMin, kStrGb18030);
}
bool JsonbReader::NextIsSymbol() const { return !AtEnd() && tag() == kSymbol; }
bool JsonbReader::NextIsNoText() const {
  if (AtEnd()) return false;
  return !NextIsString() && tag() != kSymbol && tag() != kChar && tag() != kTypedAny &&
         tag() != kReference;
}

bool JsonbReader::Skip(size_t count) {
  if (!Has(count)) return false;
  position_ += count;
  return true;
}

bool JsonbReader::ReadInt(int32_t& value) {
  if (AtEnd()) return false;
  const uint8_t code = tag();
  const int bytes = BytesOfNumber(code);
  if (bytes < 0 || bytes > 4 || !Has(1 + static_cast<size_t>(bytes))) return false;
  const char* const at = bytes_.data() + position_ + 1;
  const auto byte = [at](size_t i) { return static_cast<int32_t>(static_cast<uint8_t>(at[i])); };
  if (IsSmallInt(code) || code == kInt8) {
    value = static_cast<int8_t>(code == kInt8 ? at[0] : bytes_[position_]);
  } else if (Within(code, kInt32ByteMin, kInt32ByteMax)) {
    value = (code - kInt32ByteZero) * 0x100 + byte(0);
  } else if (Within(code, kInt32ShortMin, kInt32ShortMax)) {
    value = (code - kInt32ShortZero) * 0x10000 + LoadBe16(at);
  } else if (code == kInt32) {
    value = static_cast<int32_t>(LoadBe32(at));
  } else if (code == kInt16) {
    value = static_cast<int16_t>(LoadBe16(at));
  } else {
    return false;
  }
  position_ += 1 + static_cast<size_t>(bytes);
  return true;
}

bool JsonbReader::ReadLength(size_t& length) {
  int32_t value = 0;
  if (!ReadInt(value) || value < 0) return false;
  length = static_cast<size_t>(value);
  return true;
}

bool JsonbReader::ReadString(JsonbString& string) {
  if (!NextIsString()) return false;
  const uint8_t code = tag();
  ++position_;
  size_t length = code - kStrAsciiFixMin;
  if (code > kStrAsciiFixMax && !ReadLength(length)) return false;
  if (!Has(length)) return false;
  string.raw = bytes_.substr(position_, length);
  position_ += length;
  using Charset = JsonbString::Charset;
  switch (code) {
    case kStrUtf8:
      string.charset = Charset::kUtf8;
      break;
    case kStrUtf16: {  // as Java's charset of that name: a mark may say in which order
      const Bytes mark = string.raw.substr(0, 2);
      string.charset = mark == "\xff\xfe" ? Charset::kUtf16Le : Charset::kUtf16Be;
      if (mark == "\xff\xfe" || mark == "\xfe\xff") string.raw.remove_prefix(2);
      break;
    }
    case kStrUtf16Le:
      string.charset = Charset::kUtf16Le;
      break;
    case kStrUtf16Be:
      string.charset = Charset::kUtf16Be;
      break;
    case kStrGb18030:
      string.charset = Charset::kUnknown;
      break;
    default:  // what is called ASCII there is read as Latin-1
      string.charset = Charset::kLatin1;
      break;
  }
  return true;
}

bool JsonbReader::ReadSymbol(JsonbString& name) {
  if (!NextIsSymbol()) return false;
  ++position_;
  ++links_;
  return ReadString(name) && SkipCompactInt();
}

bool JsonbReader::SkipCompactInt() {
  int32_t value = 0;
  return ReadInt(value);
}

bool JsonbReader::SkipNumber() {
  if (AtEnd()) return false;
  const int bytes = BytesOfNumber(tag());
  return bytes >= 0 && Skip(1 + static_cast<size_t>(bytes));
}

bool JsonbReader::SkipType() {
  if (AtEnd() || tag() != kTypedAny) return true;
  ++position_;
  ++links_;
  JsonbString name;
  return (!NextIsString() || ReadString(name)) && SkipCompactInt();
}

bool JsonbReader::ReadObjectBegin() {
  if (AtEnd() || tag() != kObject) return false;
  ++position_;
  return true;
}

bool JsonbReader::TakeObjectEnd() {
  if (AtEnd() || tag() != kObjectEnd) return false;
  ++position_;
  return true;
}

bool JsonbReader::SkipOne(size_t& items) {
  items = 0;
  if (AtEnd()) return false;
  const uint8_t code = tag();
  if (NextIsString()) {
    JsonbString ignored;
    return ReadString(ignored);
  }
  if (BytesOfNumber(code) >= 0) return SkipNumber();
  ++position_;
  if (Within(code, kArrayFixMin, kArrayFixMax)) {
    items = code - kArrayFixMin;
    return Has(items);
  }
  if (Within(code, kFalse, kDoubleNum1) || code == kNull) return true;
  size_t length = 0;
  JsonbString text;
  switch (code) {
    case kArray:
      return ReadLength(items) && Has(items);
    case kObject:
      items = kOpen;
      return true;
    case kSymbol:
      ++links_;
      return (!NextIsString() || ReadString(text)) && SkipCompactInt();
    case kReference:
      ++links_;
      return ReadString(text);
    case kChar:
    case kFloatInt:
      return SkipCompactInt();
    case kBinary:
    case kBigint:
      return ReadLength(length) && Skip(length);
    case kDoubleLong:
    case kDecimalLong:
    case kBigintLong:
      return SkipNumber();
    case kDecimal:  // a scale, and a number of any size
      if (!SkipCompactInt() || AtEnd()) return false;
      if (tag() != kBigint) return SkipNumber();
      return Skip(1) && ReadLength(length) && Skip(length);
    case kLocalTime:
      return Skip(3) && SkipCompactInt();
    case kLocalDatetime:
      return Skip(7) && SkipCompactInt();
    case kTimestampWithTimezone:
      return Skip(7) && SkipCompactInt() && ReadString(text);
    case kTimestamp:
      return Skip(8) && SkipCompactInt();
    case kTimestampMillis:
    case kDouble:
      return Skip(8);
    case kLocalDate:
    case kTimestampSeconds:
    case kTimestampMinutes:
    case kFloat:
      return Skip(4);
    default:
      return false;
  }
}

bool JsonbReader::SkipValue() {
  std::array<size_t, kMaxJsonbDepth> open;  // items that are still to come, from the outermost on
  size_t depth = 0;
  do {
    if (depth > 0) {
      size_t& left = open[depth - 1];
      if (left == kOpen ? TakeObjectEnd() : left == 0) {
        --depth;
        continue;
      }
      if (left != kOpen) --left;
    }
    size_t items = 0;
    if (!SkipType() || !SkipOne(items)) return false;
    if (items == 0) continue;
    if (depth == kMaxJsonbDepth) return false;
    open[depth++] = items;
  } while (depth > 0);
  return true;
}

bool JsonbValues::Next(Bytes& value) {
  constexpr size_t kLength = 4;
  if (bytes_.size() - position_ < kLength) return false;
  const size_t length = LoadBe32(bytes_.data() + position_);
  if (length > bytes_.size() - position_ - kLength) return false;
  value = bytes_.substr(position_ + kLength, length);
  position_ += kLength + length;
  return true;
}

bool JsonbStringOf(Bytes value, JsonbString& string) {
  JsonbReader reader(value);
  return reader.ReadString(string) && reader.AtEnd();
}

void AppendJsonbString(std::string& out, std::string_view text) {
  if (!IsUtf8(text)) {
    std::string made;
    for (Utf8Iterator it(text); !it.Done();) AppendUtf8(made, it.Next());
    return AppendJsonbString(out, made);
  }
  constexpr size_t kFixMost = kStrAsciiFixMax - kStrAsciiFixMin;
  const bool ascii = IsAscii(text);
  if (ascii && text.size() <= kFixMost) {
    out.push_back(static_cast<char>(kStrAsciiFixMin + text.size()));
  } else {
    out.push_back(static_cast<char>(ascii ? kStrAscii : kStrUtf8));
    AppendCompactInt(out, text.size());
  }
  out.append(text);
}

}  // namespace metaprotocol::dubbo
