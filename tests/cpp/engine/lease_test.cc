// Leases: how requests share upstream connections, and how these come and go.
#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {
namespace {

TEST(Lease, IsSharedByTheRequestsOfManyClients) {
  World world;
  world.SetHosts("a", {"h1"});
  for (uint64_t i = 0; i < 20; ++i) world.Connect().Send(world.Request(1));
  world.RunFor(10 * kMs);
  EXPECT_EQ(world.connections.size(), 1u);
  for (auto& client : world.clients) EXPECT_EQ(client->Take().size(), 1u);
}

TEST(Lease, MoreAreOpenedAsLoadGrowsUpToTheBound) {
  World world;
  world.policy.exchanges_per_shared_lease = 4;
  world.policy.max_shared_leases_per_host = 3;
  world.SetHosts("a", {"h1"});
  world.servers["h1"].mode = SimServer::Mode::kSilent;
  SimClient& client = world.Connect();
  for (uint64_t i = 1; i <= 4; ++i) client.Send(world.Request(i));
  world.RunFor(kMs);
  EXPECT_EQ(world.connections.size(), 1u);
  client.Send(world.Request(5));
  world.RunFor(kMs);
  EXPECT_EQ(world.connections.size(), 2u);
  for (uint64_t i = 6; i <= 40; ++i) client.Send(world.Request(i));
  world.RunFor(kMs);
  ASSERT_EQ(world.connections.size(), 3u);
  // Over the soft bound the load is spread evenly.
  for (auto& connection : world.connections) {
    EXPECT_NEAR(static_cast<double>(connection->requests.size()), 40.0 / 3, 1.0);
  }
}

TEST(Lease, FewRequestsStayTogetherAndSurplusLeasesGo) {
  World world;
  world.policy.exchanges_per_shared_lease = 16;
  world.policy.lease_idle_timeout_us = 5 * kSecond;
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& client = world.Connect();
  for (uint64_t id = 1; id <= 40; ++id) client.Send(world.Request(id));
  world.RunFor(kMs);
  ASSERT_EQ(world.connections.size(), 3u);
  for (auto& connection : world.connections) {
    for (const WireMessage& request : connection->requests) {
      connection->Send(world.wire().Make('R', request.id, "x"));
    }
    connection->requests.clear();
  }
  world.RunFor(kMs);
  EXPECT_EQ(client.Take().size(), 40u);

  // From now on three at a time, without a pause.
  for (int i = 0; i < 10; ++i) {
    for (uint64_t id = 1; id <= 3; ++id) client.Send(world.Request(id));
    world.RunFor(kSecond);
    EXPECT_EQ(world.connections[0]->requests.size(), 3u);
    for (const WireMessage& request : world.connections[0]->requests) {
      world.connections[0]->Send(world.wire().Make('R', request.id, "x"));
    }
    world.connections[0]->requests.clear();
  }
  world.RunFor(kMs);
  EXPECT_EQ(client.Take().size(), 30u);
  EXPECT_TRUE(world.connections[0]->open);
  EXPECT_EQ(world.Count(Counter::kLeasesReleased), 2u);
}

TEST(Lease, ExclusiveOnesCarryOneRequestAtATimeAndAreReused) {
  World world(Exclusive());
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  for (int i = 0; i < 10; ++i) {
    client.Send(world.Request(1));
    world.RunFor(10 * kMs);
  }
  EXPECT_EQ(world.connections.size(), 1u);
  EXPECT_EQ(client.Take().size(), 10u);
  for (int i = 0; i < 3; ++i) world.Connect().Send(world.Request(1));
  world.RunFor(10 * kMs);
  EXPECT_EQ(world.connections.size(), 3u);
}

TEST(Lease, RequestsWaitInOrderForAnExclusiveOne) {
  World world(Exclusive());
  world.policy.max_leases_per_host = 1;
  world.SetHosts("a", {"h1"});
  SimClient& one = world.Connect();
  SimClient& two = world.Connect();
  one.Send(world.Request(1));
  two.Send(world.Request(2));
  one.Send(world.Request(3));
  world.RunFor(10 * kMs);
  EXPECT_EQ(Tokens(world.Seen()), (Texts{"1", "2", "3"}));
  EXPECT_EQ(world.connections.size(), 1u);
  EXPECT_EQ(Tokens(one.Take()), (Texts{"1", "3"}));
  EXPECT_EQ(Tokens(two.Take()), (Texts{"2"}));
}

TEST(Lease, RequestThatWaitsForOneMayTimeOutOrLeave) {
  SimConfig config = Exclusive();
  config.routes = {SimRoute{.timeout_us = 50 * kMs}};
  World world(config);
  world.policy.max_leases_per_host = 1;
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& holds = world.Connect();
  SimClient& waits = world.Connect();
  SimClient& leaves = world.Connect();
  holds.Send(world.Request(1));
  world.RunFor(10 * kMs);
  waits.Send(world.Request(2));
  leaves.Send(world.Request(3));
  leaves.Reset();
  world.RunFor(30 * kMs);
  world.connections[0]->Reply(world.Seen().at(0));
  world.RunFor(kMs);
  EXPECT_EQ(Tokens(world.Seen()), (Texts{"1", "2"}));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(waits.Take()), "E");
  EXPECT_EQ(world.Count(LocalReply::kTimeout), 1u);
}

