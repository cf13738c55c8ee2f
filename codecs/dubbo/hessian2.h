// Hessian 2: enough of it to find the strings a proxy needs and to step over everything else.
//
// Grammar: Caucho, "Hessian 2.0 Serialization Protocol", section 3; where it leaves room (reserved
// codes, how a string counts its characters) what Dubbo's own reader does decides, see README.md.
// Nothing is ever built: a value is skipped in one pass, in time linear in its bytes, with a stack
// of bounded size and no recursion.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "codecs/dubbo/ascii.h"
#include "src/codec/bytes.h"
#include "src/codec/metadata.h"
#include "src/codec/utf8.h"

namespace metaprotocol::dubbo {

// Lists, maps and objects inside one another. The last element of a list and the last field of an
// object do not count, so that chains ("next" as last field) may be of any length.
inline constexpr size_t kMaxHessianDepth = 1024;
// Class definitions in one body: bounds the only memory the parser needs beyond its stack.
inline constexpr size_t kMaxHessianClasses = 4096;

// One string as it lies on the wire.
struct HessianString {
  Bytes raw;             // the characters, or the complete encoding where `chunked`
  bool null = false;     // 'N' stood there instead
  bool ascii = true;     // `raw` can be used as it is
  bool chunked = false;  // several chunks: the characters are not contiguous

  // The characters as strict UTF-8: a view of the wire where possible, else kept by `owner`.
  std::string_view Text(Metadata& owner) const {
    return ascii && !chunked ? raw : TextOfOther(owner);
  }
  std::string Text() const;
  // `raw` is that text.
  bool IsView() const { return !chunked && (ascii || IsUtf8(raw)); }

 private:
  std::string_view TextOfOther(Metadata& owner) const;
};

// Walks over strings of the most common form, ASCII in one piece behind a length of one or two
// bytes, and over nothing else. Small enough to live in registers, where nearly all strings of
// nearly all messages are passed over.
class PlainStrings {
 public:
  // Those at `position` of `bytes`, of which all before `ascii_end` is ASCII.
  PlainStrings(Bytes bytes, size_t position, size_t ascii_end)
      : bytes_(bytes.data()), position_(position), end_(ascii_end) {}
  // Those that `bytes` begin with.
  static PlainStrings In(Bytes bytes) { return {bytes, 0, AsciiPrefix(bytes)}; }

  // False, with nothing taken, for what is not of that form or does not end here.
  bool Take(Bytes& text) {
    size_t begin = 0;
    size_t units = 0;
    if (!ReadHead(position_, begin, units) || begin + units > end_) return false;
    text = {bytes_ + begin, units};
    position_ = begin + units;
    return true;
  }
  // Two of them, of which the second one can only begin here if the first one ends here.
  bool TakeEntry(Bytes& key, Bytes& value) {
    size_t key_begin = 0;
    size_t key_units = 0;
    size_t begin = 0;
    size_t units = 0;
    if (!ReadHead(position_, key_begin, key_units) ||
        !ReadHead(key_begin + key_units, begin, units) || begin + units > end_) {
      return false;
    }
    key = {bytes_ + key_begin, key_units};
    value = {bytes_ + begin, units};
    position_ = begin + units;
    return true;
  }
  bool TakeTag(char tag) {
    if (position_ >= end_ || bytes_[position_] != tag) return false;
    ++position_;
    return true;
  }
  size_t position() const { return position_; }
  // To what another one has come to.
  void MoveTo(size_t position) { position_ = position; }

 private:
  // Where the characters of the string at `at` begin, and how many they are.
  bool ReadHead(size_t at, size_t& begin, size_t& units) const {
    if (at + 1 >= end_) return false;
    units = static_cast<uint8_t>(bytes_[at]);
    begin = at + 1;
    if (units <= 0x1f) return true;
    if ((units & 0xfc) != 0x30) return false;
    units = (units & 3) << 8 | static_cast<uint8_t>(bytes_[begin++]);
    return true;
  }

  const char* bytes_;
  size_t position_;
  size_t end_;
};

// Walks one Hessian 2 stream. After a failed call the position is of no use; `truncated()` says
// whether more bytes could have helped, `error()` what was wrong.
class Hessian2Reader {
 public:
  explicit Hessian2Reader(Bytes bytes) : bytes_(bytes) {}

