// Reads JSON into the structs generated from api/, by the rules of proto3-JSON, and collects every
// mistake with its path, its value and what is allowed.
//
// Generated code (generated/config_schema.cc) describes each message by tables and calls
// Reader::Read for each field; everything that is the same for all messages is here. Of
// proto3-JSON: field names as in the .proto or in camelCase, null means absent, enum values by name
// or number, integers also as strings or as fractions without a rest ("1e3", as
// google.protobuf.Struct writes large ones), durations as "1.5s".
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/config/config_error.h"
#include "src/config/json_value.h"

namespace re2 {
class RE2;
}

namespace metaprotocol::config {

// What a whole string must match, and the same in words.
class Pattern {
 public:
  Pattern(std::string_view expression, std::string_view meaning);
  ~Pattern();
  bool Matches(std::string_view text) const;
  std::string_view meaning() const { return meaning_; }

 private:
  std::unique_ptr<re2::RE2> expression_;
  std::string_view meaning_;
};

struct EnumName {
  std::string_view name;
  int32_t number;
};

// What one value of a field may be: the second argument of Reader::Read.
template <class T>
struct Range {  // numbers; durations in microseconds; lists by their length
  T minimum;
  T maximum;
};
struct Text {
  size_t max_length;  // bytes
  bool not_empty;
  const Pattern* pattern;  // or null
};
struct Names {
  std::span<const EnumName> names;
};
struct Bool {};
struct Object {};  // any JSON object, kept as text
struct Nested {};  // a message of its own

// One field of a message.
struct Field {
  std::string_view name;
  std::string_view json_name;
  bool required;
  int oneof;  // index of the oneof it belongs to, or -1
};

class Reader {
 public:
  explicit Reader(ErrorList& errors) : errors_(errors) {}

  void Read(const JsonValue& json, Bool rule, bool* out);
  void Read(const JsonValue& json, const Text& rule, std::string* out);
  void Read(const JsonValue& json, Object rule, std::string* out);
  void Read(const JsonValue& json, const Range<int32_t>& rule, int32_t* out);
  void Read(const JsonValue& json, const Range<uint32_t>& rule, uint32_t* out);
  void Read(const JsonValue& json, const Range<int64_t>& rule, int64_t* out);
  void Read(const JsonValue& json, const Range<uint64_t>& rule, uint64_t* out);
  void Read(const JsonValue& json, const Range<double>& rule, double* out);
  // Finer than a microsecond is rounded up, so that no positive duration becomes none.
  void Read(const JsonValue& json, const Range<int64_t>& rule, std::chrono::microseconds* out);

  template <class T>
  void Read(const JsonValue& json, const Names& rule, T* out) {
    if (const auto number = ReadName(json, rule)) *out = static_cast<T>(*number);
  }
  template <class T>
  void Read(const JsonValue& json, Nested, T* out) {
    ReadMessage(*this, json, out);  // generated; found by its argument's namespace
  }
  template <class Rule, class T>
  void ReadList(const JsonValue& json, const Range<size_t>& length, const Rule& rule,
                std::vector<T>* out) {
    if (!CheckList(json, length)) return;
    out->reserve(json.items.size());
    for (size_t i = 0; i < json.items.size(); ++i) {
      const size_t end = path_.size();
      path_.append("[").append(std::to_string(i)).append("]");
      T element{};
      Read(json.items[i], rule, &element);
      out->push_back(std::move(element));
      path_.resize(end);
    }
  }

  // An error at the present path.
  void Fail(const JsonValue& json, std::string message);
  ErrorList& errors() { return errors_; }

 private:
  friend class ObjectReader;

  std::optional<int32_t> ReadName(const JsonValue& json, const Names& rule);
  bool CheckList(const JsonValue& json, const Range<size_t>& length);
  template <class T>
  void ReadInteger(const JsonValue& json, const Range<T>& rule, T* out);

  ErrorList& errors_;
  std::string path_;
};

// Goes through the members of one JSON object: finds each one's field, and reports what is unknown,
// doubled or missing.
class ObjectReader {
 public:
  ObjectReader(Reader& reader, const JsonValue& json, std::span<const Field> fields,
               std::span<const bool> required_oneofs);

  // The next member that is a field and not null; null when there are no more. While it is read,
  // the reader's path is the member's.
  const JsonValue* Next();

  // Index of that member's field.
  size_t field() const { return field_; }

 private:
  bool Enter(const JsonValue& member);
  void Finish();
  std::string UnknownFieldMessage(std::string_view key) const;
  std::string OneofNames(int oneof) const;

  Reader& reader_;
  const JsonValue& json_;
  std::span<const Field> fields_;
  std::span<const bool> required_oneofs_;
  size_t path_end_;      // length of the object's own path
  size_t position_ = 0;  // of the next member
  size_t field_ = 0;
  std::vector<bool> seen_;  // by field; a misspelt field counts as seen: its error says enough
};

}  // namespace metaprotocol::config
