#include "src/config/config_error.h"

#include <algorithm>
#include <utility>

#include "src/config/json_value.h"

namespace metaprotocol {
namespace {

constexpr size_t kShownBytes = 80;

// `inner` is `outer` itself or lies within it: "a.b[1].c" in "a.b".
bool Within(std::string_view inner, std::string_view outer) {
  if (!inner.starts_with(outer)) return false;
  if (outer.empty() || inner.size() == outer.size()) return true;
  const char next = inner[outer.size()];
  return next == '.' || next == '[';
}

}  // namespace

std::string FormatErrors(const std::vector<ConfigError>& errors) {
  std::string text;
  for (const ConfigError& error : errors) {
    if (!text.empty()) text += '\n';
    for (const std::string* part : {&error.path, &error.value}) {
      if (!part->empty()) text.append(*part).append(": ");
    }
    text += error.message;
  }
  return text;
}

std::string Shorten(std::string text, size_t bytes) {
  if (text.size() <= bytes) return text;
  while (bytes > 0 && (static_cast<unsigned char>(text[bytes]) & 0xC0) == 0x80) --bytes;
  text.resize(bytes);
  return text += "...";
}

std::string QuoteShort(std::string_view text) {
  std::string quoted;
  AppendJsonString(text.substr(0, kShownBytes + 4), quoted);
  return Shorten(std::move(quoted), kShownBytes);
}

void ErrorList::Add(std::string path, std::string value, std::string message) {
  if (errors_.size() >= kMaxErrors) {
    ++left_out_;
    return;
  }
  errors_.push_back({std::move(path), std::move(value), std::move(message)});
}

bool ErrorList::Touches(std::string_view path) const {
  return std::any_of(errors_.begin(), errors_.end(), [&](const ConfigError& error) {
    return Within(error.path, path) || Within(path, error.path);
  });
}

std::vector<ConfigError> ErrorList::Take() {
  if (left_out_ > 0) {
    errors_.push_back({"", "", "and " + std::to_string(left_out_) + " more"});
  }
  left_out_ = 0;
  return std::exchange(errors_, {});
}

}  // namespace metaprotocol