TEST(Lease, PerSessionOnesBelongToOneClientAndEndWithIt) {
  World world(PerSession());
  world.SetHosts("a", {"h1", "h2"});
  SimClient& one = world.Connect();
  SimClient& two = world.Connect();
  for (int i = 0; i < 5; ++i) {
    one.Send(world.Request(1));
    two.Send(world.Request(2));
    world.RunFor(10 * kMs);
  }
  ASSERT_EQ(world.connections.size(), 2u);
  for (auto& connection : world.connections) {
    ASSERT_EQ(connection->requests.size(), 5u);
    for (const auto& request : connection->requests) {
      EXPECT_EQ(request.token, connection->requests[0].token);
    }
  }
  world.RunFor(60 * kSecond);
  EXPECT_EQ(world.lease_count(), 2u) << "idle, but the client is still there";
  one.Reset();
  world.RunFor(10 * kSecond);
  EXPECT_EQ(world.lease_count(), 1u);
  EXPECT_EQ(world.Open().size(), 1u) << "its memory of the client goes with it";
}

TEST(Lease, PerSessionOnesOfStatelessProtocolsGoBackToThePool) {
  SimConfig config;
  config.mode = UpstreamMode::kPerSession;
  World world(config);
  world.SetHosts("a", {"h1"});
  SimClient& one = world.Connect();
  one.Send(world.Request(1));
  world.RunFor(10 * kMs);
  one.Reset();
  world.RunFor(10 * kSecond);
  EXPECT_EQ(world.Count(Counter::kLeasesReleased), 1u);
  world.Connect().Send(world.Request(2));
  world.RunFor(10 * kMs);
  EXPECT_EQ(world.connections.size(), 1u);
}

TEST(Lease, IdleOnesGoBackToThePoolAfterTheTimeout) {
  for (const SimConfig& config : {SimConfig{}, Exclusive()}) {
    World world(config);
    world.policy.lease_idle_timeout_us = 3 * kSecond;
    world.SetHosts("a", {"h1"});
    SimClient& client = world.Connect();
    client.Send(world.Request(1));
    world.RunFor(kSecond);
    client.Send(world.Request(2));  // the timeout begins anew
    world.RunFor(2900 * kMs);
    EXPECT_EQ(world.lease_count(), 1u);
    world.RunFor(200 * kMs);
    EXPECT_EQ(world.lease_count(), 0u);
    EXPECT_EQ(world.Count(Counter::kLeasesReleased), 1u);
    EXPECT_EQ(world.Open().size(), 1u) << "given back open";
    client.Send(world.Request(3));
    world.RunFor(kSecond);
    EXPECT_EQ(client.Take().size(), 3u);
    EXPECT_EQ(world.connections.size(), 1u);
  }
}

TEST(Lease, OneWithRequestsIsNeverIdle) {
  World world;
  world.SetHosts("a", {"h1"});
  world.servers["h1"].delay_us = 60 * kSecond;
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(61 * kSecond);
  EXPECT_EQ(Kinds(client.Take()), "R");
}

TEST(Lease, HostThatLeavesGetsNoNewRequestAndItsLeasesDrain) {
  for (const SimConfig& config : {SimConfig{}, Exclusive(), PerSession()}) {
    World world(config);
    world.SetHosts("a", {"h1"});
    world.servers["h1"].delay_us = 100 * kMs;
    SimClient& client = world.Connect();
    client.Send(world.Request(1));
    world.RunFor(10 * kMs);
    world.SetHosts("a", {"h2"});
    client.Send(world.Request(2));
    world.RunFor(kSecond);
    EXPECT_EQ(client.Take().size(), 2u);
    for (auto& connection : world.connections) {
      EXPECT_EQ(connection->requests.size(), 1u);
    }
    EXPECT_EQ(world.connections.size(), 2u);
    client.Reset();
    world.RunFor(10 * kSecond);
    world.ExpectQuiet();
    EXPECT_EQ(world.Dump().find("\"h1\""), std::string::npos) << "forgotten";
  }
}

