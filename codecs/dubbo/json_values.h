// Dubbo's fastjson bodies: one JSON value after the other, the attachments as the last.
//
// Sources: org.apache.dubbo.common.serialize.fastjson.FastJsonObjectOutput, which up to Dubbo 2.7
// prints each value followed by the platform's line separator, and in Dubbo 3's extensions writes
// each behind its length in four bytes. Nothing is built; values are stepped over by brackets and
// quotes in one pass.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "src/codec/bytes.h"
#include "src/codec/metadata.h"

namespace metaprotocol::dubbo {

class JsonValues {
 public:
  // Whether `body` has lengths: no JSON begins with a zero byte, and no length without one.
  static bool HasLengths(Bytes body) { return !body.empty() && body.front() == '\0'; }

  // With `complete`, the last line may lack its separator.
  JsonValues(Bytes bytes, bool complete)
      : bytes_(bytes), complete_(complete), has_lengths_(HasLengths(bytes)) {}

  // The next value without what is around it; false at the end.
  bool Next(Bytes& value);
  size_t position() const { return position_; }
  bool has_lengths() const { return has_lengths_; }

 private:
  Bytes bytes_;
  bool complete_;
  bool has_lengths_;
  size_t position_ = 0;
};

// Whether `token` is a JSON string without escapes, whose `text` is then a view of it.
bool JsonIsPlain(Bytes token, std::string_view& text);

// The text of a JSON string token with its quotes: a view where nothing is escaped, else kept by
// `owner`. False if `token` is no JSON string.
bool JsonText(Bytes token, Metadata& owner, std::string_view& text);
bool JsonText(Bytes token, std::string& text);

// One `"key": value` of an object, as positions in the line.
struct JsonMember {
  Bytes key;    // with quotes
  Bytes value;  // with quotes if it is a string
  Bytes whole;
  bool string_value() const { return !value.empty() && value.front() == '"'; }
};

// Walks the members of the object that a line consists of.
class JsonObjectReader {
 public:
  explicit JsonObjectReader(Bytes line) : line_(line) {}

  // Takes the opening brace; false if the line is no object.
  bool Begin();
  // False at the closing brace and on malformed input, which `malformed()` tells apart.
  bool Next(JsonMember& member);
  bool malformed() const { return malformed_; }

 private:
  void SkipSpace();
  bool SkipString();
  bool SkipValue();
  bool Fail();

  Bytes line_;
  size_t position_ = 0;
  bool first_ = true;
  bool malformed_ = false;
};

// Appends `text` (UTF-8; broken bytes become U+FFFD) as a JSON string with quotes.
void AppendJsonString(std::string& out, std::string_view text);

}  // namespace metaprotocol::dubbo
