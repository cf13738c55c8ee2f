// Requests per connection in the simulated world. The law: no upstream connection ever gets more
// than the bound, and no request is lost or answered wrongly for it.
#include <algorithm>

#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {
namespace {

size_t Most(const World& world) {
  size_t most = 0;
  for (const auto& connection : world.connections) {
    most = std::max(most, connection->requests.size());
  }
  return most;
}

TEST(RequestsPerConnection, NoConnectionGetsMoreThanItsBound) {
  for (const SimConfig& config : {SimConfig{}, Pipelined(), Exclusive()}) {
    for (const uint32_t bound : {1u, 3u}) {
      World world(config);
      world.policy.max_requests_per_connection = bound;
      world.SetHosts("a", {"h1", "h2"});
      std::vector<SimClient*> clients;
      for (int i = 0; i < 5; ++i) clients.push_back(&world.Connect());
      size_t answered = 0;
      for (uint64_t round = 1; round <= 40; ++round) {
        // All at once, some of them, and one after the other.
        for (size_t i = 0; i < clients.size(); ++i) {
          if (round % 3 == 0 && i % 2 == 0) continue;
          clients[i]->Send(world.Request(round));
          if (round % 7 == 0) clients[i]->Send(world.OneWay(1000 + round));
          if (round % 5 == 0) world.RunFor(3 * kMs);
        }
        world.RunFor(20 * kMs);
        for (SimClient* client : clients) {
          const auto replies = client->Take();
          EXPECT_EQ(Kinds(replies), std::string(replies.size(), 'R'));
          answered += replies.size();
        }
      }
      EXPECT_EQ(answered, 200u - 13 * 3);
      EXPECT_LE(Most(world), bound);
      EXPECT_GE(world.connections.size(), (answered + 22) / bound);
      for (SimClient* client : clients) client->Reset();
      world.RunFor(60 * kSecond);
      world.ExpectQuiet();
      EXPECT_EQ(world.Count(Counter::kLeasesReleased), 0u)
          << "from the pool one would come back as if it had had none";
    }
  }
}

TEST(RequestsPerConnection, RequestsUnderWayEndOnTheirConnection) {
  World world;
  world.policy.max_requests_per_connection = 4;
  world.SetHosts("a", {"h"});
  world.servers["h"].delay_us = 500 * kMs;
  SimClient& client = world.Connect();
  for (uint64_t id = 1; id <= 10; ++id) client.Send(world.Request(id));
  world.RunFor(10 * kMs);
  EXPECT_EQ(world.connections.size(), 3u);
  world.RunFor(kSecond);
  EXPECT_EQ(client.Take().size(), 10u);
  EXPECT_EQ(Most(world), 4u);
}

TEST(RequestsPerConnection, ConnectionsThatRememberTheirClientHaveNoBound) {
  World world(PerSession());
  world.policy.max_requests_per_connection = 2;
  world.SetHosts("a", {"h"});
  SimClient& client = world.Connect();
  for (uint64_t id = 1; id <= 9; ++id) client.Send(world.Request(id));
  world.RunFor(kSecond);
  EXPECT_EQ(client.Take().size(), 9u);
  EXPECT_EQ(world.connections.size(), 1u);
}

}  // namespace
}  // namespace metaprotocol::test
