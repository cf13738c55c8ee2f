// What the checks that follow reading find: mistakes that only show once fields are seen together.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "src/config/config_error.h"

namespace metaprotocol {

class Findings {
 public:
  // `reading`: the errors of reading, which must outlive this.
  explicit Findings(const ErrorList& reading) : reading_(reading) {}

  // Left out if reading found something at, above or below that place: what is missing or wrong
  // there has been said, and the rest may only follow from it.
  void Error(std::string path, std::string value, std::string message) {
    if (reading_.Touches(path)) return;
    errors_.Add(std::move(path), std::move(value), std::move(message));
  }
  void Warn(std::string path, std::string value, std::string message) {
    warnings_.Add(std::move(path), std::move(value), std::move(message));
  }

  ErrorList& errors() { return errors_; }
  ErrorList& warnings() { return warnings_; }

 private:
  const ErrorList& reading_;
  ErrorList errors_;
  ErrorList warnings_;
};

// "a, b, c".
template <class List>
std::string JoinNames(const List& names) {
  std::string joined;
  for (const auto& name : names) {
    if (!joined.empty()) joined += ", ";
    joined += name;
  }
  return joined;
}

}  // namespace metaprotocol
