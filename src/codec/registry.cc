#include "src/codec/registry.h"

#include <utility>

namespace metaprotocol {

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