TEST(Lease, HostThatTurnsUnhealthyGetsNoNewRequestAndItsLeasesDrain) {
  for (const SimConfig& config : {SimConfig{}, Exclusive(), PerSession()}) {
    World world(config);
    world.policy.balance.panic_threshold_percent = 0;
    std::vector<HostInfo> hosts(2);
    hosts[0].address = "h1";
    hosts[1].address = "h2";
    hosts[1].health = HostHealth::kUnhealthy;
    world.SetCluster("a", hosts);
    world.servers["h1"].delay_us = 100 * kMs;
    SimClient& client = world.Connect();
    client.Send(world.Request(1));
    world.RunFor(10 * kMs);
    std::swap(hosts[0].health, hosts[1].health);
    world.SetCluster("a", hosts);
    client.Send(world.Request(2));
    world.RunFor(kSecond);
    EXPECT_EQ(client.Take().size(), 2u);
    ASSERT_EQ(world.connections.size(), 2u);
    EXPECT_EQ(world.connections[0]->requests.size(), 1u);
    EXPECT_EQ(world.connections[0]->lease, 0u);
  }
}

TEST(Lease, RequestsThatWaitForAHostThatLeavesGoToAnother) {
  World world(Exclusive());
  world.policy.max_leases_per_host = 1;
  world.SetHosts("a", {"h1"});
  world.servers["h1"].delay_us = 100 * kMs;
  SimClient& client = world.Connect();
  for (uint64_t i = 1; i <= 3; ++i) world.Connect().Send(world.Request(i));
  client.Send(world.OneWay(4));
  world.RunFor(10 * kMs);
  world.SetHosts("a", {"h2"});
  world.RunFor(kSecond);
  std::string kinds;
  for (auto& each : world.clients) kinds += Kinds(each->Take());
  EXPECT_EQ(kinds, "RRR");
  EXPECT_EQ(world.connections[0]->requests.size(), 1u);
  EXPECT_EQ(world.Seen().size(), 4u);
}

TEST(Lease, HostThatComesBackIsUsedAgain) {
  World world;
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(10 * kMs);
  world.SetHosts("a", {"h2"});
  world.SetHosts("a", {"h1"});
  client.Send(world.Request(2));
  world.RunFor(kSecond);
  EXPECT_EQ(client.Take().size(), 2u);
  EXPECT_EQ(world.Open("h2").size(), 0u);
}

TEST(Lease, ServerThatClosesFailsOnlyTheRequestsOnItAtOnce) {
  SimConfig config;
  config.routes = {SimRoute{.match = {Exact("to", "b")}, .clusters = {{"b", 1}}}, SimRoute{}};
  World world(config);
  world.SetHosts("a", {"h1"});
  world.SetHosts("b", {"h2"});
  Manual(world, "h1");
  Manual(world, "h2");
  SimClient& client = world.Connect();
  client.Send(world.Request(1) + world.Request(2) + world.Request(3, {}, {{"to", "b"}}));
  world.RunFor(kMs);
  world.Open("h1").at(0)->Close();
  const auto replies = client.Take();
  ASSERT_EQ(Kinds(replies), "EE");
  EXPECT_EQ(replies[0].body, "upstream_lost");
  EXPECT_EQ(Tokens(replies), (Texts{"1", "2"}));
  world.Open("h2").at(0)->Reply(world.Open("h2").at(0)->requests.at(0));
  EXPECT_EQ(Tokens(client.Take()), (Texts{"3"}));
  EXPECT_EQ(world.Count(Counter::kLeasesLost), 1u);
  EXPECT_TRUE(client.alive());
}

TEST(Lease, EachReasonWhyThereIsNoneHasItsOwnError) {
  const std::vector<std::pair<LeaseCloseReason, std::string>> cases = {
      {LeaseCloseReason::kConnectFailed, "upstream_lost"},
      {LeaseCloseReason::kNoHost, "no_healthy_upstream"},
      {LeaseCloseReason::kNoCluster, "cluster_not_found"},
      {LeaseCloseReason::kOverflow, "over_limit"}};
  for (const auto& [reason, name] : cases) {
    World world;
    world.SetHosts("a", {"h1"});
    world.servers["h1"].connect = SimServer::Connect::kRefuse;
    world.servers["h1"].refusal = reason;
    SimClient& client = world.Connect();
    client.Send(world.Request(1));
    world.RunFor(kSecond);
    const auto replies = client.Take();
    ASSERT_EQ(Kinds(replies), "E");
    EXPECT_EQ(replies[0].body, name);
    EXPECT_EQ(world.Count(Counter::kLeasesFailed), 1u);
  }
}

