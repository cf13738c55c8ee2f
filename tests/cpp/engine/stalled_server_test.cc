// Servers that do not read: what is held for them is bounded, whoever waits for a reply or not, and
// nobody else notices.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {
namespace {

constexpr size_t kLeaseBytes = 50000;
// As many leases of a host may owe that much.
constexpr size_t kHostBytes = 4 * kLeaseBytes;

std::vector<SimConfig> AllModes() { return {SimConfig{}, Pipelined(), Exclusive(), PerSession()}; }

// Routes by the key "to", and small bounds.
SimConfig ToTwoClusters(SimConfig config) {
  config.routes = {SimRoute{.match = {Exact("to", "b")}, .clusters = {{"b", 1}}}, SimRoute{}};
  return config;
}
void SetClusters(World& world) {
  world.policy.max_lease_bytes_in_flight = kLeaseBytes;
  world.SetHosts("a", {"stalled"});
  world.SetHosts("b", {"reading"});
  world.SetServerReading("stalled", false);
}

TEST(StalledServer, MessagesWithoutReplyAreBounded) {
  for (const SimConfig& config : AllModes()) {
    World world(ToTwoClusters(config));
    SetClusters(world);
    SimClient& client = world.Connect();
    SimClient& other = world.Connect();
    size_t most = 0;
    for (uint64_t i = 0; i < 2000; ++i) {
      client.Send(world.OneWay(i, std::string(1000, 'x')));
      if (i % 10 == 0) world.RunFor(kMs);
      most = std::max(most, world.UnreadBytes());
    }
    EXPECT_GT(most, kLeaseBytes / 2);
    EXPECT_LE(most, kHostBytes + kLeaseBytes);
    EXPECT_GT(world.Count(LocalReply::kOverLimit), 1000u);
    other.Send(world.Request(7, {}, {{"to", "b"}}));
    world.RunFor(kMs);
    EXPECT_EQ(Tokens(other.Take()), Texts{"7"}) << "nobody else notices";

    world.SetServerReading("stalled", true);
    world.RunFor(kMs);
    EXPECT_EQ(world.UnreadBytes(), 0u);
    EXPECT_EQ(world.Seen().size() - 1 + world.Count(LocalReply::kOverLimit), 2000u);
    client.Send(world.Request(8));
    world.RunFor(kMs);
    EXPECT_EQ(Tokens(client.Take()), Texts{"8"}) << "and it is used again";
  }
}

TEST(StalledServer, MessagesOfOneReadAreBounded) {
  World world;
  SetClusters(world);
  SimClient& client = world.Connect();
  std::string all;
  for (uint64_t i = 0; i < 2000; ++i) all += world.OneWay(i, std::string(1000, 'x'));
  client.Send(all);
  world.RunFor(kMs);
  EXPECT_LE(world.UnreadBytes(), kHostBytes + kLeaseBytes);
}

TEST(StalledServer, CallsOfClientsThatHaveLeftAreBounded) {
  World world(ToTwoClusters({}));
  SetClusters(world);
  SimClient& other = world.Connect();
  for (uint64_t i = 0; i < 300; ++i) {
    SimClient& client = world.Connect();
    for (uint64_t call = 0; call < 20; ++call) {
      client.Send(world.Request(call, std::string(1000, 'x')));
    }
    world.RunFor(kMs);
    client.Reset();
    ASSERT_LE(world.UnreadBytes(), kHostBytes + kLeaseBytes);
  }
  other.Send(world.Request(7, {}, {{"to", "b"}}));
  world.RunFor(kMs);
  EXPECT_EQ(Tokens(other.Take()), Texts{"7"});
}

TEST(StalledServer, CallsThatAreWaitedForAreBoundedLikewise) {
  // Clients that have closed their side may still wait for all that anybody knows.
  for (const bool half_closed : {false, true}) {
    World world(ToTwoClusters({}));
    SetClusters(world);
    for (uint64_t i = 0; i < 100; ++i) {
      SimClient& client = world.Connect();
      for (uint64_t call = 0; call < 20; ++call) {
        client.Send(world.Request(call, std::string(1000, 'x')));
      }
      if (half_closed) client.Finish();
      world.RunFor(kMs);
      ASSERT_LE(world.UnreadBytes(), kHostBytes + kLeaseBytes);
    }
    SimClient& other = world.Connect();
    other.Send(world.Request(7, {}, {{"to", "b"}}));
    world.RunFor(kMs);
    EXPECT_EQ(Tokens(other.Take()), Texts{"7"});
  }
}

TEST(StalledServer, AnswersToItsHeartbeatsAreBounded) {
  World world;
  SetClusters(world);
  world.SetServerReading("stalled", true);
  Manual(world, "stalled");
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kMs);
  SimConnection& connection = *world.connections.at(0);
  world.SetServerReading("stalled", false);
  for (int i = 0; i < 100000 && connection.open; ++i) {
    connection.Send(world.wire().Make('H', 1, ""));
    ASSERT_LE(connection.received.size(), 2 * kLeaseBytes);
  }
  EXPECT_FALSE(connection.open);
  EXPECT_EQ(Kinds(client.Take()), "E");
}

