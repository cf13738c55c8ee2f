#include "src/config/json_value.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/config/config_error.h"

namespace metaprotocol {
namespace {

using Json = nlohmann::json;

constexpr char kHexDigits[] = "0123456789abcdef";

// Builds the tree from nlohmann's events. Returning false from one ends the parse.
class TreeBuilder final : public nlohmann::json_sax<Json> {
 public:
  TreeBuilder(const JsonLimits& limits, JsonValue& root, std::string& error)
      : limits_(limits), root_(root), error_(error) {}

  bool null() override { return Add(JsonValue::Kind::kNull) != nullptr; }
  bool boolean(bool value) override {
    JsonValue* added = Add(JsonValue::Kind::kBool);
    if (added != nullptr) added->boolean = value;
    return added != nullptr;
  }
  bool number_integer(number_integer_t value) override {
    JsonValue* added = Add(JsonValue::Kind::kInteger);
    if (added != nullptr) added->integer = value;
    return added != nullptr;
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (value <= INT64_MAX) return number_integer(static_cast<int64_t>(value));
    JsonValue* added = Add(JsonValue::Kind::kUnsigned);
    if (added != nullptr) added->unsigned_integer = value;
    return added != nullptr;
  }
  bool number_float(number_float_t value, const string_t& text) override {
    JsonValue* added = Add(JsonValue::Kind::kFraction);
    if (added == nullptr) return false;
    added->fraction = value;
    added->text = text;
    return true;
  }
  bool string(string_t& value) override {
    JsonValue* added = Add(JsonValue::Kind::kString);
    if (added != nullptr) added->text = std::move(value);
    return added != nullptr;
  }
  bool binary(binary_t&) override { return false; }  // not in text

  bool start_object(size_t) override { return Open(JsonValue::Kind::kObject); }
  bool start_array(size_t) override { return Open(JsonValue::Kind::kArray); }
  bool end_array() override {
    open_.pop_back();
    return true;
  }
  bool key(string_t& key) override {
    key_ = std::move(key);
    return true;
  }
  bool end_object() override {
    const JsonValue& object = *open_.back();
    open_.pop_back();
    std::vector<std::string_view> keys;
    keys.reserve(object.items.size());
    for (const JsonValue& member : object.items) keys.push_back(member.key);
    std::sort(keys.begin(), keys.end());
    const auto twice = std::adjacent_find(keys.begin(), keys.end());
    if (twice == keys.end()) return true;
    error_ = "an object has the key " + QuoteShort(*twice) + " twice";
    return false;
  }

  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& what) override {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: ..."
    std::string_view text = what.what();
    for (const std::string_view lead : {"] ", "parse error at "}) {
      if (const size_t at = text.find(lead); at < 40) {
        text.remove_prefix(at + lead.size());
      }
    }
    error_ = "not JSON: " + Shorten(std::string(text), 200);
    return false;
  }

 private:
  JsonValue* Add(JsonValue::Kind kind) {
    if (++values_ > limits_.max_values) {
      error_ = "more than " + std::to_string(limits_.max_values) + " values";
      return nullptr;
    }
    JsonValue* added = &root_;
    if (!open_.empty()) {
      added = &open_.back()->items.emplace_back();
      if (open_.back()->kind == JsonValue::Kind::kObject) added->key = std::move(key_);
    }
    added->kind = kind;
    return added;
  }

  bool Open(JsonValue::Kind kind) {
    if (open_.size() >= limits_.max_depth) {
      error_ = "nested deeper than " + std::to_string(limits_.max_depth) + " levels";
      return false;
    }
    JsonValue* added = Add(kind);
    if (added != nullptr) open_.push_back(added);
    return added != nullptr;
  }

  const JsonLimits& limits_;
  JsonValue& root_;
  std::string& error_;
  // Objects and arrays not closed yet. Only the innermost one grows, so the pointers stay valid.
  std::vector<JsonValue*> open_;
  std::string key_;
  size_t values_ = 0;
};

}  // namespace

void AppendJsonString(std::string_view text, std::string& out) {
  out += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out.append({'\\', c});
    } else if (c == '\n') {
      out += "\\n";
    } else if (byte < 0x20 || byte == 0x7F) {
      out.append("\\u00").append({kHexDigits[byte >> 4], kHexDigits[byte & 15]});
    } else {
      out += c;
    }
  }
  out += '"';
}

void JsonValue::AppendTo(std::string& out, size_t max_bytes) const {
  switch (kind) {
    case Kind::kNull:
      out += "null";
      return;
    case Kind::kBool:
      out += boolean ? "true" : "false";
      return;
    case Kind::kInteger:
      out += std::to_string(integer);
      return;
    case Kind::kUnsigned:
      out += std::to_string(unsigned_integer);
      return;
    case Kind::kFraction:
      out += text;
      return;
    case Kind::kString:
      AppendJsonString(std::string_view(text).substr(0, max_bytes), out);
      return;
    case Kind::kArray:
    case Kind::kObject:
      break;
  }
  out += kind == Kind::kArray ? '[' : '{';
  for (const JsonValue& item : items) {
    if (out.size() >= max_bytes) return;
    if (&item != &items.front()) out += ',';
    if (kind == Kind::kObject) {
      AppendJsonString(std::string_view(item.key).substr(0, max_bytes), out);
      out += ':';
    }
    item.AppendTo(out, max_bytes);
  }
  out += kind == Kind::kArray ? ']' : '}';
}

bool ParseJson(std::string_view json, const JsonLimits& limits, JsonValue& out,
               std::string& error) {
  if (json.size() > limits.max_bytes) {
    error = "larger than " + std::to_string(limits.max_bytes) + " bytes";
    return false;
  }
  TreeBuilder builder(limits, out, error);
  return Json::sax_parse(json, &builder);
}

}  // namespace metaprotocol
