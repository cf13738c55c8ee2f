// Which codecs exist, by name.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "src/codec/codec.h"

namespace metaprotocol {

struct CodecOrError {
  std::shared_ptr<const Codec> codec;  // null on error
  std::string error;
};

// `options` is the JSON text of the codec's own options, "" for none.
using CodecFactory = std::function<CodecOrError(std::string_view options)>;

class CodecRegistry {
 public:
  // False if the name is taken.
  bool Register(std::string name, CodecFactory factory);
  CodecOrError Create(std::string_view name, std::string_view options) const;
  // Sorted.
  std::vector<std::string_view> Names() const;

 private:
  std::map<std::string, CodecFactory, std::less<>> factories_;
};

// Adds every codec this build was linked with. Defined in codecs/, which alone knows them.
void RegisterBuiltinCodecs(CodecRegistry& registry);

}  // namespace metaprotocol
