#include "src/codec/library_table.h"

#include <dlfcn.h>

#include <string_view>

namespace metaprotocol {
namespace {

constexpr size_t kLongestName = 255;

}  // namespace

LibraryEntry OpenLibrary(const std::string& path, const char* entry, std::string& error) {
  LibraryEntry found;
  found.handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (found.handle == nullptr) {
    const char* const why = dlerror();
    error = std::string("cannot be loaded: ") + (why == nullptr ? "no reason given" : why);
    return {};
  }
  found.function = dlsym(found.handle, entry);
  if (found.function != nullptr) return found;
  error = std::string("exports no function ") + entry;
  CloseLibrary(found);
  return {};
}

void CloseLibrary(const LibraryEntry& entry) { dlclose(entry.handle); }

std::string ProblemOfLibraryName(const char* name) {
  if (name == nullptr || *name == '\0') return "without a name";
  if (strnlen(name, kLongestName + 1) > kLongestName) {
    return "whose name is longer than " + std::to_string(kLongestName) + " bytes";
  }
  const std::string_view text = name;
  const bool plain =
      std::all_of(text.begin(), text.end(), [](char c) { return c > 32 && c < 127; });
  return plain ? "" : "whose name is not of printable ASCII characters";
}

}  // namespace metaprotocol