  size_t position() const { return position_; }
  bool AtEnd() const { return position_ == bytes_.size(); }
  // The next value's tag; only if !AtEnd().
  uint8_t tag() const { return static_cast<uint8_t>(bytes_[position_]); }
  bool NextIsInt() const;
  bool NextIsString() const { return !AtEnd() && IsStringTag(tag()); }

  // A string or null.
  bool ReadString(HessianString& out) {
    Bytes text;
    if (!TakePlainString(text)) return ReadAnyString(out);
    out = HessianString{text, false, true, false};
    return true;
  }
  // A string of the most common form; false, with nothing taken, for everything else.
  bool TakePlainString(Bytes& text) {
    const char* const p = bytes_.data() + position_;
    const size_t left = bytes_.size() - position_;
    if (left < 2) return false;
    size_t units = static_cast<uint8_t>(p[0]);
    size_t head = 1;
    if (units > 0x1f) {
      if ((units & 0xfc) != 0x30) return false;
      units = (units & 3) << 8 | static_cast<uint8_t>(p[1]);
      head = 2;
    }
    if (left - head < units) return false;
    text = {p + head, units};
    const size_t end = position_ + head + units;
    if (end > ascii_end_ && !IsAsciiText(text)) return false;
    position_ = end;
    return true;
  }
  // To be called where many strings may follow: that they are ASCII is then seen at once for those
  // in the next `bytes`.
  void LookAhead(size_t bytes) {
    const size_t begin = std::max(position_, ascii_end_);
    const size_t end = std::min(bytes_.size(), position_ + bytes);
    if (begin < end) ascii_end_ = begin + AsciiPrefix(bytes_.substr(begin, end - begin));
  }
  // What LookAhead has seen from here on...
  PlainStrings Plain() const { return {bytes_, position_, std::max(position_, ascii_end_)}; }
  // ...of which was taken what comes before `position`.
  void Continue(size_t position) { position_ = position; }
  // One chunk of a string; `ascii` turns false where it is not.
  bool ReadStringChunk(bool& last, Bytes& characters, bool& ascii);
  bool ReadInt(int32_t& out);
  bool SkipValue() {
    Bytes text;
    return TakePlainString(text) || SkipAnyValue();
  }

  // The parts of a map, for those who want to see its entries: the tag with the type if it has one,
  // then for each entry two values, until TakeMapEnd() finds the end.
  bool ReadMapBegin();
  bool TakeMapEnd() {
    if (AtEnd() || tag() != 'Z') return false;
    ++position_;
    return true;
  }

  bool truncated() const { return truncated_; }
  // Where `truncated()`: the least number of bytes with which trying again makes sense.
  size_t need() const { return need_; }
  std::string_view error() const { return error_; }

  // How many references to earlier values, classes and types have been seen, and how many things
  // that could be referred to: who cuts bytes out of a stream must not cut away what is referred
  // to.
  size_t references_used() const { return references_used_; }
  size_t referables_made() const { return referables_made_; }

 private:
  static constexpr bool IsStringTag(uint8_t t) {
    return t <= 0x1f || (t >= 0x30 && t <= 0x33) || t == 'R' || t == 'S';
  }
  bool Truncated(size_t need);
  bool Malformed(std::string_view why);
  bool SkipAnyValue();
  bool ReadAnyString(HessianString& out);
  bool SkipString();
  bool SkipUnits(size_t units, bool& ascii);
  bool SkipBinary();
  bool SkipType();
  bool ReadCount(size_t& out);
  bool ReadClassDefinition();
  bool FieldsOf(size_t class_index, size_t& fields) const;

  Bytes bytes_;
  size_t position_ = 0;
  size_t ascii_end_ = 0;  // what lies between the position and there is ASCII
  size_t need_ = 0;
  std::string_view error_;
  bool truncated_ = false;
  size_t references_used_ = 0;
  size_t referables_made_ = 0;

  static constexpr size_t kInlineClasses = 16;
  std::array<uint32_t, kInlineClasses> class_fields_;  // the first `class_count_` are in use
  std::vector<uint32_t> more_class_fields_;
  size_t class_count_ = 0;
};

// Appends `text` (UTF-8; broken bytes become U+FFFD) as a Hessian string that Java reads: UTF-16
// units counted, surrogate pairs as two three-byte halves, chunks of at most 32768 units that split
// no pair.
void AppendHessianString(std::string& out, std::string_view text);

}  // namespace metaprotocol::dubbo
