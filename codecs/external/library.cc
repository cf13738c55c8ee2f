#include "codecs/external/library.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string_view>
#include <utility>

namespace metaprotocol::external {
namespace {

// Everything up to and including `reply` has to be there.
constexpr size_t kLeastTable = offsetof(metaprotocol_codec_table, destroy);
constexpr uint32_t kKnownTraits = METAPROTOCOL_MULTIPLEXED | METAPROTOCOL_ORDERED_REPLIES |
                                  METAPROTOCOL_STATEFUL | METAPROTOCOL_MUTATION_IN_HEAD |
                                  METAPROTOCOL_WHOLE_TO_ENCODE | METAPROTOCOL_METADATA_IN_HEAD |
                                  METAPROTOCOL_STREAMS;
constexpr uint64_t kMostKeys = 256;
constexpr size_t kLongestName = 255;

// "" if a name can be one of a codec or a key.
std::string ProblemOfName(const char* name) {
  if (name == nullptr || *name == '\0') return "without a name";
  if (strnlen(name, kLongestName + 1) > kLongestName) {
    return "whose name is longer than " + std::to_string(kLongestName) + " bytes";
  }
  const std::string_view text = name;
  const bool plain =
      std::all_of(text.begin(), text.end(), [](char c) { return c > 32 && c < 127; });
  return plain ? "" : "whose name is not of printable ASCII characters";
}

std::string ProblemOfKeys(const metaprotocol_codec_table& table) {
  if (table.key_count > kMostKeys) {
    return "has " + std::to_string(table.key_count) + " keys; the most is " +
           std::to_string(kMostKeys);
  }
  if (table.key_count != 0 && table.keys == nullptr) return "has no keys where it counts some";
  std::set<std::string_view> seen;
  for (uint64_t i = 0; i < table.key_count; ++i) {
    const std::string problem = ProblemOfName(table.keys[i]);
    if (!problem.empty()) return "has a key " + problem;
    const std::string_view key = table.keys[i];
    if (!seen.insert(key).second) return "has the key " + std::string(key) + " twice";
    if (key.starts_with("connection.")) {
      return "has the key " + std::string(key) + "; connection.* are the proxy's own";
    }
  }
  return "";
}

// What is wrong with a table; "" if nothing is.
std::string ProblemOf(const metaprotocol_codec_table& table) {
  const std::string name = ProblemOfName(table.name);
  if (!name.empty()) return "is a codec " + name;
  if (table.create == nullptr) return "lacks the function create";
  if (table.decode == nullptr) return "lacks the function decode";
  if (table.encode == nullptr) return "lacks the function encode";
  if (table.reply == nullptr) return "lacks the function reply";
  if ((table.new_state == nullptr) != (table.delete_state == nullptr)) {
    return "has one of the functions new_state and delete_state without the other";
  }
  if (table.id_bits != 0 && table.id_bits != 32 && table.id_bits != 64) {
    return "has ids of " + std::to_string(table.id_bits) + " bits; 0, 32 and 64 are possible";
  }
  if ((table.traits & ~kKnownTraits) != 0) {
    return "has traits that this build does not know: " + std::to_string(table.traits);
  }
  if ((table.traits & METAPROTOCOL_MULTIPLEXED) != 0 && table.id_bits == 0) {
    return "is multiplexed without ids";
  }
  if ((table.traits & METAPROTOCOL_STREAMS) != 0 && table.id_bits == 0) {
    return "has streams without ids";
  }
  return ProblemOfKeys(table);
}

// The part of a table that the library has.
std::string Copy(const metaprotocol_codec_table* from, Library& library) {
  if (from == nullptr) return "returns no table";
  if (from->abi != METAPROTOCOL_CODEC_ABI) {
    return "is made for version " + std::to_string(from->abi) + " of the interface; this is " +
           std::to_string(METAPROTOCOL_CODEC_ABI);
  }
  if (from->size < kLeastTable) {
    return "has a table of " + std::to_string(from->size) + " bytes; the least is " +
           std::to_string(kLeastTable);
  }
  // Only whole pointers.
  const size_t size = from->size / sizeof(void*) * sizeof(void*);
  std::memcpy(&library.table, from, std::min(size, sizeof library.table));
  return ProblemOf(library.table);
}

}  // namespace

const Library* LoadLibrary(const std::string& path, std::string& error) {
  static std::mutex mutex;
  static auto* const loaded = new std::map<std::string, std::unique_ptr<Library>>();
  const std::lock_guard lock(mutex);
  const auto known = loaded->find(path);
  if (known != loaded->end()) return known->second.get();
  void* const handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* const why = dlerror();
    error = std::string("cannot be loaded: ") + (why == nullptr ? "no reason given" : why);
    return nullptr;
  }
  using Entry = const metaprotocol_codec_table* (*)();
  const auto entry = reinterpret_cast<Entry>(dlsym(handle, "metaprotocol_codec"));
  auto library = std::make_unique<Library>();
  error = entry == nullptr ? "exports no function metaprotocol_codec" : Copy(entry(), *library);
  if (error.empty()) return loaded->emplace(path, std::move(library)).first->second.get();
  dlclose(handle);  // what is mended can be loaded from the same path
  return nullptr;
}

}  // namespace metaprotocol::external
