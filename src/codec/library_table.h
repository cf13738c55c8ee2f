// The table of functions that a shared library of somebody else's exports: loaded, its version and
// size checked, kept for ever. What the functions have to be is its kind's business.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace metaprotocol {

// One kind of table, as this build knows it. Each begins with `uint32_t abi, size`.
template <class Table>
struct LibraryTableKind {
  const char* entry;  // the function that returns it
  uint32_t abi;
  size_t least;                          // bytes that must be there
  std::string (*problem)(const Table&);  // what is wrong with one; "": nothing
};

// A file that was loaded, and the function in it.
struct LibraryEntry {
  void* handle = nullptr;
  void* function = nullptr;
};

// Null, and what is wrong, if `path` is no library or has no function of that name.
LibraryEntry OpenLibrary(const std::string& path, const char* entry, std::string& error);
// What is mended can be loaded from the same path then.
void CloseLibrary(const LibraryEntry& entry);

// "" if a name can be one of a codec, a filter or a key; else what is wrong: "without a name".
std::string ProblemOfLibraryName(const char* name);

// The part of a table that the library has: what it lacks is null, what this build does not know is
// left out.
template <class Table>
std::string CopyLibraryTable(const Table* from, const LibraryTableKind<Table>& kind, Table& to) {
  if (from == nullptr) return "returns no table";
  if (from->abi != kind.abi) {
    return "is made for version " + std::to_string(from->abi) + " of the interface; this is " +
           std::to_string(kind.abi);
  }
  if (from->size < kind.least) {
    return "has a table of " + std::to_string(from->size) + " bytes; the least is " +
           std::to_string(kind.least);
  }
  // Only whole pointers.
  const size_t size = from->size / sizeof(void*) * sizeof(void*);
  std::memcpy(&to, from, std::min(size, sizeof to));
  return kind.problem(to);
}

// The table of the library at `path`, for ever, as if it were of this build; null and what is wrong
// if there is none. What has once been loaded from a path stays, whatever lies there later.
template <class Table>
const Table* LoadLibraryTable(const std::string& path, const LibraryTableKind<Table>& kind,
                              std::string& error) {
  static std::mutex mutex;
  static auto* const loaded = new std::map<std::string, std::unique_ptr<Table>>();
  const std::lock_guard lock(mutex);
  const auto known = loaded->find(path);
  if (known != loaded->end()) return known->second.get();
  const LibraryEntry entry = OpenLibrary(path, kind.entry, error);
  if (entry.function == nullptr) return nullptr;
  auto table = std::make_unique<Table>();
  error = CopyLibraryTable(reinterpret_cast<const Table* (*)()>(entry.function)(), kind, *table);
  if (error.empty()) return loaded->emplace(path, std::move(table)).first->second.get();
  CloseLibrary(entry);
  return nullptr;
}

}  // namespace metaprotocol
