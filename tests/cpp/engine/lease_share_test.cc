// Leases that serve one request at a time: each client has its share of them, and of the places to
// wait for one.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {
namespace {

std::string Requests(const World& world, uint64_t count) {
  std::string all;
  for (uint64_t i = 0; i < count; ++i) all += world.Request(i);
  return all;
}
std::string OneWays(const World& world, uint64_t count) {
  std::string all;
  for (uint64_t i = 0; i < count; ++i) all += world.OneWay(i);
  return all;
}

TEST(LeaseShare, OneClientCannotTakeAllConnectionsOfAHost) {
  for (const SimConfig& config : {Exclusive(), Pipelined()}) {
    World world(config);
    world.policy.max_leases_per_host = 9;
    world.SetHosts("a", {"h1"});
    world.servers["h1"].mode = SimServer::Mode::kSilent;
    SimClient& greedy = world.Connect();
    SimClient& other = world.Connect();
    greedy.Send(Requests(world, 100));
    world.RunFor(kMs);
    EXPECT_EQ(world.connections.size(), 5u);
    world.servers["h1"].mode = SimServer::Mode::kEcho;
    other.Send(world.Request(1));
    world.RunFor(kMs);
    EXPECT_EQ(Tokens(other.Take()), Texts{"1"});
  }
}

TEST(LeaseShare, GreedyClientsGetEqualSharesAndLeaveSomethingForTheNext) {
  World world(Pipelined());
  world.policy.max_leases_per_host = 40;
  world.SetHosts("a", {"h1"});
  world.servers["h1"].delay_us = 10 * kMs;
  std::vector<SimClient*> greedy;
  for (int i = 0; i < 3; ++i) greedy.push_back(&world.Connect());
  for (SimClient* client : greedy) client->Send(Requests(world, 200));
  world.RunFor(100 * kMs);
  size_t least = 1000;
  size_t most = 0;
  for (SimClient* client : greedy) {
    const size_t count = client->Take().size();
    least = std::min(least, count);
    most = std::max(most, count);
  }
  EXPECT_GT(least, 70u);
  EXPECT_LT(most, 3 * least / 2 + 10);
  SimClient& late = world.Connect();
  late.Send(world.Request(1));
  world.RunFor(11 * kMs);
  EXPECT_EQ(Tokens(late.Take()), Texts{"1"}) << "waits for nobody";
}

TEST(LeaseShare, ClientsThatWaitTakeTurns) {
  World world(Exclusive());
  world.policy.max_leases_per_host = 1;
  world.SetHosts("a", {"h1"});
  world.servers["h1"].delay_us = 10 * kMs;
  SimClient& greedy = world.Connect();
  greedy.Send(Requests(world, 50));
  world.RunFor(kMs);
  SimClient& other = world.Connect();
  other.Send(world.Request(7));
  world.RunFor(31 * kMs);
  EXPECT_EQ(Tokens(other.Take()), Texts{"7"}) << "behind two of the other's, not behind fifty";
  world.RunFor(kSecond);
  EXPECT_EQ(greedy.Take().size(), 50u);
}

TEST(LeaseShare, OneClientCannotTakeAllPlacesToWait) {
  World world(Exclusive());
  world.policy.max_leases_per_host = 1;
  world.policy.max_pending_requests = 10;
  world.SetHosts("a", {"h1"});
  world.servers["h1"].delay_us = kMs;
  SimClient& greedy = world.Connect();
  greedy.Send(Requests(world, 50));
  SimClient& other = world.Connect();
  other.Send(world.Request(7));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(other.Take()), "R");
  EXPECT_GT(world.Count(LocalReply::kOverLimit), 40u);
}

