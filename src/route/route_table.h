// A compiled route table: ordered routes, first match wins, at a cost that does not grow with the
// number of routes that differ in exact values of the same keys.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/codec/metadata.h"
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
  };
  std::string key;
  Kind kind = Kind::kExact;
  std::vector<std::string>
      values;  // one, except kOneOf (several) and kPresent/kAbsent/kRange (none)
  int64_t range_start = 0;
  int64_t range_end = 0;
  bool ignore_case = false;  // ASCII
  bool invert = false;
};

// What a message is matched by. A condition holds if any entry with its key satisfies it;
// an inverted one holds if none does.
struct MatchInput {
  const Metadata& message;
  const Metadata& connection;
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

  // Compiles the rules. Fails only for a bad regular expression.
  static std::unique_ptr<const RouteTable> Build(std::string name, std::vector<Rule> rules,
                                                 std::vector<BuildError>& errors);
  virtual ~RouteTable() = default;

  // The first rule whose conditions all hold, or null.
  virtual const Route* Match(const MatchInput& input) const = 0;

  virtual const std::string& name() const = 0;
  virtual std::span<const Route* const> routes() const = 0;
  // Message metadata keys that any condition or hash key looks at (connection keys left out).
  virtual std::span<const std::string_view> keys() const = 0;
};

}  // namespace metaprotocol
