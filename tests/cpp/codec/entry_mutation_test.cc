// A mutation of entries gives what its operations give, done one after the other.
#include "src/codec/entry_mutation.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace metaprotocol {
namespace {

using Kind = MutationOp::Kind;
using Entries = std::vector<std::pair<std::string, std::string>>;

Entries Mutated(const Entries& entries, const Mutation& mutation) {
  EntryMutation changes(mutation);
  for (const auto& [key, value] : entries) changes.See(key);
  Entries result;
  for (const auto& entry : entries) {
    if (changes.Keeps(entry.first)) result.push_back(entry);
  }
  changes.ForEachNew([&](std::string_view key, std::string_view value) {
    result.emplace_back(std::string(key), std::string(value));
  });
  return result;
}

TEST(EntryMutation, SetsReplacesAddsAndRemoves) {
  const Entries before = {{"a", "1"}, {"b", "2"}, {"a", "3"}};
  EXPECT_EQ(Mutated(before, {}), before);
  EXPECT_EQ(Mutated(before, {{Kind::kSet, "a", "x"}}), (Entries{{"b", "2"}, {"a", "x"}}));
  EXPECT_EQ(Mutated(before, {{Kind::kSet, "c", "x"}}),
            (Entries{{"a", "1"}, {"b", "2"}, {"a", "3"}, {"c", "x"}}));
  EXPECT_EQ(Mutated(before, {{Kind::kAddIfAbsent, "a", "x"}}), before);
  EXPECT_EQ(Mutated({}, {{Kind::kAddIfAbsent, "a", "x"}}), (Entries{{"a", "x"}}));
  EXPECT_EQ(Mutated(before, {{Kind::kRemove, "a", ""}}), (Entries{{"b", "2"}}));
  EXPECT_EQ(Mutated(before, {{Kind::kRemove, "c", ""}}), before);
}

TEST(EntryMutation, LaterOperationsSeeWhatEarlierOnesHaveDone) {
  const Entries before = {{"a", "1"}};
  EXPECT_EQ(Mutated(before, {{Kind::kRemove, "a", ""}, {Kind::kAddIfAbsent, "a", "x"}}),
            (Entries{{"a", "x"}}));
  EXPECT_EQ(Mutated(before, {{Kind::kSet, "a", "x"}, {Kind::kAddIfAbsent, "a", "y"}}),
            (Entries{{"a", "x"}}));
  EXPECT_EQ(Mutated({}, {{Kind::kAddIfAbsent, "a", "x"}, {Kind::kRemove, "a", ""}}), Entries{});
  EXPECT_EQ(Mutated({}, {{Kind::kSet, "a", "x"}, {Kind::kSet, "b", "y"}, {Kind::kSet, "a", "z"}}),
            (Entries{{"a", "z"}, {"b", "y"}}));
}

}  // namespace
}  // namespace metaprotocol
