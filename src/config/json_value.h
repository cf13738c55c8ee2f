// JSON text as a tree, read with bounds on size and depth. It keeps what a configuration reader
// needs to be exact and nlohmann's own tree drops: repeated keys are an error, 64-bit integers and
// the text of fractions stay as they were written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace metaprotocol {

class JsonValue {
 public:
  enum class Kind : uint8_t {
    kNull,
    kBool,
    kInteger,
    kUnsigned,
    kFraction,
    kString,
    kArray,
    kObject
  };

  Kind kind = Kind::kNull;
  union {
    bool boolean = false;
    int64_t integer;            // kInteger
    uint64_t unsigned_integer;  // kUnsigned: integers above INT64_MAX only
    double fraction;  // kFraction: with a fraction or an exponent, or too large for the others
  };
  std::string key;               // its name, if it is a member of an object
  std::string text;              // of a string; of a fraction as it was written
  std::vector<JsonValue> items;  // of an array or an object, in the order written

  // Appends the value as JSON, but stops soon after `out` has `max_bytes`.
  void AppendTo(std::string& out, size_t max_bytes = SIZE_MAX) const;
};

// Appends `text` quoted and escaped.
void AppendJsonString(std::string_view text, std::string& out);

struct JsonLimits {
  size_t max_bytes = size_t{32} << 20;
  size_t max_depth = 64;
  size_t max_values = size_t{2} << 20;
};

// Reads `json`, which must be one value in UTF-8. False, with what is wrong and where in `error`,
// if it is not JSON, has an object with the same key twice, or exceeds a limit.
bool ParseJson(std::string_view json, const JsonLimits& limits, JsonValue& out, std::string& error);

}  // namespace metaprotocol
