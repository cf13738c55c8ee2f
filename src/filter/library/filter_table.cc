#include "src/filter/library/filter_table.h"

#include <cstddef>
#include <cstdint>

#include "src/codec/library_table.h"

namespace metaprotocol {
namespace {

// Everything up to and including `destroy` has to be there.
constexpr size_t kLeastTable = offsetof(metaprotocol_filter_table, before_route);
constexpr uint32_t kKnownTraits =
    METAPROTOCOL_CHANGES_REQUESTS | METAPROTOCOL_WAITS | METAPROTOCOL_CHANGES_REPLIES;

// What is wrong with a table; "" if nothing is.
std::string ProblemOf(const metaprotocol_filter_table& table) {
  const std::string name = ProblemOfLibraryName(table.name);
  if (!name.empty()) return "is a filter " + name;
  if (table.create == nullptr) return "lacks the function create";
  if (table.destroy == nullptr) return "lacks the function destroy";
  if ((table.traits & ~kKnownTraits) != 0) {
    return "has traits that this build does not know: " + std::to_string(table.traits);
  }
  if (table.before_route == nullptr && table.on_request == nullptr &&
      table.on_response == nullptr && table.on_end == nullptr) {
    return "has none of the functions before_route, on_request, on_response and on_end";
  }
  if ((table.traits & METAPROTOCOL_WAITS) != 0 &&
      (table.on_request == nullptr || table.on_timer == nullptr)) {
    return "waits, but lacks the function on_request or on_timer";
  }
  return "";
}

}  // namespace

const metaprotocol_filter_table* LoadFilterTable(const std::string& path, std::string& error) {
  static constexpr LibraryTableKind<metaprotocol_filter_table> kKind = {
      "metaprotocol_filter", METAPROTOCOL_FILTER_ABI, kLeastTable, ProblemOf};
  return LoadLibraryTable(path, kKind, error);
}

}  // namespace metaprotocol