TEST(LeaseShare, OneClientCannotTakeAllPlacesToWaitByWaitingForManyHosts) {
  World world(Exclusive());
  world.policy.max_leases_per_host = 1;
  world.policy.max_pending_requests = 10;
  world.SetHosts("a", {"h1", "h2", "h3", "h4", "h5"});
  for (auto& [address, server] : world.servers) server.delay_us = kMs;
  SimClient& greedy = world.Connect();
  greedy.Send(Requests(world, 50));
  SimClient& other = world.Connect();
  other.Send(world.Request(7));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(other.Take()), "R");
}

TEST(LeaseShare, ThoseThatWaitKeepTheirPlacesWhenTheirHostLeaves) {
  World world(Exclusive());
  world.policy.max_leases_per_host = 1;
  world.policy.max_pending_requests = 4;
  world.SetHosts("a", {"h1", "h2"});
  for (auto& [address, server] : world.servers) server.delay_us = 10 * kMs;
  for (int i = 0; i < 6; ++i) world.Connect().Send(world.Request(1));
  world.SetHosts("a", {"h2"});
  world.Connect().Send(world.Request(1));
  EXPECT_EQ(world.Count(LocalReply::kOverLimit), 1u) << "the last, and nobody else";
  world.RunFor(kSecond);
  EXPECT_EQ(world.Count(Counter::kResponsesOk), 6u);
  for (auto& client : world.clients) client->Reset();
  world.RunFor(20 * kSecond);
  world.ExpectQuiet();
}

TEST(LeaseShare, ClientThatLeavesWhileItsRequestsWaitLeavesNothingBehind) {
  World world(Exclusive());
  world.policy.max_leases_per_host = 2;
  world.SetHosts("a", {"h1"});
  world.servers["h1"].delay_us = 10 * kMs;
  SimClient& leaves = world.Connect();
  SimClient& stays = world.Connect();
  leaves.Send(Requests(world, 20) + OneWays(world, 5) + Requests(world, 5));
  stays.Send(Requests(world, 5));
  world.RunFor(kMs);
  leaves.Reset();
  world.RunFor(kSecond);
  EXPECT_EQ(stays.Take().size(), 5u);
  world.RunFor(20 * kSecond);
  world.ExpectQuiet();
}

TEST(LeaseShare, HostThatLeavesHandsThoseThatWaitToOthers) {
  World world(Exclusive());
  world.policy.max_leases_per_host = 1;
  world.SetHosts("a", {"h1"});
  world.servers["h1"].mode = SimServer::Mode::kSilent;
  SimClient& first = world.Connect();
  SimClient& second = world.Connect();
  first.Send(Requests(world, 5));
  second.Send(Requests(world, 5));
  world.RunFor(kMs);
  world.SetHosts("a", {"h2"});
  world.RunFor(kSecond);
  EXPECT_EQ(first.Take().size() + second.Take().size(), 9u) << "all but the one under way";
}

TEST(LeaseShare, MessagesWithoutReplyOfOneReadShareAConnection) {
  for (const SimConfig& config : {Exclusive(), Pipelined()}) {
    World world(config);
    world.SetHosts("a", {"h1"});
    SimClient& client = world.Connect();
    client.Send(OneWays(world, 1500));
    world.RunFor(kMs);
    EXPECT_EQ(world.Seen().size(), 1500u);
    EXPECT_EQ(world.connections.size(), 1u);
  }
}

TEST(LeaseShare, CallDoesNotStandBehindMessagesWithoutReply) {
  World world(Exclusive());
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  client.Send(OneWays(world, 50));
  world.RunFor(kMs);
  SimClient& other = world.Connect();
  for (uint64_t i = 0; i < 5; ++i) {
    other.Send(world.Request(i));
    world.RunFor(kMs);
    client.Send(OneWays(world, 50));
    world.RunFor(kMs);
  }
  EXPECT_EQ(other.Take().size(), 5u);
  ASSERT_EQ(world.connections.size(), 2u);
  EXPECT_EQ(Kinds(world.connections[0]->requests), std::string(300, 'O'));
  EXPECT_EQ(Kinds(world.connections[1]->requests), "QQQQQ");
}

}  // namespace
}  // namespace metaprotocol::test
