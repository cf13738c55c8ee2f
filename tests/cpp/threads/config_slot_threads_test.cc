// Configuration slots under the thread sanitizer: one thread publishes and withdraws, others read.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "src/config/config_slot.h"
#include "tests/cpp/support/sim_config.h"

namespace metaprotocol {
namespace {

std::shared_ptr<const Snapshot> Named(const std::string& name) {
  test::SimConfig config;
  config.name = name;
  return test::BuildSnapshot(config);
}

TEST(ConfigSlotThreads, ReadersSeeWholeSnapshotsWhileOthersArePublishedAndWithdrawn) {
  ConfigSlot slot;
  slot.Publish(Named("first"));
  std::atomic<bool> stop{false};
  std::atomic<size_t> seen{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      uint64_t version = 0;
      std::shared_ptr<const Snapshot> current;
      while (!stop.load(std::memory_order_relaxed)) {
        if (current == nullptr || slot.version() != version) {
          current = slot.Current(version);
          seen.fetch_add(1, std::memory_order_relaxed);
        }
        ASSERT_NE(current, nullptr);
        ASSERT_EQ(current->tables.size(), 1u);
      }
    });
  }
  for (int i = 0; i < 500; ++i) {
    const auto snapshot = Named("version " + std::to_string(i));
    const ConfigSlot::Ticket ticket = slot.Publish(snapshot);
    if (i % 3 == 0) slot.Withdraw(ticket);
    if (i % 3 == 1) slot.InForce(ticket);
    std::this_thread::yield();
  }
  const auto last = Named("last");
  slot.Publish(last);
  stop.store(true, std::memory_order_relaxed);
  for (std::thread& reader : readers) reader.join();
  uint64_t version = 0;
  EXPECT_EQ(slot.Current(version), last);
  EXPECT_EQ(version, slot.version());
  EXPECT_GE(seen.load(), 3u);
}

TEST(ConfigSlotThreads, EveryThreadGetsTheSameSlotForAName) {
  ConfigRegistry registry;
  std::vector<std::shared_ptr<ConfigSlot>> found(4);
  std::vector<std::thread> threads;
  for (auto& slot : found) {
    threads.emplace_back([&registry, &slot] {
      for (int i = 0; i < 200; ++i) registry.Slot("other " + std::to_string(i));
      slot = registry.Slot("dubbo");
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& slot : found) EXPECT_EQ(slot, found[0]);
}

}  // namespace
}  // namespace metaprotocol
