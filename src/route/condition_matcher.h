// One condition of a route, prepared for matching.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/codec/metadata.h"
#include "src/route/route_table.h"

namespace re2 {
class RE2;
}

namespace metaprotocol {

// Compiled regular expressions of one table: each distinct one once, however many routes use it.
class RegexPool {
 public:
  RegexPool();
  ~RegexPool();

  // Null, and what is wrong in `error`, if RE2 does not take it.
  const re2::RE2* Compile(const std::string& expression, bool ignore_case, std::string& error);

 private:
  std::map<std::pair<std::string, bool>, std::unique_ptr<re2::RE2>> compiled_;
};

// Whether `key` names something of the connection rather than of the message.
inline bool IsConnectionKey(std::string_view key) { return key.starts_with(kConnectionKeyPrefix); }

inline const Metadata& SourceOf(std::string_view key, const MatchInput& input) {
  return IsConnectionKey(key) ? input.connection : input.message;
}

// Reads a decimal integer with an optional sign that fits into 64 bits; false for anything else.
bool ParseDecimal(std::string_view text, int64_t& number);

class ConditionMatcher {
 public:
  // `error` is set for a bad regular expression; the matcher is then not to be used.
  ConditionMatcher(const Condition& condition, RegexPool& regexes, std::string& error);

  bool Holds(const MatchInput& input) const {
    const Metadata& metadata = from_connection_ ? input.connection : input.message;
    return AnyValueSatisfies(metadata) != invert_;
  }

 private:
  bool AnyValueSatisfies(const Metadata& metadata) const;
  bool Satisfies(std::string_view value) const;
  bool IsOneOf(std::string_view value) const;

  std::string key_;
  Condition::Kind kind_;
  bool ignore_case_;
  bool invert_;
  bool from_connection_;
  std::string text_;                // folded to lower case with ignore_case_
  std::vector<std::string> texts_;  // kOneOf: the same, sorted
  int64_t range_start_;
  int64_t range_end_;
  const re2::RE2* regex_ = nullptr;
};

}  // namespace metaprotocol