TEST(StalledServer, HeartbeatsOfAServerThatReadsAreAnsweredForEver) {
  World world;
  SetClusters(world);
  world.SetServerReading("stalled", true);
  Manual(world, "stalled");
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kMs);
  SimConnection& connection = *world.connections.at(0);
  for (int i = 0; i < 20000; ++i) {
    connection.Send(world.wire().Make('H', 1, ""));
    if (i % 100 == 0) world.RunFor(1);
  }
  EXPECT_TRUE(connection.open);
  connection.Reply(world.Seen().at(0));
  EXPECT_EQ(Kinds(client.Take()), "R");
}

TEST(StalledServer, CopiesForItAreBoundedAndCostTheOriginalsNothing) {
  SimConfig config;
  config.routes = {SimRoute{.clusters = {{"b", 1}}, .mirrors = {{"a", Route::kAlways}}}};
  World world(config);
  world.policy.max_bytes_in_flight = kHostBytes;
  SetClusters(world);
  SimClient& client = world.Connect();
  for (uint64_t i = 0; i < 2000; ++i) {
    client.Send(world.Request(i, std::string(1000, 'x')));
    world.RunFor(kMs);
  }
  EXPECT_EQ(client.Take().size(), 2000u);
  EXPECT_LE(world.UnreadBytes(), kHostBytes + kLeaseBytes);
}

TEST(StalledServer, IsPassedOverWhileAnotherCanBeHad) {
  World world;
  world.policy.max_lease_bytes_in_flight = kLeaseBytes;
  world.SetHosts("a", {"stalled", "reading"});
  world.SetServerReading("stalled", false);
  SimClient& client = world.Connect();
  for (uint64_t i = 0; i < 3000; ++i) {
    client.Send(world.OneWay(i, std::string(1000, 'x')));
    if (i % 10 == 0) world.RunFor(kMs);
  }
  EXPECT_EQ(world.Count(LocalReply::kOverLimit), 0u);
  for (uint64_t i = 0; i < 10; ++i) client.Send(world.Request(i, std::string(1000, 'x')));
  world.RunFor(kMs);
  EXPECT_EQ(client.Take().size(), 10u);
}

TEST(StalledServer, OneThatReadsIsNeverOverItsLimitHoweverMuchItIsSent) {
  for (const SimConfig& config : AllModes()) {
    World world(config);
    SetClusters(world);
    world.SetServerReading("stalled", true);
    SimClient& client = world.Connect();
    for (uint64_t i = 0; i < 2000; ++i) {
      client.Send(world.OneWay(i, std::string(1000, 'x')));
      if (i % 10 == 0) world.RunFor(1);
      if (i == 0) world.RunFor(kMs);  // connects
    }
    EXPECT_EQ(world.Count(LocalReply::kOverLimit), 0u);
    EXPECT_GT(world.probes, 100u);
    EXPECT_LT(world.probes, 1000u) << "no more than once for an eighth of the bound";
    world.RunFor(10 * kSecond);
    EXPECT_EQ(world.Seen().size(), 2000u);
    client.Reset();
    world.RunFor(10 * kSecond);
    world.ExpectQuiet();
  }
}

TEST(StalledServer, MessagesLongerThanAHostMayOweGoSideBySide) {
  World world;
  SetClusters(world);
  SimClient& one = world.Connect();
  SimClient& two = world.Connect();
  one.Send(world.Request(1, std::string(3 * kHostBytes, 'x')).substr(0, 2 * kLeaseBytes));
  world.RunFor(kMs);
  two.Send(world.Request(2, std::string(3 * kHostBytes, 'x')).substr(0, kLeaseBytes / 2));
  EXPECT_TRUE(two.Take().empty()) << "is not over a limit";
}

TEST(StalledServer, AConnectionThatOwesIsNotGivenToOthersAndIsGivenUpAfterAWhile) {
  for (const SimConfig& config : {SimConfig{}, Exclusive()}) {
    World world(config);
    SetClusters(world);
    SimClient& client = world.Connect();
    for (uint64_t i = 0; i < 20; ++i) client.Send(world.OneWay(i, std::string(1000, 'x')));
    world.RunFor(20 * kSecond);
    EXPECT_EQ(world.lease_count(), 1u) << "neither closed, so that nothing is lost, nor released";
    EXPECT_GT(world.UnreadBytes(), 0u);
    world.RunFor(20 * kSecond);
    EXPECT_EQ(world.lease_count(), 0u);
    EXPECT_EQ(world.UnreadBytes(), 0u);
    world.ExpectQuiet();
  }
}

TEST(StalledServer, AConnectionIsReleasedAsSoonAsItOwesNothing) {
  World world;
  SetClusters(world);
  SimClient& client = world.Connect();
  for (uint64_t i = 0; i < 20; ++i) client.Send(world.OneWay(i, std::string(1000, 'x')));
  world.RunFor(10 * kSecond);
  ASSERT_EQ(world.lease_count(), 1u);
  world.SetServerReading("stalled", true);
  world.RunFor(kMs);
  EXPECT_EQ(world.lease_count(), 0u);
  EXPECT_EQ(world.Open().size(), 1u) << "to the pool, open";
  EXPECT_EQ(world.Seen().size(), 20u);
}

TEST(StalledServer, FewBytesAreNotAskedAbout) {
  World world;
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  for (uint64_t i = 0; i < 50; ++i) client.Send(world.Request(i, std::string(1000, 'x')));
  world.RunFor(kSecond);
  EXPECT_EQ(client.Take().size(), 50u);
  EXPECT_EQ(world.probes, 0u);
}

}  // namespace
}  // namespace metaprotocol::test
