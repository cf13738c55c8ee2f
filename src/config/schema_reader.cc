#include "src/config/schema_reader.h"

#include <re2/re2.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

namespace metaprotocol::config {
namespace {

// Bytes of a value that an error message shows.
constexpr size_t kShownBytes = 80;
// Longer names are not compared with the known ones: nobody mistypes that.
constexpr size_t kMaxComparedName = 64;
// The longest duration there is, by google/protobuf/duration.proto.
constexpr int64_t kMaxDurationSeconds = 315'576'000'000;

std::string Show(const JsonValue& json) {
  std::string text;
  json.AppendTo(text, kShownBytes + 4);
  return Shorten(std::move(text), kShownBytes);
}

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

// Levenshtein distance, case ignored.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (Lower(a[i - 1]) == Lower(b[j - 1]) ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

// Index of the name that was probably meant, or names.size().
template <class Names, class Projection>
size_t Closest(std::string_view given, const Names& names, Projection name_of) {
  size_t best = names.size();
  if (given.size() > kMaxComparedName) return best;
  size_t allowed = std::max<size_t>(1, given.size() / 3);
  for (size_t i = 0; i < names.size(); ++i) {
    const size_t distance = EditDistance(given, name_of(names[i]));
    if (distance < allowed || (distance == allowed && best == names.size())) {
      best = i;
      allowed = distance;
    }
  }
  return best;
}

template <class List, class Projection>
std::string Join(const List& list, Projection text_of) {
  std::string joined;
  for (const auto& entry : list) {
    if (!joined.empty()) joined += ", ";
    joined += text_of(entry);
  }
  return joined;
}

std::string NumberText(double number) {
  char text[32];
  const auto [end, error] = std::to_chars(text, text + sizeof text, number);
  return {text, end};
}

// "0.001s"
std::string DurationText(int64_t us) {
  std::string text = std::to_string(us / 1'000'000);
  if (int64_t rest = std::abs(us % 1'000'000); rest != 0) {
    std::string digits = std::to_string(1'000'000 + rest).substr(1);
    digits.erase(digits.find_last_not_of('0') + 1);
    text.append(".").append(digits);
  }
  return text + "s";
}

// "1.5s" in microseconds, rounded away from zero.
std::optional<int64_t> ParseDuration(std::string_view text) {
  const bool negative = text.starts_with('-');
  if (negative) text.remove_prefix(1);
  if (!text.ends_with('s')) return std::nullopt;
  text.remove_suffix(1);
  std::string_view whole = text.substr(0, text.find('.'));
  std::string_view digits = whole.size() < text.size() ? text.substr(whole.size() + 1) : "0";
  const auto all_digits = [](std::string_view part) {
    return !part.empty() &&
           std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
  };
  if (!all_digits(whole) || !all_digits(digits) || digits.size() > 9) return std::nullopt;
  int64_t seconds = 0;
  if (std::from_chars(whole.data(), whole.data() + whole.size(), seconds).ec != std::errc() ||
      seconds > kMaxDurationSeconds) {
    return std::nullopt;
  }
  int64_t nanoseconds = 0;
  for (size_t i = 0; i < 9; ++i) {
    nanoseconds = nanoseconds * 10 + (i < digits.size() ? digits[i] - '0' : 0);
  }
  const int64_t us = seconds * 1'000'000 + (nanoseconds + 999) / 1000;
  return negative ? -us : us;
}

// The integer that a JSON number or string stands for, if it is one and fits.
template <class T>
std::optional<T> ExactInteger(const JsonValue& json) {
  switch (json.kind) {
    case JsonValue::Kind::kInteger:
      if (!std::in_range<T>(json.integer)) return std::nullopt;
      return static_cast<T>(json.integer);
    case JsonValue::Kind::kUnsigned:
      if (!std::in_range<T>(json.unsigned_integer)) return std::nullopt;
      return static_cast<T>(json.unsigned_integer);
    case JsonValue::Kind::kFraction: {
      const double limit = std::ldexp(1.0, std::numeric_limits<T>::digits);
      const double lowest = std::is_signed_v<T> ? -limit : 0.0;
      const double number = json.fraction;
      if (!(number >= lowest && number < limit) || std::trunc(number) != number) {
        return std::nullopt;
      }
      return static_cast<T>(number);
    }
    case JsonValue::Kind::kString: {
      T number{};
      const char* end = json.text.data() + json.text.size();
      const auto [rest, error] = std::from_chars(json.text.data(), end, number);
      if (error != std::errc() || rest != end) return std::nullopt;
      return number;
    }
    default:
      return std::nullopt;
  }
}

}  // namespace

Pattern::Pattern(std::string_view expression, std::string_view meaning)
    : expression_(std::make_unique<re2::RE2>(expression)), meaning_(meaning) {}
Pattern::~Pattern() = default;

bool Pattern::Matches(std::string_view text) const {
  return re2::RE2::FullMatch({text.data(), text.size()}, *expression_);
}

void Reader::Fail(const JsonValue& json, std::string message) {
  errors_.Add(path_, Show(json), std::move(message));
}

void Reader::Read(const JsonValue& json, Bool, bool* out) {
  if (json.kind != JsonValue::Kind::kBool) return Fail(json, "must be true or false");
  *out = json.boolean;
}

void Reader::Read(const JsonValue& json, const Text& rule, std::string* out) {
  if (json.kind != JsonValue::Kind::kString) return Fail(json, "must be a string");
  *out = json.text;
  if (json.text.empty() && rule.not_empty) return Fail(json, "must not be empty");
  if (json.text.size() > rule.max_length) {
    return Fail(json, "must have at most " + std::to_string(rule.max_length) + " bytes, has " +
                          std::to_string(json.text.size()));
  }
  if (rule.pattern != nullptr && !rule.pattern->Matches(json.text)) {
    Fail(json, json.text.empty() ? std::string("must not be empty")
                                 : "must be " + std::string(rule.pattern->meaning()));
  }
}

void Reader::Read(const JsonValue& json, Object, std::string* out) {
  if (json.kind != JsonValue::Kind::kObject) return Fail(json, "must be an object");
  json.AppendTo(*out);
}

template <class T>
void Reader::ReadInteger(const JsonValue& json, const Range<T>& rule, T* out) {
  const std::optional<T> number = ExactInteger<T>(json);
  if (!number || *number < rule.minimum || *number > rule.maximum) {
    return Fail(json, "must be an integer from " + std::to_string(rule.minimum) + " to " +
                          std::to_string(rule.maximum));
  }
  *out = *number;
}

void Reader::Read(const JsonValue& json, const Range<int32_t>& rule, int32_t* out) {
  ReadInteger(json, rule, out);
}
void Reader::Read(const JsonValue& json, const Range<uint32_t>& rule, uint32_t* out) {
  ReadInteger(json, rule, out);
}
void Reader::Read(const JsonValue& json, const Range<int64_t>& rule, int64_t* out) {
  ReadInteger(json, rule, out);
}
void Reader::Read(const JsonValue& json, const Range<uint64_t>& rule, uint64_t* out) {
  ReadInteger(json, rule, out);
}

void Reader::Read(const JsonValue& json, const Range<double>& rule, double* out) {
  std::optional<double> number;
  if (json.kind == JsonValue::Kind::kInteger) number = static_cast<double>(json.integer);
  if (json.kind == JsonValue::Kind::kUnsigned) number = static_cast<double>(json.unsigned_integer);
  if (json.kind == JsonValue::Kind::kFraction) number = json.fraction;
  if (json.kind == JsonValue::Kind::kString) {
    double parsed = 0;
    const char* end = json.text.data() + json.text.size();
    const auto [rest, error] = std::from_chars(json.text.data(), end, parsed);
    if (error == std::errc() && rest == end) number = parsed;
  }
  // Written so that NaN is refused.
  if (!number || !(*number >= rule.minimum && *number <= rule.maximum)) {
    return Fail(json, "must be a number from " + NumberText(rule.minimum) + " to " +
                          NumberText(rule.maximum));
  }
  *out = *number;
}

void Reader::Read(const JsonValue& json, const Range<int64_t>& rule,
                  std::chrono::microseconds* out) {
  std::optional<int64_t> us;
  if (json.kind == JsonValue::Kind::kString) us = ParseDuration(json.text);
  if (!us || *us < rule.minimum || *us > rule.maximum) {
    return Fail(json, "must be a duration such as \"1.5s\", from " + DurationText(rule.minimum) +
                          " to " + DurationText(rule.maximum));
  }
  *out = std::chrono::microseconds(*us);
}

std::optional<int32_t> Reader::ReadName(const JsonValue& json, const Names& rule) {
  const auto name_of = [](const EnumName& name) { return name.name; };
  const std::string allowed = "must be one of " + Join(rule.names, name_of);
  if (json.kind == JsonValue::Kind::kString) {
    const auto known = std::ranges::find(rule.names, json.text, name_of);
    if (known != rule.names.end()) return known->number;
    const size_t meant = Closest(json.text, rule.names, name_of);
    Fail(json, meant < rule.names.size()
                   ? allowed + "; did you mean " + QuoteShort(rule.names[meant].name) + "?"
                   : allowed);
    return std::nullopt;
  }
  const auto number = ExactInteger<int32_t>(json);
  if (number && std::ranges::count(rule.names, *number, &EnumName::number) != 0) return number;
  Fail(json, allowed);
  return std::nullopt;
}

bool Reader::CheckList(const JsonValue& json, const Range<size_t>& length) {
  if (json.kind != JsonValue::Kind::kArray) {
    Fail(json, "must be a list");
    return false;
  }
  if (json.items.size() >= length.minimum && json.items.size() <= length.maximum) return true;
  Fail(json, json.items.size() < length.minimum
                 ? std::string("must not be empty")
                 : "must have at most " + std::to_string(length.maximum) + " entries, has " +
                       std::to_string(json.items.size()));
  return false;
}

ObjectReader::ObjectReader(Reader& reader, const JsonValue& json, std::span<const Field> fields,
                           std::span<const bool> required_oneofs)
    : reader_(reader),
      json_(json),
      fields_(fields),
      required_oneofs_(required_oneofs),
      path_end_(reader.path_.size()),
      seen_(fields.size()) {}

const JsonValue* ObjectReader::Next() {
  if (json_.kind != JsonValue::Kind::kObject) {
    reader_.Fail(json_, "must be an object");
    return nullptr;
  }
  while (position_ < json_.items.size()) {
    const JsonValue& member = json_.items[position_++];
    if (Enter(member)) return &member;
  }
  reader_.path_.resize(path_end_);
  Finish();
  return nullptr;
}

bool ObjectReader::Enter(const JsonValue& member) {
  std::string& path = reader_.path_;
  path.resize(path_end_);
  if (!path.empty()) path += '.';
  const auto known = std::ranges::find_if(fields_, [&](const Field& field) {
    return member.key == field.name || member.key == field.json_name;
  });
  if (known == fields_.end()) {
    path += Shorten(member.key, kMaxComparedName);
    reader_.Fail(member, UnknownFieldMessage(member.key));
    const size_t meant = Closest(member.key, fields_, [](const Field& f) { return f.name; });
    if (meant < fields_.size()) seen_[meant] = true;
    return false;
  }
  path += known->name;
  if (member.kind == JsonValue::Kind::kNull) return false;
  field_ = static_cast<size_t>(known - fields_.begin());
  if (seen_[field_]) {
    reader_.Fail(member, "is given twice");
    return false;
  }
  for (size_t i = 0; known->oneof >= 0 && i < fields_.size(); ++i) {
    if (seen_[i] && fields_[i].oneof == known->oneof) {
      reader_.Fail(member, "only one may be given of " + OneofNames(known->oneof));
      break;
    }
  }
  seen_[field_] = true;
  return true;
}

void ObjectReader::Finish() {
  const std::string object_path = reader_.path_;
  for (size_t i = 0; i < fields_.size(); ++i) {
    if (!fields_[i].required || seen_[i]) continue;
    const std::string separator = object_path.empty() ? "" : ".";
    reader_.errors_.Add(object_path + separator + std::string(fields_[i].name), "", "is required");
  }
  for (size_t oneof = 0; oneof < required_oneofs_.size(); ++oneof) {
    bool given = !required_oneofs_[oneof];
    for (size_t i = 0; i < fields_.size(); ++i) {
      given = given || (seen_[i] && fields_[i].oneof == static_cast<int>(oneof));
    }
    if (!given) {
      reader_.Fail(json_, "needs one of " + OneofNames(static_cast<int>(oneof)));
    }
  }
}

std::string ObjectReader::UnknownFieldMessage(std::string_view key) const {
  const auto name_of = [](const Field& field) { return field.name; };
  const size_t meant = Closest(key, fields_, name_of);
  if (meant < fields_.size()) {
    return "is not a field here; did you mean " + QuoteShort(fields_[meant].name) + "?";
  }
  return "is not a field here; allowed are " + Join(fields_, name_of);
}

std::string ObjectReader::OneofNames(int oneof) const {
  std::vector<std::string_view> names;
  for (const Field& field : fields_) {
    if (field.oneof == oneof) names.push_back(field.name);
  }
  return Join(names, [](std::string_view name) { return name; });
}

}  // namespace metaprotocol::config
