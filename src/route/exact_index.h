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
#include <vector>

#include "src/route/condition_matcher.h"
#include "src/route/route_table.h"

namespace metaprotocol {

// A rule as the table keeps it: `conditions` are those that no index has checked already.
struct CompiledRule {
  std::vector<ConditionMatcher> conditions;
  const Route* route = nullptr;

  Verdict Check(const MatchInput& input) const {
    Verdict verdict = Verdict::kYes;
    for (const ConditionMatcher& condition : conditions) {
      const Verdict one = condition.Check(input);
      if (one == Verdict::kNo) return one;
      if (one == Verdict::kUndecided) verdict = one;
    }
    return verdict;
  }
};

// The first rule that a request meets, as far as is known yet.
struct FoundRule {
  uint32_t rule;
  bool undecided = false;  // it may not meet that one, but a value is too long to tell
};

// The rules that compare exactly one set of keys. Built rule by rule in their order, then sealed.
class ExactIndex {
 public:
  static constexpr size_t kMaxKeys = 8;

  // `keys`: at least one, at most kMaxKeys, at most one of which repeats().
  explicit ExactIndex(std::vector<KeyRef> keys);
  ExactIndex(ExactIndex&&) = default;
  ExactIndex& operator=(ExactIndex&&) = default;

  uint32_t first_rule() const { return first_rule_; }

  // The rule holds for messages that have one of `values[i]` under the i-th key, for every i.
  void Add(uint32_t rule, std::span<const std::vector<std::string>> values);

  // To be called once, after the last Add.
  void Seal();

  // Puts into `best` the first rule before it whose texts the message has and that holds.
  void Find(const MatchInput& input, std::span<const CompiledRule> rules, FoundRule& best) const;

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
    FoundRule& best;
    std::array<Text, kMaxKeys> tuple;  // the first keys_.size(), one after the other

    Search(const MatchInput& input, std::span<const CompiledRule> rules, FoundRule& best)
        : input(input), rules(rules), best(best) {}
  };

  void AddTuple(uint32_t rule, const Tuple& tuple);
  // Find, where one of the keys may have several values.
  void FindAmongSeveral(Search& search) const;
  // Improves `search.best` by the rules that want exactly `search.tuple`.
  void TryTuple(const Search& search) const;
  uint64_t HashOf(const Text* tuple) const;
  bool FewAreAlike(std::span<const Bucket> sealed) const;
  // Whether the bucket's tuple is `search.tuple`.
  bool Holds(const Bucket& bucket, const Search& search) const;
  // Improves `search.best` by the rules of that bucket.
  void TryCandidates(const Bucket& bucket, const Search& search) const;
  // The same for every value of keys_[key], which may have several, with those that are there of
  // the others.
  void TryValues(Search& search, size_t key) const;

  std::vector<KeyRef> keys_;
  size_t key_count_;
  std::vector<size_t> longest_;  // text wanted under each key: longer values need no look
  size_t repeating_ = kMaxKeys;  // which of keys_ may have several values; kMaxKeys: none
  uint32_t first_rule_ = UINT32_MAX;

  // While building: the rules that want each tuple, its texts joined with their lengths.
  std::map<std::string, std::vector<uint32_t>> building_;

  // Texts of which more than this many tuples have the same TextEndHash are hashed from beginning
  // to end.
  static constexpr size_t kMostAlike = 4;

  // Sealed: an open-addressed table, at most half full, its size a power of two. Up to kFew tuples
  // are simply one after the other: most of them differ in the length of some text, which is seen
  // in less time than it takes to compute a hash.
  static constexpr size_t kFew = 4;
  bool few_ = false;
  bool by_ends_ = true;  // which hash it is: TextEndHash, or TextHash
  std::vector<Bucket> buckets_;
  size_t slot_mask_ = 0;
  std::vector<uint32_t> candidates_;
  std::vector<Text> texts_;  // keys_.size() per tuple, views into characters_
  std::vector<char> characters_;
};

}  // namespace metaprotocol
