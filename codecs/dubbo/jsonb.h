// JSONB, the binary JSON of fastjson2: enough of it to read strings and step over everything else.
//
// Source: com.alibaba.fastjson2.JSONB, whose comment lists the codes. Dubbo writes each value as a
// JSONB document of its own behind its length in four bytes
// (org.apache.dubbo.common.serialize.fastjson2.FastJson2ObjectOutput). Nothing is built: values are
// stepped over in one pass, in time linear in their bytes, with a stack of bounded size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "src/codec/bytes.h"
#include "src/codec/metadata.h"

namespace metaprotocol::dubbo {

// Arrays and objects inside one another; fastjson2 itself gives up at 2048.
inline constexpr size_t kMaxJsonbDepth = 1024;

// One string as it lies on the wire.
struct JsonbString {
  enum class Charset : uint8_t { kLatin1, kUtf8, kUtf16Be, kUtf16Le, kUnknown };
  Bytes raw;
  Charset charset = Charset::kLatin1;

  // `raw` is the text.
  bool IsView() const;
  // The characters as strict UTF-8; false if they are in a charset that is not read here, or are
  // broken in it, so that nobody can say what their reader sees.
  bool Text(std::string& text) const;
  // The same: a view of the wire where possible, else of `room`.
  bool Text(std::string& room, std::string_view& text) const;
  // Likewise, else kept by `owner`.
  bool Text(Metadata& owner, std::string_view& text) const;
};

// A walk over one document. What returns false has moved nowhere worth knowing: the document is
// broken.
class JsonbReader {
 public:
  explicit JsonbReader(Bytes bytes) : bytes_(bytes) {}

  bool AtEnd() const { return position_ == bytes_.size(); }
  size_t position() const { return position_; }
  bool NextIsString() const;
  // A name in the symbol table, of which the first mention spells it out.
  bool NextIsSymbol() const;
  // Whether what comes is a number, a truth value, a time, bytes, or an array or object of no class
  // of its own: nothing whose reader could make a string of it.
  bool NextIsNoText() const;

  bool ReadString(JsonbString& string);
  // The first mention of a symbol. False for a later one too.
  bool ReadSymbol(JsonbString& name);
  // Numbers of 8 to 32 bits.
  bool ReadInt(int32_t& value);
  bool SkipValue();
  // The name of a class in front of a value, if there is one.
  bool SkipType();
  bool ReadObjectBegin();
  bool TakeObjectEnd();

  // How often symbols, class names and references have been seen: what stands there may depend on
  // what stands before it.
  size_t links() const { return links_; }

 private:
  bool Has(size_t count) const { return bytes_.size() - position_ >= count; }
  uint8_t tag() const { return static_cast<uint8_t>(bytes_[position_]); }
  bool Skip(size_t count);
  bool ReadLength(size_t& length);
  bool SkipCompactInt();
  bool SkipNumber();
  // A value without the items in it. `items`: how many there are; kOpen: an object's, up to its
  // end.
  bool SkipOne(size_t& items);

  Bytes bytes_;
  size_t position_ = 0;
  size_t links_ = 0;
};

// The documents of a body, one after the other.
class JsonbValues {
 public:
  explicit JsonbValues(Bytes bytes) : bytes_(bytes) {}

  // The next one without its length; false at the end, and if the rest is shorter than it says.
  bool Next(Bytes& value);
  size_t position() const { return position_; }

 private:
  Bytes bytes_;
  size_t position_ = 0;
};

inline bool JsonbIsNull(Bytes value) { return value == "\xaf"; }
// The string that `value` is, and nothing behind it.
bool JsonbStringOf(Bytes value, JsonbString& string);

// Appends `text` (UTF-8; broken bytes become U+FFFD) as a string.
void AppendJsonbString(std::string& out, std::string_view text);

}  // namespace metaprotocol::dubbo
