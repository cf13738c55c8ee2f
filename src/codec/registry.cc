#include "src/codec/registry.h"

#include <utility>

namespace metaprotocol {

bool AreNoOptions(std::string_view options) {
  std::string bare;
  for (const char c : options) {
    if (c != ' ' && c != '\t' && c != '\n' && c != '\r') bare.push_back(c);
  }
  return bare.empty() || bare == "{}";
}

std::string TakesNoOptions(std::string_view codec, std::string_view options) {
  return "the " + std::string(codec) +
         " codec has no options, so only \"\" and \"{}\" are allowed, not " + std::string(options);
}

bool CodecRegistry::Register(std::string name, CodecFactory factory) {
  return factories_.emplace(std::move(name), std::move(factory)).second;
}

CodecOrError CodecRegistry::Create(std::string_view name, std::string_view options) const {
  const auto it = factories_.find(name);
  if (it == factories_.end()) return {nullptr, "no codec is named \"" + std::string(name) + "\""};
  return it->second(options);
}

std::vector<std::string_view> CodecRegistry::Names() const {
  std::vector<std::string_view> names;
  names.reserve(factories_.size());
  for (const auto& [name, factory] : factories_) names.push_back(name);
  return names;
}

}  // namespace metaprotocol
