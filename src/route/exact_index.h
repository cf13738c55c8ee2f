// Finds, among many rules that compare the same keys with exact texts, those whose texts a message
// has: one hash lookup instead of one comparison per rule.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "src/route/condition_matcher.h"
#include "src/route/route_table.h"

namespace metaprotocol {

// A rule as the table keeps it: `conditions` are those that no index has checked already.
struct CompiledRule {
  std::vector<ConditionMatcher> conditions;
  const Route* route = nullptr;

  bool Holds(const MatchInput& input) const {
    for (const ConditionMatcher& condition : conditions) {
      if (!condition.Holds(input)) return false;
    }
    return true;
  }
};

// The rules that compare exactly one set of keys. Built rule by rule in their order, then sealed.
class ExactIndex {
 public:
  static constexpr size_t kMaxKeys = 8;

  // `keys`: at least one, at most kMaxKeys.
  explicit ExactIndex(std::vector<std::string> keys);
  ExactIndex(ExactIndex&&) = default;
  ExactIndex& operator=(ExactIndex&&) = default;

  std::span<const std::string> keys() const { return keys_; }
  uint32_t first_rule() const { return first_rule_; }

  // The rule holds for messages that have one of `values[i]` under keys()[i], for every i.
  void Add(uint32_t rule, std::span<const std::vector<std::string>> values);

  // To be called once, after the last Add.
  void Seal();

  // The first rule before `best` whose texts the message has and that holds, else `best`.
  uint32_t Find(const MatchInput& input, std::span<const CompiledRule> rules, uint32_t best) const;

 private:
  using Tuple = std::array<std::string_view, kMaxKeys>;
  struct Bucket {
    uint64_t hash = 0;
    uint32_t candidates = 0;  // index of its first in candidates_
    uint32_t count = 0;       // 0: the slot is empty
    uint32_t tuple = 0;       // index of its first text in texts_
  };
  // A view, but trivial: what is not used of a tuple costs nothing.
  struct Text {
    const char* data;
    size_t size;
    std::string_view view() const { return {data, size}; }
  };
  struct Search {
    const MatchInput& input;
    std::span<const CompiledRule> rules;
    uint32_t best;
    std::array<Text, kMaxKeys> tuple;  // the first keys_.size(), one after the other

    Search(const MatchInput& input, std::span<const CompiledRule> rules, uint32_t best)
        : input(input), rules(rules), best(best) {}
    std::string_view Take(size_t key, std::string_view text) {
      tuple[key] = {text.data(), text.size()};
      return text;
    }
  };

  const Metadata& SourceOfKey(size_t key, const MatchInput& input) const {
    return (connection_keys_ >> key & 1) != 0 ? input.connection : input.message;
  }
  void AddTuple(uint32_t rule, const Tuple& tuple);
  // Improves `search.best` by the rules that want exactly `search.tuple`.
  void TryTuple(Search& search, uint64_t hash) const;
  // The same for every combination of the message's values from keys()[key] on.
  void TryCombinations(Search& search, size_t key, uint64_t hash) const;

  std::vector<std::string> keys_;
  uint32_t connection_keys_ = 0;  // bit i: keys_[i] is the connection's
  uint32_t first_rule_ = UINT32_MAX;

  // While building: the rules that want each tuple, its texts joined with their lengths.
  std::map<std::string, std::vector<uint32_t>> building_;

  // Sealed: an open-addressed table, at most half full, its size a power of two.
  std::vector<Bucket> buckets_;
  std::vector<uint32_t> candidates_;
  std::vector<std::string_view> texts_;  // keys_.size() per tuple, views into characters_
  std::vector<char> characters_;
  // Hashes of what tuples begin with. A message may repeat keys; their combinations are only
  // followed as far as some rule does, which bounds the work by rules times values instead of
  // values to the power of keys.
  std::unordered_set<uint64_t> beginnings_;
};

}  // namespace metaprotocol
