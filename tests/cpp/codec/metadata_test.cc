// Metadata by slots: whose value a key has, and what is kept.
#include "src/codec/metadata.h"

#include <gtest/gtest.h>

#include <cctype>
#include <string>
#include <utility>
#include <vector>

namespace metaprotocol {
namespace {

constexpr std::string_view kOwn[] = {"method", "group"};
using EntryViews = std::vector<std::pair<std::string_view, std::string_view>>;

TEST(MetadataKeys, OwnKeysComeFirstInTheirOrderAndAreWantedOnDemand) {
  MetadataKeys keys(kOwn);
  EXPECT_EQ(keys.size(), 2u);
  EXPECT_FALSE(keys.wants(0));
  EXPECT_FALSE(keys.wants_named());
  EXPECT_EQ(keys.Want("group"), 1u);
  EXPECT_EQ(keys.Want("Method"), 0u) << "whatever the case";
  EXPECT_TRUE(keys.wants(0));
  EXPECT_EQ(keys.Want("lane"), 2u);
  EXPECT_EQ(keys.Want("lane"), 2u);
  EXPECT_TRUE(keys.wants_named());
  EXPECT_EQ(keys.Find("lane"), 2u);
  EXPECT_EQ(keys.Find("Lane"), MetadataKeys::kNone) << "keys are what was asked for";
  EXPECT_TRUE(keys.WantsNamed("LANE"));
  EXPECT_FALSE(keys.WantsNamed("land"));
  EXPECT_FALSE(keys.WantsNamed("method"));
}

TEST(MetadataKeys, FindsEachOfManyKeys) {
  MetadataKeys keys(kOwn);
  std::vector<uint32_t> slots;
  for (int i = 0; i < 5000; ++i) slots.push_back(keys.Want("key" + std::to_string(i)));
  for (int i = 0; i < 5000; ++i) {
    uint32_t found = MetadataKeys::kNone;
    keys.ForEachNamed("KEY" + std::to_string(i), [&](uint32_t slot, bool exact) {
      found = slot;
      EXPECT_FALSE(exact);
    });
    ASSERT_EQ(found, slots[static_cast<size_t>(i)]);
  }
  EXPECT_FALSE(keys.WantsNamed("key5000"));
}

TEST(Metadata, NothingThatAPeerNamesFillsAnOwnKey) {
  MetadataKeys keys(kOwn);
  keys.Want("method");
  keys.Want("group");
  keys.Want("lane");
  Metadata metadata;
  metadata.Clear(&keys);
  metadata.SetNamed("method", "forged");
  metadata.SetNamed("GROUP", "forged");
  metadata.SetNamed("lane", "blue");
  EXPECT_EQ(metadata.Entries(), (EntryViews{{"lane", "blue"}}));
  metadata.SetOwn(0, "get");
  metadata.SetNamed("method", "forged");
  metadata.SetNamedCopy("method", "forged");
  EXPECT_EQ(metadata.Find("method"), "get");
  EXPECT_EQ(metadata.Find("group"), std::nullopt);
}

TEST(Metadata, TheLastOfEqualNamesStaysButExactWritingGoesBeforeOther) {
  MetadataKeys keys;
  const uint32_t slot = keys.Want("Lane");
  Metadata metadata;
  metadata.Clear(&keys);
  metadata.SetNamed("lane", "1");
  metadata.SetNamed("LANE", "2");
  EXPECT_EQ(metadata.Get(slot), "2");
  metadata.SetNamedCopy("Lane", "3");
  metadata.SetNamed("lane", "4");
  metadata.SetNamedCopy("lane", "5");
  EXPECT_EQ(metadata.Get(slot), "3");
  metadata.SetNamed("Lane", "6");
  EXPECT_EQ(metadata.Get(slot), "6");
}

TEST(Metadata, KeepsNothingOfTheMessageBefore) {
  MetadataKeys keys(kOwn);
  keys.Want("method");
  const uint32_t lane = keys.Want("lane");
  MetadataKeys others(kOwn);
  for (const char* key : {"a", "b", "c"}) others.Want(key);
  Metadata metadata;
  metadata.Clear(&keys);
  metadata.SetOwn(0, "get");
  metadata.SetAlternative(0, "Orders:get");
  metadata.SetNamedCopy("lane", "blue");
  metadata.Clear(&others);
  EXPECT_EQ(metadata.Get(0), std::nullopt);
  EXPECT_EQ(metadata.Alternative(0), std::nullopt);
  EXPECT_EQ(metadata.Get(lane), std::nullopt);
  metadata.SetNamed("lane", "blue");
  EXPECT_EQ(metadata.Entries(), EntryViews{});
  metadata.Clear();
  metadata.SetOwn(0, "get");
  metadata.SetNamed("a", "1");
  EXPECT_EQ(metadata.Entries(), EntryViews{}) << "nothing is wanted";
}

TEST(Metadata, EverythingIsKeptUnderItsOwnNameOnce) {
  const MetadataKeys keys = MetadataKeys::Everything(kOwn);
  Metadata metadata;
  metadata.Clear(&keys);
  metadata.SetNamed("lane", "1");
  metadata.SetNamed("Lane", "2");
  metadata.SetNamed("method", "forged");
  metadata.SetNamedCopy("lane", "3");
  metadata.SetOwn(0, "get");
  EXPECT_EQ(metadata.Entries(), (EntryViews{{"method", "get"}, {"Lane", "2"}, {"lane", "3"}}));
  EXPECT_EQ(metadata.Find("lane"), "3");
}

TEST(Metadata, MovesWithItsBytes) {
  MetadataKeys keys(kOwn);
  keys.Want("method");
  const uint32_t lane = keys.Want("lane");
  const uint32_t copy = keys.Want("copy");
  const std::string bytes = "Orders:get blue";
  Metadata metadata;
  metadata.Clear(&keys);
  metadata.SetOwn(0, std::string_view(bytes).substr(7, 3));
  metadata.SetAlternative(0, std::string_view(bytes).substr(0, 10));
  metadata.SetNamed("lane", std::string_view(bytes).substr(11));
  metadata.SetNamedCopy("copy", "short");
  const std::string moved = bytes;
  Metadata held = std::move(metadata);
  held.Rebase(bytes, moved.data());
  EXPECT_EQ(held.Get(0)->data(), moved.data() + 7);
  EXPECT_EQ(held.Alternative(0)->data(), moved.data());
  EXPECT_EQ(held.Get(lane)->data(), moved.data() + 11);
  EXPECT_EQ(held.Get(copy), "short");
}

TEST(Metadata, WhatCannotBeToldReplacesATextOfTheSameName) {
  MetadataKeys keys(kOwn);
  const uint32_t user = keys.Want("user");
  Metadata metadata;
  metadata.Clear(&keys);
  metadata.SetNamed("user", "a");
  metadata.SetNamedUntold("User");
  EXPECT_EQ(metadata.Get(user), "a") << "of another name";
  for (int i = 0; i < 3; ++i) {
    metadata.SetNamedUntold("user");
    EXPECT_EQ(metadata.Get(user), std::nullopt);
    EXPECT_TRUE(metadata.Entries().empty());
    metadata.SetNamedCopy("user", "b");
    EXPECT_EQ(metadata.Get(user), "b");
    EXPECT_EQ(metadata.Entries().size(), 1u);
  }
  metadata.Clear(&keys);
  metadata.SetNamedUntold("user");
  EXPECT_EQ(metadata.Get(user), std::nullopt);
  metadata.SetNamed("User", "c");
  EXPECT_EQ(metadata.Get(user), "c");

  const MetadataKeys all = MetadataKeys::Everything(kOwn);
  metadata.Clear(&all);
  metadata.SetNamed("user", "a");
  metadata.SetNamedUntold("user");
  metadata.SetNamedUntold("lane");
  EXPECT_EQ(metadata.Find("user"), std::nullopt);
  EXPECT_TRUE(metadata.Entries().empty());
  metadata.SetNamed("user", "b");
  EXPECT_EQ(metadata.Find("user"), "b");
  EXPECT_EQ(metadata.Entries().size(), 1u);
  metadata.Clear();
}

TEST(Metadata, TellsTheSpellingsOfKeysThatSomebodyWantsSo) {
  MetadataKeys keys(kOwn);
  const uint32_t user = keys.WantSpellings("x-user");
  keys.Want("other");
  keys.Want("x-user");
  Metadata metadata;
  metadata.Clear(&keys);
  metadata.SetNamed("x-user", "a");
  metadata.SetNamed("X-User", "b");
  metadata.SetNamedCopy("X-USER", "c");
  metadata.SetNamed("X-User", "d");
  metadata.SetNamedUntold("x-USER");
  metadata.SetNamed("Other", "e");
  metadata.SetNamed("x-users", "f");
  EXPECT_EQ(metadata.spellings(), (std::vector<std::string>{"X-User", "X-USER", "x-USER"}));
  EXPECT_EQ(metadata.Get(user), "a");
  EXPECT_FALSE(metadata.too_many_spellings());
  metadata.Clear(&keys);
  EXPECT_TRUE(metadata.spellings().empty());
  for (int i = 1; i < 64; ++i) {
    std::string name = "x-user";
    for (size_t bit = 0; bit < name.size(); ++bit) {
      if (((i >> bit) & 1) != 0) name[bit] = static_cast<char>(std::toupper(name[bit]));
    }
    metadata.SetNamed(name, "v");
  }
  EXPECT_EQ(metadata.spellings().size(), 31u) << "of five letters, but for the one in lower case";
  metadata.Clear(&keys);
}

}  // namespace
}  // namespace metaprotocol
