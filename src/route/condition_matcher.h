// One condition of a route, prepared for matching.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/codec/metadata_keys.h"
#include "src/route/address_range.h"
#include "src/route/match_input.h"
#include "src/route/route_table.h"

namespace re2 {
class RE2;
}

namespace metaprotocol {

// One regular expression. A value that is not UTF-8 has no characters: it is matched byte by byte,
// so that one odd byte does not lead past a rule whose expression takes anything there.
class Regex {
 public:
  Regex(const std::string& expression, bool ignore_case);
  ~Regex();

  // What is wrong with it, if RE2 does not take it; "": nothing.
  std::string Error() const;
  // The whole value.
  bool Matches(std::string_view value) const;

 private:
  const bool ignore_case_;
  const std::unique_ptr<const re2::RE2> characters_;
  mutable std::once_flag once_;  // `bytes_` is compiled when it is first needed
  mutable std::unique_ptr<const re2::RE2> bytes_;
};

// Compiled regular expressions of one table: each distinct one once, however many routes use it.
class RegexPool {
 public:
  // Null, and what is wrong in `error`, if RE2 does not take it.
  const Regex* Compile(const std::string& expression, bool ignore_case, std::string& error);

 private:
  std::map<std::pair<std::string, bool>, std::unique_ptr<const Regex>> compiled_;
};

// Reads a decimal integer with an optional sign that fits into 64 bits; false for anything else.
bool ParseDecimal(std::string_view text, int64_t& number);

// Values longer than this are not searched through. Most conditions are decided by as many bytes as
// they have texts themselves, whatever the value's length; only those that have to look at all of
// it (regex, contains, range) stay undecided then.
inline constexpr size_t kMaxSearchedBytes = 4096;

enum class Verdict : uint8_t {
  kNo,
  kYes,
  kUndecided,  // a value is too long to tell: whoever asks must refuse rather than guess
};

class ConditionMatcher {
 public:
  // `error` is set for a bad regular expression; the matcher is then not to be used.
  ConditionMatcher(const Condition& condition, MetadataKeys& keys, RegexPool& regexes,
                   std::string& error);

  Verdict Check(const MatchInput& input) const;

 private:
  bool Satisfies(std::string_view value) const;
  bool IsOneOf(std::string_view value) const;
  bool IsIn(std::string_view address) const;

  KeyRef key_;
  Condition::Kind kind_;
  bool ignore_case_;
  bool invert_;
  bool searches_;
  std::string text_;                // folded to lower case with ignore_case_
  std::vector<std::string> texts_;  // kOneOf: the same, sorted
  std::vector<AddressRange> addresses_;
  int64_t range_start_;
  int64_t range_end_;
  const Regex* regex_ = nullptr;
};

}  // namespace metaprotocol
