// Which codecs exist, by name.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/codec/codec.h"

namespace metaprotocol {

class Findings;
namespace config {
struct Declaration;
}

struct CodecOrError {
  std::shared_ptr<const Codec> codec;  // null on error
  std::string error;
};

// `options` is the JSON text of the codec's own options, "" for none.
using CodecFactory = std::function<CodecOrError(std::string_view options)>;

// For codecs without options: whether `options` is "" or an object without members, and what to say
// if it is not.
bool AreNoOptions(std::string_view options);
std::string TakesNoOptions(std::string_view codec, std::string_view options);

// Makes a codec of a declaration that stands at `path` of a configuration; null if something is
// wrong with it, which goes to `findings`.
using DeclaredCodecFactory = std::function<std::shared_ptr<const Codec>(
    const std::string& name, const config::Declaration& declaration, const std::string& path,
    Findings& findings)>;

// What a codec library makes of its options: the codec, or what is wrong with the library or, if
// `of_options`, with those.
struct LibraryCodecOrError {
  std::shared_ptr<const Codec> codec;  // null on error
  std::string error;
  bool of_options = false;
};

// Makes a codec called `name` of the shared library at `path`.
using LibraryCodecFactory = std::function<LibraryCodecOrError(
    const std::string& name, const std::string& path, std::string_view options)>;

class CodecRegistry {
 public:
  // False if the name is taken.
  bool Register(std::string name, CodecFactory factory);
  CodecOrError Create(std::string_view name, std::string_view options) const;
  void RegisterDeclared(DeclaredCodecFactory factory) { declared_ = std::move(factory); }
  // Null if there are no declared codecs in this build.
  const DeclaredCodecFactory& declared() const { return declared_; }
  void RegisterLibraries(LibraryCodecFactory factory) { library_ = std::move(factory); }
  // Null if this build loads no libraries.
  const LibraryCodecFactory& library() const { return library_; }
  // Sorted.
  std::vector<std::string_view> Names() const;

 private:
  std::map<std::string, CodecFactory, std::less<>> factories_;
  DeclaredCodecFactory declared_;
  LibraryCodecFactory library_;
};

// Adds every codec this build was linked with. Defined in codecs/, which alone knows them.
void RegisterBuiltinCodecs(CodecRegistry& registry);

}  // namespace metaprotocol
