#include "codecs/external/library.h"

#include <cstddef>
#include <cstdint>
#include <set>
#include <string_view>

#include "src/codec/library_table.h"

namespace metaprotocol::external {
namespace {

// Everything up to and including `reply` has to be there.
constexpr size_t kLeastTable = offsetof(metaprotocol_codec_table, destroy);
constexpr uint32_t kKnownTraits = METAPROTOCOL_MULTIPLEXED | METAPROTOCOL_ORDERED_REPLIES |
                                  METAPROTOCOL_STATEFUL | METAPROTOCOL_MUTATION_IN_HEAD |
                                  METAPROTOCOL_WHOLE_TO_ENCODE | METAPROTOCOL_METADATA_IN_HEAD |
                                  METAPROTOCOL_STREAMS;
constexpr uint64_t kMostKeys = 256;

std::string ProblemOfKeys(const metaprotocol_codec_table& table) {
  if (table.key_count > kMostKeys) {
    return "has " + std::to_string(table.key_count) + " keys; the most is " +
           std::to_string(kMostKeys);
  }
  if (table.key_count != 0 && table.keys == nullptr) return "has no keys where it counts some";
  std::set<std::string_view> seen;
  for (uint64_t i = 0; i < table.key_count; ++i) {
    const std::string problem = ProblemOfLibraryName(table.keys[i]);
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
  const std::string name = ProblemOfLibraryName(table.name);
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

}  // namespace

const metaprotocol_codec_table* LoadLibrary(const std::string& path, std::string& error) {
  static constexpr LibraryTableKind<metaprotocol_codec_table> kKind = {
      "metaprotocol_codec", METAPROTOCOL_CODEC_ABI, kLeastTable, ProblemOf};
  return LoadLibraryTable(path, kKind, error);
}

}  // namespace metaprotocol::external
