// What is wrong with a configuration, and where. All mistakes are collected, not only the first:
// who writes configuration wants to fix it once.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace metaprotocol {

struct ConfigError {
  std::string path;     // "route_tables[0].routes[3].match[1].regex"; "" for the whole
  std::string value;    // what stands there, as JSON, shortened; "" where nothing does
  std::string message;  // what is wrong and what is allowed
};

// One line per error: "route_tables[0].routes[3].match[1].regex: \"(\": missing ): ...".
std::string FormatErrors(const std::vector<ConfigError>& errors);

// `text` as a JSON string, cut to a length that suits an error message.
std::string QuoteShort(std::string_view text);

// At most about `bytes` of `text`, with "..." in place of the rest; cuts between UTF-8 characters.
std::string Shorten(std::string text, size_t bytes);

// Collects errors to a bound, so that a hostile or generated configuration with a million mistakes
// cannot fill the log.
class ErrorList {
 public:
  static constexpr size_t kMaxErrors = 50;

  void Add(std::string path, std::string value, std::string message);

  bool empty() const { return errors_.empty(); }

  // The path of an error lies at, above or below `path`.
  bool Touches(std::string_view path) const;

  // The errors; a last one without a path says how many more there were.
  std::vector<ConfigError> Take();

 private:
  std::vector<ConfigError> errors_;
  size_t left_out_ = 0;
};

}  // namespace metaprotocol
