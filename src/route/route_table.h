// A compiled route table: ordered routes, first match wins, at a cost that does not grow with the
// number of routes that differ in exact values of the same keys.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/codec/metadata_keys.h"
#include "src/route/match_input.h"
#include "src/route/route.h"

namespace metaprotocol {

struct Condition {
  enum class Kind : uint8_t {
    kExact,
    kPrefix,
    kSuffix,
    kContains,
    kRegex,  // RE2, full match
    kPresent,
    kAbsent,
    kRange,  // decimal integer in [range_start, range_end)
    kOneOf,
    kIpIn,  // an IP address in one of these ranges
  };
  std::string key;
  Kind kind = Kind::kExact;
  std::vector<std::string>
      values;  // one, except kOneOf, kIpIn (several) and kPresent/kAbsent/kRange (none)
  int64_t range_start = 0;
  int64_t range_end = 0;
  bool ignore_case = false;  // ASCII
  bool invert = false;
};

// What a lookup came to.
struct RouteMatch {
  const Route* route = nullptr;  // the first whose conditions all hold; null: none
  // A value is too long to tell whether `route` or a later one is the first: the request must be
  // refused, since a padded value must not lead past a rule.
  bool undecided = false;
};

class RouteTable {
 public:
  struct Rule {
    std::vector<Condition> conditions;  // all must hold; none: matches everything
    Route route;
  };

  struct BuildError {
    size_t rule;       // index into rules
    size_t condition;  // index into its conditions
    std::string message;
  };

  // Compiles the rules, whose keys are wanted from then on. Fails only for a bad regular
  // expression.
  static std::unique_ptr<const RouteTable> Build(std::string name, std::vector<Rule> rules,
                                                 MetadataKeys& keys,
                                                 std::vector<BuildError>& errors);
  virtual ~RouteTable() = default;

  virtual RouteMatch Match(const MatchInput& input) const = 0;

  virtual const std::string& name() const = 0;
  virtual std::span<const Route* const> routes() const = 0;
};

}  // namespace metaprotocol
