// Priorities: what requests of one take does not take anything from those of the other.
#include "src/base/random_stream.h"
#include "src/upstream/connection_count.h"
#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {
namespace {

// Requests with prio=high take the route of high priority.
SimConfig Prioritized(SimConfig config = {}) {
  config.routes = {SimRoute{.match = {Exact("prio", "high")}, .priority = Priority::kHigh},
                   SimRoute{}};
  return config;
}

class PriorityWorld : public World {
 public:
  explicit PriorityWorld(SimConfig config = {}) : World(Prioritized(std::move(config))) {}

  // On a connection of its own. Returns what has come back at once.
  std::string Send(bool high) {
    SimClient& client = Connect();
    client.Send(Request(1, {}, high ? FakeKv{{"prio", "high"}} : FakeKv{}));
    return Kinds(client.Take());
  }
  std::string SendMany(bool high, size_t count) {
    std::string refused;
    for (size_t i = 0; i < count; ++i) refused += Send(high);
    return refused;
  }
};

TEST(Priority, RequestsOfEachHaveTheirOwnBound) {
  for (const SimConfig& config : {SimConfig{}, Pipelined(), Exclusive(), PerSession()}) {
    PriorityWorld world(config);
    world.policy.max_requests_in_flight = 3;
    world.policy.high.max_requests_in_flight = 2;
    world.SetHosts("a", {"h1"});
    world.servers["h1"].mode = SimServer::Mode::kSilent;
    EXPECT_EQ(world.SendMany(false, 5), "EE");
    EXPECT_EQ(world.SendMany(true, 5), "EEE");
    EXPECT_EQ(world.SendMany(false, 1), "E");
    world.clients[0]->Reset();
    EXPECT_EQ(world.SendMany(true, 1), "E") << "what the others give back is not theirs";
    EXPECT_EQ(world.SendMany(false, 1), "");
    world.clients[5]->Reset();
    EXPECT_EQ(world.SendMany(true, 1), "");
  }
}

TEST(Priority, ThoseThatNobodyBoundsHaveTheUsualBounds) {
  PriorityWorld world;
  world.policy.max_requests_in_flight = 1;
  world.SetHosts("a", {"h1"});
  world.servers["h1"].mode = SimServer::Mode::kSilent;
  EXPECT_EQ(world.SendMany(false, 2), "E");
  EXPECT_EQ(world.SendMany(true, 100), "");
}

TEST(Priority, EachWaitsInLinesOfItsOwnForConnectionsOfItsOwn) {
  PriorityWorld world(Exclusive());
  world.policy.max_leases_per_host = 1;
  world.policy.max_pending_requests = 2;
  world.policy.high.max_leases_per_host = 2;
  world.policy.high.max_pending_requests = 1;
  world.SetHosts("a", {"h1"});
  world.servers["h1"].delay_us = 10 * kMs;
  EXPECT_EQ(world.SendMany(false, 5), "EE");
  EXPECT_EQ(world.SendMany(true, 5), "EE");
  world.RunFor(kMs);
  EXPECT_EQ(world.connections.size(), 3u);
  EXPECT_EQ(world.Seen().size(), 3u) << "one, and two of high priority";
  world.RunFor(kSecond);
  EXPECT_EQ(world.Count(Counter::kResponsesOk), 6u);
  for (auto& client : world.clients) client->Reset();
  world.RunFor(20 * kSecond);
  world.ExpectQuiet();
}

TEST(Priority, RetriesOfEachHaveTheirOwnBudget) {
  SimConfig config = Prioritized();
  for (SimRoute& route : config.routes) {
    route.retry = {.retries = 1,
                   .causes = RetryPolicy::kError,
                   .backoff_us = kSecond,
                   .max_backoff_us = kSecond};
  }
  World world(config);
  world.policy.retry_budget_percent = world.policy.high.retry_budget_percent = 0;
  world.policy.min_retries_in_flight = 1;
  world.policy.high.min_retries_in_flight = 3;
  world.SetHosts("a", {"h1"});
  world.servers["h1"].reply_kind = 'E';
  for (int i = 0; i < 5; ++i) {
    world.Connect().Send(world.Request(1));
    world.Connect().Send(world.Request(1, {}, {{"prio", "high"}}));
  }
  world.RunFor(kMs);
  EXPECT_EQ(world.Count(Counter::kRetriesOverBudget, "a", "main/1"), 4u);
  EXPECT_EQ(world.Count(Counter::kRetriesOverBudget, "a", "main/0"), 2u);
  world.RunFor(20 * kSecond);
  EXPECT_EQ(world.exchanges(), 0u);
}

TEST(Priority, ConnectionsAreBoundedOverAllHostsButForOneToEach) {
  for (const SimConfig& config : {Exclusive(), PerSession()}) {
    PriorityWorld world(config);
    world.policy.connections = std::make_shared<ConnectionCount>(3);
    world.policy.high.connections = std::make_shared<ConnectionCount>(2);
    world.SetHosts("a", {"h1", "h2"});
    Manual(world, "h1");
    Manual(world, "h2");
    world.SendMany(false, 8);
    world.SendMany(true, 8);
    world.RunFor(kMs);
    EXPECT_EQ(world.connections.size(), 5u);
    EXPECT_EQ(world.policy.connections->count(), 3u);
    EXPECT_EQ(world.policy.high.connections->count(), 2u);
    world.SetHosts("a", {"h1", "h2", "h3"});
    Manual(world, "h3");
    world.SendMany(false, 3);
    world.RunFor(kMs);
    EXPECT_EQ(world.connections.size(), 6u) << "nobody has one to the third yet";
    for (auto& client : world.clients) client->Reset();
    world.RunFor(20 * kSecond);
    EXPECT_EQ(world.policy.connections->count(), 0u);
    EXPECT_EQ(world.policy.high.connections->count(), 0u);
  }
}

// Whatever comes in whatever order, nobody has more under way than its bound, and at the end all is
// given back.
TEST(Priority, TheBoundsHoldWhateverComes) {
  RandomStream random(7);
  for (const SimConfig& config : {SimConfig{}, Exclusive(), PerSession()}) {
    PriorityWorld world(config);
    world.policy.max_requests_in_flight = 7;
    world.policy.high.max_requests_in_flight = 4;
    world.policy.connections = std::make_shared<ConnectionCount>(3);
    world.policy.high.connections = std::make_shared<ConnectionCount>(2);
    world.SetHosts("a", {"h1", "h2"});
    for (const char* host : {"h1", "h2"}) world.servers[host].delay_us = 3 * kMs;
    uint64_t sent[2] = {};
    for (int step = 0; step < 2000; ++step) {
      const bool high = random.Below(3) == 0;
      ++sent[high ? 1 : 0];
      world.Send(high);
      if (random.Below(4) == 0) world.clients[random.Below(world.clients.size())]->Reset();
      if (random.Below(3) == 0) world.RunFor(kMs);
      EXPECT_LE(world.exchanges(), 11u);
      // The other host may be given one anyway.
      EXPECT_LE(world.policy.connections->count(), 3u + 1u);
      EXPECT_LE(world.policy.high.connections->count(), 2u + 1u);
    }
    EXPECT_GT(sent[0], 1000u);
    EXPECT_GT(world.Count(LocalReply::kOverLimit), 10u);
    // Connections that belong to clients stay with them.
    EXPECT_GT(world.Count(Counter::kResponsesOk),
              config.mode == UpstreamMode::kPerSession ? 5 : 100);
    for (auto& client : world.clients) client->Reset();
    world.RunFor(20 * kSecond);
    world.ExpectQuiet();
    EXPECT_EQ(world.policy.connections->count(), 0u);
  }
}

}  // namespace
}  // namespace metaprotocol::test
