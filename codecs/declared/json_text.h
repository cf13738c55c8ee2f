// JSON as RFC 8259 has it, token by token and without building anything: what messages in JSON are
// read and written with. Everything is gone through once, and how deep it nests costs no stack.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "src/codec/bytes.h"

namespace metaprotocol::declared {

// Nothing that anybody sends has so many levels within a value.
inline constexpr int kMaxJsonDepth = 64;

// A string as it stands there, without its quotes.
struct JsonString {
  Bytes raw;
  bool escaped = false;  // there is a backslash in it

  // What it says: a view of `raw` where that is it, else kept in `owner`.
  std::string_view Text(std::string& owner) const;
};

// Steps through one text. Each call takes what it is named for from where the last one ended, and
// is false, for good, where something else stands there.
class JsonScanner {
 public:
  explicit JsonScanner(Bytes text) : begin_(text.data()), at_(begin_), end_(begin_ + text.size()) {}

  size_t position() const { return static_cast<size_t>(at_ - begin_); }
  // What comes next, behind white space; '\0' at the end.
  char Peek() {
    SkipSpace();
    return at_ == end_ ? '\0' : *at_;
  }
  // Whether this comes next; if so it is taken.
  bool Take(char wanted) {
    if (Peek() != wanted || at_ == end_) return false;
    ++at_;
    return true;
  }
  bool AtEnd() {
    SkipSpace();
    return at_ == end_;
  }
  // A string, with its quotes.
  bool String(JsonString& string);
  // A number, as it stands there.
  bool Number(Bytes& number);
  // Whether null comes next; if so it is taken.
  bool Null();
  // Any value.
  bool Value();

 private:
  void SkipSpace() {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\t' || *at_ == '\n' || *at_ == '\r')) ++at_;
  }
  bool Escape();
  bool Hex4(uint32_t& unit);
  bool Literal(std::string_view literal);
  bool Scalar();

  const char* const begin_;
  const char* at_;
  const char* const end_;
};

// A number without fraction or exponent; false for others, and beyond 64 bits. `negative`: `value`
// is its two's complement.
bool ParseJsonInteger(Bytes number, uint64_t& value, bool& negative);

// Appends `text`, which is UTF-8, as a string with its quotes.
void AppendJsonString(std::string& out, std::string_view text);

}  // namespace metaprotocol::declared
