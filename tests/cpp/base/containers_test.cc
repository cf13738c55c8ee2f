// The intrusive list, the object pool and the input buffer.
#include <gtest/gtest.h>

#include <random>
#include <set>
#include <string>
#include <vector>

#include "src/base/input_buffer.h"
#include "src/base/intrusive_list.h"
#include "src/base/object_pool.h"

namespace metaprotocol {
namespace {

struct RedLink : ListLink {};
struct BlueLink : ListLink {};
struct Item : RedLink, BlueLink {
  explicit Item(int value) : value(value) {}
  int value;
};
using RedList = IntrusiveList<Item, RedLink>;
using BlueList = IntrusiveList<Item, BlueLink>;

std::vector<int> Values(RedList& list) {
  std::vector<int> values;
  list.ForEach([&](Item& item) { values.push_back(item.value); });
  return values;
}

TEST(IntrusiveList, KeepsTheOrderOfInsertion) {
  Item one(1);
  Item two(2);
  Item three(3);
  RedList list;
  EXPECT_TRUE(list.empty());
  list.PushBack(one);
  list.PushBack(two);
  list.PushBack(three);
  EXPECT_EQ(Values(list), (std::vector<int>{1, 2, 3}));
  RedList::Remove(two);
  EXPECT_EQ(Values(list), (std::vector<int>{1, 3}));
  EXPECT_EQ(list.front().value, 1);
  RedList::Remove(two);  // again, which is nothing
  list.PushBack(two);
  EXPECT_EQ(Values(list), (std::vector<int>{1, 3, 2}));
}

TEST(IntrusiveList, FindsTheFirstThatFits) {
  Item one(1);
  Item two(2);
  RedList list;
  list.PushBack(one);
  list.PushBack(two);
  EXPECT_EQ(list.Find([](Item& item) { return item.value == 2; }), &two);
  EXPECT_EQ(list.Find([](Item&) { return true; }), &one);
  EXPECT_EQ(list.Find([](Item&) { return false; }), nullptr);
}

TEST(IntrusiveList, AnElementIsInSeveralListsAtOnce) {
  Item item(1);
  RedList red;
  BlueList blue;
  red.PushBack(item);
  blue.PushBack(item);
  RedList::Remove(item);
  EXPECT_TRUE(red.empty());
  EXPECT_EQ(blue.front().value, 1);
}

TEST(IntrusiveList, ElementMayRemoveItselfWhileTheListIsWalked) {
  std::vector<std::unique_ptr<Item>> items;
  RedList list;
  for (int i = 0; i < 10; ++i) {
    items.push_back(std::make_unique<Item>(i));
    list.PushBack(*items.back());
  }
  list.ForEach([](Item& item) {
    if (item.value % 2 == 0) RedList::Remove(item);
  });
  EXPECT_EQ(Values(list), (std::vector<int>{1, 3, 5, 7, 9}));
}

TEST(IntrusiveList, LeavesItsElementsUnlinkedWhenItGoes) {
  Item item(1);
  {
    RedList list;
    list.PushBack(item);
    EXPECT_TRUE(static_cast<RedLink&>(item).linked());
  }
  EXPECT_FALSE(static_cast<RedLink&>(item).linked());
}

TEST(ObjectPool, GivesBackWhatWasReleasedAndNothingTwice) {
  ObjectPool<std::string> pool;
  std::string& one = pool.Acquire();
  std::string& two = pool.Acquire();
  EXPECT_NE(&one, &two);
  one.assign(1000, 'x');
  const auto capacity = one.capacity();
  pool.Release(one);
  std::string& again = pool.Acquire();
  EXPECT_EQ(&again, &one);
  EXPECT_EQ(again.capacity(), capacity);
  std::set<std::string*> seen = {&again, &two};
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(seen.insert(&pool.Acquire()).second);
}

TEST(ObjectPool, KeepsNoMoreThanSomeOfWhatABurstHasNeeded) {
  using Pool = ObjectPool<std::string>;
  Pool pool;
  std::vector<std::string*> burst;
  for (size_t i = 0; i < 3 * Pool::kMostFree; ++i) burst.push_back(&pool.Acquire());
  for (std::string* object : burst) pool.Release(*object);
  EXPECT_EQ(pool.free_count(), Pool::kMostFree);
  pool.Acquire() = "still in use when the pool goes";
}

TEST(InputBuffer, IsAStringWithoutItsFront) {
  std::mt19937_64 random(5);
  for (int run = 0; run < 50; ++run) {
    InputBuffer buffer(1000);
    std::string expected;
    for (int step = 0; step < 300; ++step) {
      if (random() % 2 == 0) {
        const std::string bytes(random() % 200, static_cast<char>('a' + step % 26));
        buffer.Append(bytes);
        expected += bytes;
      } else {
        const size_t n = random() % 3 == 0 ? expected.size() : random() % (expected.size() + 1);
        buffer.Consume(n);
        expected.erase(0, n);
      }
      ASSERT_EQ(buffer.view(), expected);
      ASSERT_EQ(buffer.size(), expected.size());
      ASSERT_EQ(buffer.empty(), expected.empty());
    }
  }
}

TEST(InputBuffer, MovesBytesRarelyWhenTheyAreTakenOneByOne) {
  InputBuffer buffer(1000);
  const std::string all(size_t{1} << 20, 'x');
  buffer.Append(all);
  const char* const start = buffer.view().data();
  for (size_t i = 0; i < 1000; ++i) {
    buffer.Consume(100);
    EXPECT_EQ(buffer.view().data(), start + (i + 1) * 100) << "moved";
  }
}

}  // namespace
}  // namespace metaprotocol
