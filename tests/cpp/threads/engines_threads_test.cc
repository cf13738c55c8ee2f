// Several engines, each on its own thread, under the thread sanitizer: all they share is the slot
// and the snapshots in it, while another thread replaces these.
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "tests/cpp/support/sim_config.h"
#include "tests/cpp/support/sim_world.h"

namespace metaprotocol::test {
namespace {

constexpr int kEngines = 3;
constexpr uint64_t kRequestsPerEngine = 1500;

Condition Regex(std::string key, std::string expression) {
  Condition condition;
  condition.key = std::move(key);
  condition.kind = Condition::Kind::kRegex;
  condition.values = {std::move(expression)};
  return condition;
}

// One route of each kind that holds state of its own: a compiled expression, a hash index, a
// schedule of weights.
SimConfig Config(const std::string& cluster) {
  SimConfig config;
  config.routes = {
      SimRoute{.match = {Regex("user", "a.*(b|c)+")}, .clusters = {{cluster, 1}}},
      SimRoute{.match = {Exact("user", "exact")}, .clusters = {{cluster, 1}}},
      SimRoute{.clusters = {{"a", 70}, {"b", 30}}},
  };
  return config;
}

TEST(EngineThreads, EnginesShareNothingButSnapshots) {
  const auto slot = std::make_shared<ConfigSlot>();
  slot->Publish(BuildSnapshot(Config("a")));
  std::atomic<int> running{kEngines};
  std::vector<std::thread> threads;
  for (int number = 0; number < kEngines; ++number) {
    threads.emplace_back([&, number] {
      SimWorld world(Config("a"), static_cast<uint64_t>(number) + 1);
      world.slot = slot;
      world.SetHosts("a", {"a1", "a2"});
      world.SetHosts("b", {"b1", "b2"});
      SimClient& client = world.Connect();
      const std::vector<FakeKv> kinds = {
          {{"user", "a long user name, bcb"}}, {{"user", "exact"}}, {{"user", "other"}}};
      uint64_t answered = 0;
      for (uint64_t id = 1; id <= kRequestsPerEngine; ++id) {
        client.Send(world.wire().Make('Q', id, std::to_string(id), {}, kinds[id % kinds.size()]));
        world.RunFor(kMs);
        for (const WireMessage& reply : client.Take()) answered += reply.kind == 'R' ? 1 : 0;
      }
      EXPECT_EQ(answered, kRequestsPerEngine);
      EXPECT_TRUE(world.violations.empty()) << world.violations.front();
      running.fetch_sub(1);
    });
  }
  for (int i = 0; running.load() != 0; ++i) {
    slot->Publish(BuildSnapshot(Config(i % 2 == 0 ? "b" : "a")));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace metaprotocol::test