TEST(Lease, ConnectingTakesNoLongerThanItMay) {
  World world;
  world.policy.connect_timeout_us = 2 * kSecond;
  world.SetHosts("a", {"h1"});
  world.servers["h1"].connect = SimServer::Connect::kNever;
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(1990 * kMs);
  EXPECT_TRUE(client.received.empty());
  world.RunFor(20 * kMs);
  EXPECT_EQ(Kinds(client.Take()), "E");
  EXPECT_EQ(world.lease_count(), 0u);
  client.Reset();
  world.RunFor(10 * kSecond);
  world.ExpectQuiet();
}

TEST(Lease, MalformedReplyEndsTheConnectionItCameOnAndNoOther) {
  for (const SimConfig& config : {SimConfig{}, Exclusive(), PerSession()}) {
    World world(config);
    world.SetHosts("a", {"h1", "h2"});
    world.servers["h1"].malformed = true;
    SimClient& one = world.Connect();
    SimClient& two = world.Connect();
    one.Send(world.Request(1));
    two.Send(world.Request(2));
    world.RunFor(kSecond);
    EXPECT_EQ(Kinds(one.Take()) + Kinds(two.Take()),
              world.Open("h2").at(0)->requests.at(0).token == "2" ? "ER" : "RE");
    EXPECT_EQ(world.Count(Counter::kUpstreamMalformed), 1u);
    EXPECT_TRUE(one.alive());
    EXPECT_TRUE(two.alive());
  }
}

TEST(Lease, ServerThatSaysGoAwayFinishesItsRequestsAndGetsNoMore) {
  for (const SimConfig& config :
       {SimConfig{},
        With({.name = "exclusive_with_ids", .multiplexed = false}, UpstreamMode::kExclusive)}) {
    World world(config);
    world.SetHosts("a", {"h1"});
    Manual(world, "h1");
    SimClient& client = world.Connect();
    client.Send(world.Request(1));
    world.RunFor(kMs);
    world.connections[0]->Send(world.wire().Make('G', 0, ""));
    world.RunFor(kMs);
    client.Send(world.Request(2));
    world.RunFor(kMs);
    ASSERT_EQ(world.connections.size(), 2u);
    world.connections[0]->Reply(world.connections[0]->requests.at(0));
    world.connections[1]->Reply(world.connections[1]->requests.at(0));
    EXPECT_EQ(Tokens(client.Take()), (Texts{"1", "2"}));
    EXPECT_FALSE(world.connections[0]->open) << "not given to the pool";
  }
}

TEST(Lease, ReplyWithSomethingBehindItEndsAnExclusiveConnection) {
  World world(Exclusive());
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kMs);
  SimConnection& connection = *world.connections[0];
  connection.Send(world.wire().Make('R', 0, "1") + std::string("\0\0", 2));
  EXPECT_EQ(Tokens(client.Take()), (Texts{"1"}));
  EXPECT_FALSE(connection.open);
}

TEST(Lease, ClientThatLeavesDoesNotDisturbASharedConnection) {
  World world;
  world.SetHosts("a", {"h1"});
  for (int i = 0; i < 50; ++i) {
    SimClient& gone = world.Connect();
    gone.Send(world.Request(1));
    SimClient& stays = world.Connect();
    stays.Send(world.Request(2));
    world.RunFor(60);
    gone.Reset();
    world.RunFor(kMs);
    EXPECT_EQ(Tokens(stays.Take()), (Texts{"2"}));
  }
  EXPECT_EQ(world.connections.size(), 1u);
}

TEST(Lease, ServerThatClosesIdleConnectionsDoesSoOnlyOnceToOneOnLoan) {
  for (const SimConfig& config : {SimConfig{}, Exclusive()}) {
    World world(config);
    world.policy.lease_idle_timeout_us = kSecond;
    world.SetHosts("a", {"h1"});
    SimClient& client = world.Connect();
    for (uint64_t i = 0; i < 10; ++i) {
      client.Send(world.Request(i));
      world.RunFor(kMs);
      // The server closes what has been idle for 300 ms; what is in the pool is nobody's concern.
      world.RunFor(300 * kMs);
      for (SimConnection* connection : world.Open()) connection->Close();
      world.RunFor(kSecond);
    }
    EXPECT_EQ(client.Take().size(), 10u);
    EXPECT_EQ(world.Count(Counter::kLeasesLost), 1u);
    EXPECT_EQ(world.Count(Counter::kLeasesReleased), 9u);
  }
}

}  // namespace
}  // namespace metaprotocol::test
