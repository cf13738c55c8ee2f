// What libFuzzer targets that check the rules of conformance.h have in common: their options, and
// what they say of a rule that breaks. `metaprotocol fuzz --engine libfuzzer` gives the one and
// reads the other.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/codec/conformance.h"

namespace metaprotocol {

// Counters that libFuzzer reads as if code had set them: an input is kept for what the rules saw of
// it, too. It finds them by the section's name.
__attribute__((section("__libfuzzer_extra_counters"))) inline uint8_t seen_features[64];

class ConformanceTarget {
 public:
  // Takes what begins with two hyphens, which libFuzzer leaves to the target.
  void ReadOptions(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
      const std::string_view option = argv[i];
      Read(option, "--codec=", codec);
      Read(option, "--declaration=", declaration_file);
      Read(option, "--codec-options=", codec_options);
      Read(option, "--side=", side);
      std::string text;
      if (Read(option, "--told=", text)) told_.push_back(text);
      if (Read(option, "--only=", text)) only_ = text;
    }
    if (!side.empty()) std::atexit([] { std::fprintf(stderr, "MESSAGES: %zu\n", messages_); });
  }

  // "" for what the target was made for; with one of these, inputs are wire bytes and nothing else.
  std::string codec;
  std::string declaration_file;
  std::string codec_options;
  std::string side;  // "request" or "response"; "" if each input's first byte says it

  Direction direction() const {
    return side == "response" ? Direction::kResponse : Direction::kRequest;
  }

  // Ends the program if `bytes` break a rule, so that libFuzzer keeps them.
  void Check(const Codec& tried, Direction from, Bytes bytes) const {
    const ConformanceResult result =
        CheckConformance(tried, from, bytes, {.seed = bytes.size() + 1});
    messages_ += result.messages;
    for (size_t bit = 0; bit < sizeof(seen_features); ++bit) {
      if ((result.features >> bit & 1) != 0) seen_features[bit] = 1;
    }
    if (!result.violation || (only_ && *only_ != *result.violation)) return;
    for (const std::string& rule : told_) {
      if (rule == *result.violation) return;
    }
    std::fprintf(stderr, "MESSAGES: %zu\nBROKEN: %s\n", messages_, result.violation->c_str());
    std::abort();
  }

 private:
  static bool Read(std::string_view option, std::string_view name, std::string& value) {
    if (!option.starts_with(name)) return false;
    value = option.substr(name.size());
    return true;
  }

  std::vector<std::string> told_;    // rules that end nothing any more
  std::optional<std::string> only_;  // the one rule that does
  static inline size_t messages_ = 0;
};

}  // namespace metaprotocol
