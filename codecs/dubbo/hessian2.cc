// See hessian2.h. Tags are written as in section 3 of the Hessian 2.0 specification.
#include "codecs/dubbo/hessian2.h"

#include <algorithm>

#include "codecs/dubbo/java_utf8.h"

namespace metaprotocol::dubbo {
namespace {

// Bytes a value takes, tag included, where the tag alone decides it; 0 for all others.
constexpr std::array<uint8_t, 256> MakeFixedWidths() {
  std::array<uint8_t, 256> width{};
  width[0x00] = 1;                                                                   // empty string
  for (int t = 0x20; t <= 0x2f; ++t) width[t] = static_cast<uint8_t>(1 + t - 0x20);  // short binary
  for (int t = 0x38; t <= 0x3f; ++t) width[t] = 3;  // three-octet long
  width['N'] = width['T'] = width['F'] = 1;
  width['I'] = 5;
  width['L'] = width['D'] = 9;
  width[0x4a] = 9;                                  // date in milliseconds
  width[0x4b] = 5;                                  // date in minutes
  width[0x59] = 5;                                  // long in four octets
  width[0x5b] = width[0x5c] = 1;                    // 0.0 and 1.0
  width[0x5d] = 2;                                  // double from a byte,
  width[0x5e] = 3;                                  // a short,
  width[0x5f] = 5;                                  // a float or mills
  for (int t = 0x80; t <= 0xbf; ++t) width[t] = 1;  // int
  for (int t = 0xc0; t <= 0xcf; ++t) width[t] = 2;
  for (int t = 0xd0; t <= 0xd7; ++t) width[t] = 3;
  for (int t = 0xd8; t <= 0xef; ++t) width[t] = 1;  // long
  for (int t = 0xf0; t <= 0xff; ++t) width[t] = 2;
  return width;
}
constexpr std::array<uint8_t, 256> kFixedWidth = MakeFixedWidths();

// Units per chunk that Java writes; 65535 would be legal.
constexpr size_t kChunkUnits = 0x8000;

constexpr bool IsBinaryTag(uint8_t t) {
  return (t >= 0x20 && t <= 0x2f) || (t >= 0x34 && t <= 0x37) || t == 'A' || t == 'B';
}
constexpr bool IsIntTag(uint8_t t) { return (t >= 0x80 && t <= 0xd7) || t == 'I'; }

// What a frame of the skipping stack waits for: this many more values, or, from kOpenList on,
// values until 'Z'. Declared counts are non-negative int32 and stay below.
constexpr uint32_t kOpenList = 0xFFFFFFFD;
constexpr uint32_t kOpenMapKey = 0xFFFFFFFE;
constexpr uint32_t kOpenMapValue = 0xFFFFFFFF;

}  // namespace

bool Hessian2Reader::Truncated(size_t need) {
  truncated_ = true;
  need_ = std::max(need, bytes_.size() + 1);
  error_ = "Hessian value runs past the end of the message";
  return false;
}

bool Hessian2Reader::Malformed(std::string_view why) {
  error_ = why;
  return false;
}

bool Hessian2Reader::NextIsInt() const { return !AtEnd() && IsIntTag(tag()); }

// Moves over `units` characters. A four-byte sequence counts once: Java never writes one and cannot
// read one, and every writer that does (old dubbo-go, python-hessian) counts code points.
bool Hessian2Reader::SkipUnits(size_t units, bool& ascii) {
  const char* const data = bytes_.data();
  const size_t size = bytes_.size();
  size_t at = position_;
  if (size - at >= units && IsAsciiText({data + at, units})) {
    position_ = at + units;
    return true;
  }
  for (;;) {
    while (units >= 8 && size - at >= 8) {
      uint64_t word;
      std::memcpy(&word, data + at, sizeof word);
      if (word & 0x8080808080808080u) break;
      at += 8;
      units -= 8;
    }
    if (units == 0) break;
    if (size - at < units) return Truncated(at + units);
    const auto lead = static_cast<uint8_t>(data[at]);
    size_t width = 1;
    if (lead >= 0x80) {
      ascii = false;
      if (lead < 0xC0 || lead > 0xF7) return Malformed("Hessian string is not UTF-8");
      width = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
      if (size - at < width) return Truncated(at + width);
    }
    at += width;
    --units;
  }
  position_ = at;
  return true;
}

bool Hessian2Reader::ReadStringChunk(bool& last, Bytes& characters, bool& ascii) {
  if (AtEnd()) return Truncated(position_ + 1);
  const uint8_t t = tag();
  if (!IsStringTag(t)) return Malformed("a Hessian string was expected");
  const size_t left = bytes_.size() - position_;
  size_t units = t;
  size_t head = 1;
  last = true;
  if (t == 'R' || t == 'S') {
    if (left < 3) return Truncated(position_ + 3);
    units = LoadBe16(bytes_.data() + position_ + 1);
    head = 3;
    last = t == 'S';
  } else if (t >= 0x30) {
    if (left < 2) return Truncated(position_ + 2);
    units = (t - 0x30u) << 8 | static_cast<uint8_t>(bytes_[position_ + 1]);
    head = 2;
  }
  position_ += head;
  const size_t begin = position_;
  if (!SkipUnits(units, ascii)) return false;
  characters = bytes_.substr(begin, position_ - begin);
  return true;
}

bool Hessian2Reader::SkipString() {
  bool last = false;
  bool ascii = true;
  Bytes characters;
  while (!last) {
    if (!ReadStringChunk(last, characters, ascii)) return false;
  }
  return true;
}

bool Hessian2Reader::ReadAnyString(HessianString& out) {
  out = {};
  if (!AtEnd() && tag() == 'N') {
    ++position_;
    out.null = true;
    return true;
  }
  const size_t begin = position_;
  bool last = false;
  if (!ReadStringChunk(last, out.raw, out.ascii)) return false;
  if (last) return true;
  out.chunked = true;
  while (!last) {
    Bytes characters;
    if (!ReadStringChunk(last, characters, out.ascii)) return false;
  }
  out.raw = bytes_.substr(begin, position_ - begin);
  return true;
}

bool Hessian2Reader::ReadInt(int32_t& out) {
  if (AtEnd()) return Truncated(position_ + 1);
  const uint8_t t = tag();
  if (!IsIntTag(t)) return Malformed("a Hessian int was expected");
  const size_t width = kFixedWidth[t];
  if (bytes_.size() - position_ < width) return Truncated(position_ + width);
  const char* p = bytes_.data() + position_;
  if (t <= 0xbf && t >= 0x80) {
    out = t - 0x90;
  } else if (t == 'I') {
    out = static_cast<int32_t>(LoadBe32(p + 1));
  } else if (t <= 0xcf) {
    out = (t - 0xc8) * 256 + static_cast<uint8_t>(p[1]);
  } else {
    out = (t - 0xd4) * 65536 + LoadBe16(p + 1);
  }
  position_ += width;
  return true;
}

// A count of things that take at least a byte each, so one larger than the rest of the message
// needs no further look.
bool Hessian2Reader::ReadCount(size_t& out) {
  int32_t count = 0;
  if (!ReadInt(count)) return false;
  if (count < 0) return Malformed("a Hessian length is negative");
  out = static_cast<size_t>(count);
  if (out > bytes_.size() - position_) return Truncated(position_ + out);
  return true;
}

bool Hessian2Reader::SkipType() {
  if (AtEnd()) return Truncated(position_ + 1);
  if (IsStringTag(tag())) {
    ++referables_made_;
    return SkipString();
  }
  ++references_used_;
  int32_t reference = 0;
  return ReadInt(reference);
}

bool Hessian2Reader::SkipBinary() {
  for (;;) {
    if (AtEnd()) return Truncated(position_ + 1);
    const uint8_t t = tag();
    if (!IsBinaryTag(t)) return Malformed("a Hessian binary chunk was expected");
    const size_t left = bytes_.size() - position_;
    size_t length = 1;
    if (t <= 0x2f) {
      length += t - 0x20u;
    } else if (t <= 0x37) {
      if (left < 2) return Truncated(position_ + 2);
      length += 1 + ((t - 0x34u) << 8 | static_cast<uint8_t>(bytes_[position_ + 1]));
    } else {
      if (left < 3) return Truncated(position_ + 3);
      length += 2 + LoadBe16(bytes_.data() + position_ + 1);
    }
    if (left < length) return Truncated(position_ + length);
    position_ += length;
    if (t != 'A') return true;
  }
}

bool Hessian2Reader::ReadClassDefinition() {
  size_t fields = 0;
  if (class_count_ == kMaxHessianClasses) return Malformed("too many Hessian class definitions");
  if (!SkipString() || !ReadCount(fields)) return false;
  for (size_t i = 0; i < fields; ++i) {
    if (!SkipString()) return false;
  }
  ++referables_made_;
  if (class_count_ < kInlineClasses) {
    class_fields_[class_count_] = static_cast<uint32_t>(fields);
  } else {
    more_class_fields_.push_back(static_cast<uint32_t>(fields));
  }
  ++class_count_;
  return true;
}

bool Hessian2Reader::FieldsOf(size_t index, size_t& fields) const {
  if (index >= class_count_) return false;
  fields =
      index < kInlineClasses ? class_fields_[index] : more_class_fields_[index - kInlineClasses];
  return true;
}

bool Hessian2Reader::SkipAnyValue() {
  // Each turn of the loop consumes at least one byte or pops one frame, and every pushed frame cost
  // a byte: linear, whatever counts the message declares.
  std::array<uint32_t, kMaxHessianDepth> stack;
  size_t depth = 0;
  uint32_t waiting = 1;
  for (;;) {
    if (waiting == 0) {
      if (depth == 0) return true;
      waiting = stack[--depth];
      continue;
    }
    if (AtEnd()) return Truncated(position_ + 1);
    uint8_t t = tag();
    if (waiting >= kOpenList) {
      if (t == 'Z') {
        if (waiting == kOpenMapValue) return Malformed("a Hessian map ends after a key");
        ++position_;
        waiting = 0;
        continue;
      }
      if (waiting != kOpenList) waiting = waiting == kOpenMapKey ? kOpenMapValue : kOpenMapKey;
    } else {
      --waiting;
    }
    while (t == 'C') {  // definitions stand before the object that needs them
      ++position_;
      if (!ReadClassDefinition()) return false;
      if (AtEnd()) return Truncated(position_ + 1);
      t = tag();
    }
    if (const size_t width = kFixedWidth[t]; width != 0) {
      if (bytes_.size() - position_ < width) return Truncated(position_ + width);
      position_ += width;
      continue;
    }
    if (IsStringTag(t)) {
      if (!SkipString()) return false;
      continue;
    }
    if (IsBinaryTag(t)) {
      if (!SkipBinary()) return false;
      continue;
    }
    ++position_;
    if (t == 'Q') {
      int32_t reference = 0;
      ++references_used_;
      if (!ReadInt(reference)) return false;
      continue;
    }

    size_t children = 0;
    uint32_t open = 0;
    if (t == 'H') {
      open = kOpenMapKey;
    } else if (t == 'M') {
      if (!SkipType()) return false;
      open = kOpenMapKey;
    } else if (t == 0x55) {
      if (!SkipType()) return false;
      open = kOpenList;
    } else if (t == 0x57) {
      open = kOpenList;
    } else if (t == 'V') {
      if (!SkipType() || !ReadCount(children)) return false;
    } else if (t == 0x58) {
      if (!ReadCount(children)) return false;
    } else if (t >= 0x70 && t <= 0x77) {
      if (!SkipType()) return false;
      children = t - 0x70u;
    } else if (t >= 0x78 && t <= 0x7f) {
      children = t - 0x78u;
    } else if (t == 'O' || (t >= 0x60 && t <= 0x6f)) {
      int32_t index = t - 0x60;
      if (t == 'O' && !ReadInt(index)) return false;
      ++references_used_;
      if (index < 0 || !FieldsOf(static_cast<size_t>(index), children)) {
        return Malformed("a Hessian object has no class definition");
      }
    } else {
      return Malformed("unknown Hessian tag");
    }
    ++referables_made_;
    if (waiting != 0) {
      if (depth == kMaxHessianDepth) return Malformed("Hessian values are nested too deeply");
      stack[depth++] = waiting;
    }
    waiting = open != 0 ? open : static_cast<uint32_t>(children);
  }
}

bool Hessian2Reader::ReadMapBegin() {
  if (AtEnd()) return Truncated(position_ + 1);
  const uint8_t t = tag();
  if (t != 'H' && t != 'M') return Malformed("a Hessian map was expected");
  ++position_;
  return t == 'H' || SkipType();
}

std::string HessianString::Text() const {
  if (null) return {};
  if (!chunked) return ascii || IsUtf8(raw) ? std::string(raw) : JavaUtf8ToUtf8(raw);
  // Chunks are joined before pairs of surrogates are, because a pair may straddle two chunks.
  std::string joined;
  Hessian2Reader reader(raw);
  bool last = false;
  bool is_ascii = true;
  Bytes characters;
  while (!last && reader.ReadStringChunk(last, characters, is_ascii)) joined.append(characters);
  return IsUtf8(joined) ? joined : JavaUtf8ToUtf8(joined);
}

std::string_view HessianString::TextOfOther(Metadata& owner) const {
  return IsView() ? raw : owner.Own(Text());
}

void AppendHessianString(std::string& out, std::string_view text) {
  // Measured first, so that the last chunk knows its length before its characters are written.
  size_t units = 0;
  for (Utf8Iterator it(text); !it.Done();) units += it.Next() > 0xFFFF ? 2 : 1;

  Utf8Iterator it(text);
  uint32_t held = 0;  // a code point that did not fit into the last chunk
  bool holding = false;
  do {
    const bool last = units <= kChunkUnits;
    const size_t head = out.size();
    if (last && units <= 0x1f) {
      out.push_back(static_cast<char>(units));
    } else if (last && units <= 0x3ff) {
      out.push_back(static_cast<char>(0x30 + (units >> 8)));
      out.push_back(static_cast<char>(units));
    } else {
      out.append(3, last ? 'S' : 'R');
    }
    const size_t room = last ? units : kChunkUnits;
    size_t written = 0;
    while (holding || (written < room && !it.Done())) {
      const uint32_t c = holding ? held : it.Next();
      holding = false;
      if (c > 0xFFFF) {
        if (written + 2 > room) {
          held = c;
          holding = true;
          break;
        }
        const uint32_t v = c - 0x10000;
        for (const uint32_t half : {0xD800 + (v >> 10), 0xDC00 + (v & 0x3FF)}) {
          out.push_back(static_cast<char>(0xE0 | half >> 12));
          out.push_back(static_cast<char>(0x80 | (half >> 6 & 0x3F)));
          out.push_back(static_cast<char>(0x80 | (half & 0x3F)));
        }
        written += 2;
      } else {
        AppendUtf8(out, c);
        ++written;
      }
    }
    if (out[head] == 'R' || out[head] == 'S')
      StoreBe16(&out[head + 1], static_cast<uint16_t>(written));
    units -= written;
  } while (units != 0);
}

}  // namespace metaprotocol::dubbo
