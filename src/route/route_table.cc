// Compilation and lookup of route tables.
//
// Rules that compare the same set of keys with exact texts (not inverted, case significant; a
// one-of counts as several texts) share one hash index over those texts. A lookup asks each index,
// and goes through the remaining rules in order, for the first rule before the best one so far. So
// its cost grows with the number of different key sets and of rules without any exact text, not
// with the number of texts.
#include "src/route/route_table.h"

#include <map>
#include <utility>

#include "src/route/condition_matcher.h"
#include "src/route/exact_index.h"

namespace metaprotocol {
namespace {

// A rule whose one-of conditions multiply to more texts than this leaves some of them unindexed.
constexpr size_t kMaxTuplesPerRule = 64;

bool IsIndexable(const Condition& condition) {
  const bool texts =
      condition.kind == Condition::Kind::kExact || condition.kind == Condition::Kind::kOneOf;
  return texts && !condition.values.empty() && !condition.invert && !condition.ignore_case;
}

class CompiledTable final : public RouteTable {
 public:
  CompiledTable(std::string name, std::vector<Rule> rules)
      : name_(std::move(name)), rules_(std::move(rules)) {}

  // False with errors.
  bool Compile(MetadataKeys& keys, std::vector<BuildError>& errors);

  RouteMatch Match(const MatchInput& input) const override;
  const std::string& name() const override { return name_; }
  std::span<const Route* const> routes() const override { return routes_; }

 private:
  void Place(uint32_t rule, MetadataKeys& keys, std::vector<BuildError>& errors);

  std::string name_;
  std::vector<Rule> rules_;
  std::vector<const Route*> routes_;

  RegexPool regexes_;
  std::vector<CompiledRule> compiled_;
  std::vector<ExactIndex> indexes_;                           // by their first rule
  std::vector<uint32_t> unindexed_;                           // rules in no index
  std::map<std::vector<std::string>, size_t> index_of_keys_;  // while compiling
};

bool CompiledTable::Compile(MetadataKeys& keys, std::vector<BuildError>& errors) {
  const size_t errors_before = errors.size();
  compiled_.resize(rules_.size());
  for (uint32_t rule = 0; rule < rules_.size(); ++rule) {
    routes_.push_back(&rules_[rule].route);
    Place(rule, keys, errors);
  }
  for (ExactIndex& index : indexes_) index.Seal();
  index_of_keys_.clear();
  return errors.size() == errors_before;
}

void CompiledTable::Place(uint32_t rule, MetadataKeys& keys, std::vector<BuildError>& errors) {
  const std::vector<Condition>& conditions = rules_[rule].conditions;
  compiled_[rule].route = &rules_[rule].route;

  // The texts to index by, per key; sorted by key, so that the order of conditions is all the same.
  std::map<std::string, std::vector<std::string>> texts;
  size_t tuples = 1;
  bool repeating = false;  // one of them may have several values
  for (size_t i = 0; i < conditions.size(); ++i) {
    const Condition& condition = conditions[i];
    const size_t count = condition.values.size();
    const bool repeats = KeyRef(condition.key, keys).repeats();
    if (IsIndexable(condition) && texts.size() < ExactIndex::kMaxKeys &&
        !texts.contains(condition.key) && tuples * count <= kMaxTuplesPerRule &&
        !(repeats && repeating)) {
      tuples *= count;
      repeating = repeating || repeats;
      texts.emplace(condition.key, condition.values);
      continue;
    }
    std::string error;
    ConditionMatcher matcher(condition, keys, regexes_, error);
    if (!error.empty()) errors.push_back({rule, i, std::move(error)});
    compiled_[rule].conditions.push_back(std::move(matcher));
  }
  if (texts.empty()) {
    unindexed_.push_back(rule);
    return;
  }

  std::vector<std::string> names;
  std::vector<std::vector<std::string>> values;
  for (auto& [key, key_texts] : texts) {
    names.push_back(key);
    values.push_back(std::move(key_texts));
  }
  const auto [at, is_new] = index_of_keys_.try_emplace(names, indexes_.size());
  if (is_new) {
    std::vector<KeyRef> refs;
    for (const std::string& name : names) refs.emplace_back(name, keys);
    indexes_.emplace_back(std::move(refs));
  }
  indexes_[at->second].Add(rule, values);
}

RouteMatch CompiledTable::Match(const MatchInput& input) const {
  const auto none = static_cast<uint32_t>(compiled_.size());
  FoundRule best{none};
  for (const ExactIndex& index : indexes_) {
    if (index.first_rule() >= best.rule) break;
    index.Find(input, compiled_, best);
  }
  for (const uint32_t rule : unindexed_) {
    if (rule >= best.rule) break;
    const Verdict verdict = compiled_[rule].Check(input);
    if (verdict == Verdict::kNo) continue;
    best = {rule, verdict == Verdict::kUndecided};
    break;
  }
  if (best.rule == none) return {};
  return {compiled_[best.rule].route, best.undecided};
}

}  // namespace

std::unique_ptr<const RouteTable> RouteTable::Build(std::string name, std::vector<Rule> rules,
                                                    MetadataKeys& keys,
                                                    std::vector<BuildError>& errors) {
  auto table = std::make_unique<CompiledTable>(std::move(name), std::move(rules));
  if (!table->Compile(keys, errors)) return nullptr;
  return table;
}

}  // namespace metaprotocol
