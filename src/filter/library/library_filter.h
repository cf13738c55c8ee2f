// Filters in shared libraries, behind the C ABI of include/metaprotocol/filter.h.
//
// What a library says is checked for all that the engine relies on. Where it breaks the rules, the
// request fails: a filter that may be there to keep requests out never lets one pass by a mistake.
// Memory is trusted: a library can write anywhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "include/metaprotocol/filter.h"
#include "src/filter/filter.h"
#include "src/route/match_input.h"

namespace metaprotocol {

// What a filter is loaded for.
struct FilterSurroundings {
  std::string protocol;           // the codec's name...
  bool mutation_in_head = false;  // ...and trait
  MetadataKeys& request_keys;
  MetadataKeys& response_keys;
  FilterMetrics& metrics;
};

class LibraryFilter;

struct LibraryFilterOrError {
  std::unique_ptr<LibraryFilter> filter;  // null on error
  std::string error;
  bool of_options = false;  // it is about the options, not the library
};

class LibraryFilter final : public Filter {
 public:
  static constexpr size_t kMostKeys = 64;
  static constexpr size_t kMostChanges = 64;  // in one call
  static constexpr size_t kMostChangedBytes = 65536;
  static constexpr size_t kLongestKey = 1024;
  static constexpr size_t kLongestText = 4096;
  static constexpr uint64_t kLongestWaitUs = uint64_t{60} * 1000 * 1000;
  static constexpr uint32_t kMostWaits = 16;  // of one request
  static constexpr size_t kMostMetrics = 32;
  static constexpr size_t kLongestMetric = 64;

  // The library at the absolute path `path` is loaded by the first configuration that names it,
  // and never unloaded.
  static LibraryFilterOrError Load(const std::string& path, std::string_view options,
                                   const FilterSurroundings& surroundings);

  // The same of a table that lives for ever and was found to be one.
  static LibraryFilterOrError Make(const metaprotocol_filter_table& table, std::string_view options,
                                   const FilterSurroundings& surroundings);

  ~LibraryFilter() override;
  LibraryFilter(const LibraryFilter&) = delete;
  LibraryFilter& operator=(const LibraryFilter&) = delete;

  std::string_view name() const override { return table_.name; }
  FilterNeeds needs() const override;
  bool WantsWhole(const MatchInput& head) const override;
  void BeforeRoute(Metadata& message, const ConnectionMetadata& connection) const override;
  RequestVerdict OnRequest(FilterContext& context) const override;
  RequestVerdict OnTimer(FilterContext& context) const override;
  ResponseVerdict OnResponse(FilterContext& context, const ResponseHead& head) const override;
  void OnEnd(FilterContext& context, const Outcome& outcome) const override;

 private:
  // A key of requests, as the library knows it: by its place in the list.
  struct RequestKey {
    KeyRef key;
    bool may_be_set;
  };
  // What it counts, likewise: its number in the configuration.
  struct OwnMetric {
    uint32_t number;
    bool is_histogram;
  };
  struct Setup;
  struct ChangeBudget;
  struct Call;
  class State;
  static const metaprotocol_filter_host& Host();

  explicit LibraryFilter(const metaprotocol_filter_table& table);
  int32_t AddMetric(const FilterSurroundings& surroundings, std::string_view name,
                    bool is_histogram);
  const OwnMetric* MetricOf(const Call& call, int32_t place, bool is_histogram) const;
  RequestVerdict Judge(Call& call, int32_t verdict) const;
  // What the client gets, which the request keeps.
  void Answer(Call& call) const;
  State& StateOf(FilterContext& context) const;

  const metaprotocol_filter_table& table_;
  const std::string broken_;  // what the client is told if the library breaks the rules
  void* filter_ = nullptr;    // the library's own
  bool mutation_in_head_ = false;
  std::vector<RequestKey> request_keys_;
  std::vector<std::string> response_keys_;
  std::vector<OwnMetric> metrics_;
};

}  // namespace metaprotocol
