#include "src/route/condition_matcher.h"

#include <re2/re2.h>

#include <algorithm>
#include <charconv>

#include "src/codec/utf8.h"

namespace metaprotocol {
namespace {

// What one expression may use for its program and its lazily built automaton.
constexpr int64_t kRegexMemoryBytes = int64_t{1} << 20;

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; }

std::string Folded(std::string_view text) {
  std::string folded(text);
  std::transform(folded.begin(), folded.end(), folded.begin(), Lower);
  return folded;
}

// The folded `value` against an already folded text, byte by byte: nothing is copied.
bool FoldedEqual(std::string_view value, std::string_view folded) {
  return std::equal(value.begin(), value.end(), folded.begin(), folded.end(),
                    [](char v, char f) { return Lower(v) == f; });
}

int FoldedCompare(std::string_view value, std::string_view folded) {
  const size_t common = std::min(value.size(), folded.size());
  for (size_t i = 0; i < common; ++i) {
    const auto v = static_cast<unsigned char>(Lower(value[i]));
    const auto f = static_cast<unsigned char>(folded[i]);
    if (v != f) return v < f ? -1 : 1;
  }
  return value.size() == folded.size() ? 0 : (value.size() < folded.size() ? -1 : 1);
}

bool FoldedContains(std::string_view value, std::string_view folded) {
  return std::search(value.begin(), value.end(), folded.begin(), folded.end(),
                     [](char v, char f) { return Lower(v) == f; }) != value.end() ||
         folded.empty();
}

re2::RE2::Options OptionsFor(bool ignore_case) {
  re2::RE2::Options options;
  options.set_max_mem(kRegexMemoryBytes);
  options.set_log_errors(false);
  options.set_never_capture(true);
  options.set_case_sensitive(!ignore_case);
  return options;
}

}  // namespace

Regex::Regex(const std::string& expression, bool ignore_case)
    : ignore_case_(ignore_case),
      characters_(std::make_unique<re2::RE2>(expression, OptionsFor(ignore_case))) {}
Regex::~Regex() = default;

std::string Regex::Error() const {
  if (characters_->ok()) return "";
  // RE2 names the part it stumbled over; where that part stands helps in a long expression.
  std::string error = "is not a valid RE2 expression: " + characters_->error();
  const std::string& expression = characters_->pattern();
  const std::string part(characters_->error_arg().data(), characters_->error_arg().size());
  const size_t position = expression.find(part);
  if (!part.empty() && part != expression && position != std::string::npos) {
    error += " (at byte " + std::to_string(position) + ")";
  }
  return error;
}

bool Regex::Matches(std::string_view value) const {
  const re2::StringPiece text(value.data(), value.size());
  if (re2::RE2::FullMatch(text, *characters_)) return true;
  if (IsUtf8(value)) return false;
  std::call_once(once_, [this] {
    re2::RE2::Options options = OptionsFor(ignore_case_);
    options.set_encoding(re2::RE2::Options::EncodingLatin1);
    bytes_ = std::make_unique<re2::RE2>(characters_->pattern(), options);
  });
  return bytes_->ok() && re2::RE2::FullMatch(text, *bytes_);
}

const Regex* RegexPool::Compile(const std::string& expression, bool ignore_case,
                                std::string& error) {
  std::unique_ptr<const Regex>& regex = compiled_[{expression, ignore_case}];
  if (regex == nullptr) regex = std::make_unique<const Regex>(expression, ignore_case);
  error = regex->Error();
  return error.empty() ? regex.get() : nullptr;
}

bool ParseDecimal(std::string_view text, int64_t& number) {
  if (text.starts_with('+')) {
    text.remove_prefix(1);
    if (text.starts_with('-')) return false;
  }
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  return error == std::errc() && rest == end;
}

ConditionMatcher::ConditionMatcher(const Condition& condition, MetadataKeys& keys,
                                   RegexPool& regexes, std::string& error)
    : key_(condition.key, keys),
      kind_(condition.kind),
      ignore_case_(condition.ignore_case),
      invert_(condition.invert),
      searches_(kind_ == Condition::Kind::kRegex || kind_ == Condition::Kind::kContains ||
                kind_ == Condition::Kind::kRange),
      range_start_(condition.range_start),
      range_end_(condition.range_end) {
  for (const std::string& value : condition.values) {
    texts_.push_back(ignore_case_ && kind_ != Condition::Kind::kRegex ? Folded(value) : value);
  }
  if (!texts_.empty()) text_ = texts_.front();
  if (kind_ == Condition::Kind::kRegex) regex_ = regexes.Compile(text_, ignore_case_, error);
  if (kind_ == Condition::Kind::kIpIn) {
    // Those that are none were refused when the configuration was loaded; here they hold nothing.
    for (const std::string& value : condition.values) {
      if (const auto range = AddressRange::Parse(value)) addresses_.push_back(*range);
    }
  }
  if (kind_ == Condition::Kind::kOneOf) {
    std::sort(texts_.begin(), texts_.end());
  } else {
    texts_.clear();
  }
}

Verdict ConditionMatcher::Check(const MatchInput& input) const {
  bool too_long = false;
  bool holds = false;
  if (kind_ == Condition::Kind::kAbsent) {
    holds = !key_.Find(input).has_value();
  } else {
    holds = key_.AnyValue(input, [&](std::string_view value) {
      if (searches_ && value.size() > kMaxSearchedBytes) {
        too_long = true;
        return false;
      }
      return Satisfies(value);
    });
  }
  if (!holds && too_long) return Verdict::kUndecided;
  return holds != invert_ ? Verdict::kYes : Verdict::kNo;
}

bool ConditionMatcher::Satisfies(std::string_view value) const {
  switch (kind_) {
    case Condition::Kind::kExact:
      return ignore_case_ ? FoldedEqual(value, text_) : value == text_;
    case Condition::Kind::kPrefix:
      return ignore_case_ ? FoldedEqual(value.substr(0, text_.size()), text_)
                          : value.starts_with(text_);
    case Condition::Kind::kSuffix:
      if (value.size() < text_.size()) return false;
      return ignore_case_ ? FoldedEqual(value.substr(value.size() - text_.size()), text_)
                          : value.ends_with(text_);
    case Condition::Kind::kContains:
      return ignore_case_ ? FoldedContains(value, text_)
                          : value.find(text_) != std::string_view::npos;
    case Condition::Kind::kRegex:
      return regex_->Matches(value);
    case Condition::Kind::kPresent:
      return true;
    case Condition::Kind::kAbsent:
      return false;
    case Condition::Kind::kRange: {
      int64_t number = 0;
      return ParseDecimal(value, number) && number >= range_start_ && number < range_end_;
    }
    case Condition::Kind::kOneOf:
      return IsOneOf(value);
    case Condition::Kind::kIpIn:
      return IsIn(value);
  }
  return false;
}

bool ConditionMatcher::IsIn(std::string_view address) const {
  const auto bytes = ParseAddress(address);
  return bytes && std::any_of(addresses_.begin(), addresses_.end(),
                              [&](const AddressRange& range) { return range.Contains(*bytes); });
}

bool ConditionMatcher::IsOneOf(std::string_view value) const {
  if (!ignore_case_) return std::binary_search(texts_.begin(), texts_.end(), value, std::less<>());
  size_t low = 0;
  for (size_t high = texts_.size(); low < high;) {
    const size_t middle = low + (high - low) / 2;
    const int order = FoldedCompare(value, texts_[middle]);
    if (order == 0) return true;
    if (order < 0) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return false;
}

}  // namespace metaprotocol
