// Configuration and clusters that change while requests are under way.
#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {
namespace {

SimConfig To(const std::string& cluster, SimConfig config = {}) {
  config.routes = {SimRoute{.clusters = {{cluster, 1}}}};
  return config;
}

TEST(ConfigChange, TakesEffectOnTheNextRequestOfARunningSession) {
  World world(To("a"));
  world.SetHosts("a", {"h1"});
  world.SetHosts("b", {"h2"});
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.Publish(To("b"));
  client.Send(world.Request(2));
  world.RunFor(kSecond);
  EXPECT_EQ(Tokens(world.Open("h1").at(0)->requests), (Texts{"1"}));
  EXPECT_EQ(Tokens(world.Open("h2").at(0)->requests), (Texts{"2"}));
  EXPECT_EQ(client.Take().size(), 2u);
}

TEST(ConfigChange, MessageThatHasNotComeToItsEndIsRoutedByTheNewOne) {
  World world(To("a"));
  world.SetHosts("a", {"h1"});
  world.SetHosts("b", {"h2"});
  SimClient& client = world.Connect();
  const std::string request = world.Request(1, "hello");
  client.Send(request.substr(0, 10));
  world.Publish(To("b"));
  client.Send(request.substr(10));
  world.RunFor(kSecond);
  EXPECT_EQ(world.Open("h1").size(), 0u);
  EXPECT_EQ(Kinds(client.Take()), "R");
}

TEST(ConfigChange, ClientsThatSayNothingKeepNoOldConfiguration) {
  World world(To("a"));
  world.SetHosts("a", {"h1"});
  std::vector<SimClient*> silent;
  for (uint64_t i = 0; i < 3; ++i) {
    silent.push_back(&world.Connect());
    silent.back()->Send(world.Request(i));
  }
  SimClient& half = world.Connect();
  const std::string request = world.Request(9, "hello");
  half.Send(request.substr(0, 10));
  world.RunFor(kSecond);
  uint64_t version = 0;
  const std::weak_ptr<const Snapshot> first = world.slot->Current(version);
  const ConfigSlot::Ticket ticket = world.published;
  world.Publish(To("a"));
  world.slot->Withdraw(ticket);
  world.RunFor(3 * kSecond);
  EXPECT_TRUE(first.expired());
  half.Send(request.substr(10));
  silent[1]->Send(world.Request(10));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(half.Take()), "R");
  EXPECT_EQ(Kinds(silent[1]->Take()), "RR");
}

TEST(ConfigChange, MessageThatIsBeingPassedOnStaysWhereItBegan) {
  SimConfig config = To("a");
  config.limits.stream_message_bytes = 1024;
  config.routes[0].response_mutation = {{MutationOp::Kind::kSet, "via", "a"}};
  World world(config);
  world.SetHosts("a", {"h1"});
  world.SetHosts("b", {"h2"});
  SimClient& client = world.Connect();
  const std::string request = world.Request(1, std::string(5000, 'x'));
  client.Send(request.substr(0, 2000));
  world.Publish(To("b"));
  world.RunFor(10 * kSecond);  // unused configurations are freed meanwhile
  client.Send(request.substr(2000) + world.Request(2));
  world.RunFor(kSecond);
  const auto replies = client.Take();
  ASSERT_EQ(replies.size(), 2u);
  EXPECT_EQ(Tokens(world.Open("h1").at(0)->requests), (Texts{"1"}));
  for (const auto& reply : replies) {
    EXPECT_EQ(reply.kv.size(), reply.token == "1" ? 2u : 1u);
  }
}

TEST(ConfigChange, ConfigurationsNobodyUsesAreFreed) {
  World world(To("a"));
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  uint64_t version = 0;
  const std::weak_ptr<const Snapshot> first = world.slot->Current(version);
  const ConfigSlot::Ticket ticket = world.published;
  world.Publish(To("a"));
  world.slot->Withdraw(ticket);
  EXPECT_FALSE(first.expired()) << "its exchange is open";
  world.RunFor(kSecond);
  client.Send(world.Request(2));
  world.RunFor(5 * kSecond);
  EXPECT_TRUE(first.expired());
  EXPECT_EQ(client.Take().size(), 2u);
}

TEST(ConfigChange, LimitsChangeForRunningSessions) {
  SimConfig config = To("a");
  World world(config);
  world.SetHosts("a", {"h1"});
  world.servers["h1"].delay_us = 10 * kMs;
  SimClient& client = world.Connect();
  client.Send(world.Request(1) + world.Request(2));
  EXPECT_FALSE(client.paused);
  config.limits.max_requests_in_flight = 1;
  world.Publish(config);
  client.Send(world.Request(3));
  EXPECT_TRUE(client.paused);
  world.RunFor(kSecond);
  EXPECT_EQ(client.Take().size(), 3u);
}

TEST(ConfigChange, SessionsOfAFormerCodecGoOnAsTheyBegan) {
  SimConfig old_config = To("a");
  World world(old_config);
  world.SetHosts("a", {"h1"});
  world.servers["h1"].delay_us = 10 * kMs;
  SimClient& old_client = world.Connect();
  old_client.Send(world.Request(1));
  world.RunFor(kMs);
  const auto before = world.connections.size();

  SimConfig new_config = To("a");
  new_config.codec_key = "another";
  world.Publish(new_config);
  SimClient& new_client = world.Connect();
  new_client.Send(world.Request(2));
  world.RunFor(kMs);
  EXPECT_EQ(world.connections.size(), before + 1) << "no connection serves two codecs";
  old_client.Send(world.Request(3));
  new_client.Send(world.Request(4));
  world.RunFor(kMs);
  for (auto& connection : world.connections) {
    std::string parity;
    for (const auto& request : connection->requests) {
      parity += std::stoi(request.token) % 2 == 0 ? 'n' : 'o';
    }
    EXPECT_EQ(parity, std::string(parity.size(), parity.at(0)));
  }
  world.RunFor(kSecond);
  EXPECT_EQ(Tokens(old_client.Take()), (Texts{"1", "3"}));
  EXPECT_EQ(Tokens(new_client.Take()), (Texts{"2", "4"}));
  old_client.Reset();
  new_client.Reset();
  world.RunFor(20 * kSecond);
  world.ExpectQuiet();
}

TEST(ConfigChange, ModeOfUpstreamConnectionsChangesForRunningSessions) {
  const std::vector<UpstreamMode> modes = {UpstreamMode::kShared, UpstreamMode::kExclusive,
                                           UpstreamMode::kPerSession};
  for (const UpstreamMode from : modes) {
    for (const UpstreamMode to : modes) {
      if (from == to) continue;
      SimConfig config = To("a");
      config.mode = from;
      World world(config);
      world.policy.max_leases_per_host = 2;
      world.SetHosts("a", {"h1"});
      world.servers["h1"].delay_us = 10 * kMs;
      SimClient& one = world.Connect();
      SimClient& two = world.Connect();
      for (uint64_t i = 0; i < 5; ++i) {
        one.Send(world.Request(10 + i));
        two.Send(world.Request(20 + i));
      }
      world.RunFor(15 * kMs);
      config.mode = to;
      world.Publish(config);
      for (uint64_t i = 5; i < 10; ++i) {
        one.Send(world.Request(10 + i));
        two.Send(world.Request(20 + i));
        world.RunFor(20 * kMs);
      }
      world.RunFor(kSecond);
      const auto first = one.Take();
      const auto second = two.Take();
      EXPECT_EQ(Kinds(first), "RRRRRRRRRR");
      EXPECT_EQ(Kinds(second), "RRRRRRRRRR");
      one.Reset();
      two.Reset();
      world.RunFor(20 * kSecond);
      world.ExpectQuiet();
    }
  }
}

TEST(ConfigChange, RequestsThatWaitForAnExclusiveLeaseOutliveAChangeOfMode) {
  SimConfig config = To("a");
  config.mode = UpstreamMode::kExclusive;
  World world(config);
  world.policy.max_leases_per_host = 1;
  world.SetHosts("a", {"h1"});
  world.servers["h1"].delay_us = 10 * kMs;
  SimClient& client = world.Connect();
  client.Send(world.Request(1) + world.Request(2) + world.Request(3));
  world.RunFor(kMs);
  config.mode = UpstreamMode::kShared;
  world.Publish(config);
  client.Send(world.Request(4) + world.Request(5));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(client.Take()), "RRRRR");
}

TEST(ConfigChange, ClusterOfANewGenerationGetsNewConnections) {
  for (const SimConfig& config : {SimConfig{}, Exclusive(), PerSession()}) {
    World world(config);
    world.SetHosts("a", {"h1"}, 1);
    world.servers["h1"].delay_us = 10 * kMs;
    SimClient& client = world.Connect();
    client.Send(world.Request(1));
    world.RunFor(kMs);
    world.SetHosts("a", {"h1"}, 2);
    client.Send(world.Request(2));
    world.RunFor(kSecond);
    EXPECT_EQ(client.Take().size(), 2u);
    ASSERT_EQ(world.connections.size(), 2u);
    EXPECT_EQ(world.connections[0]->lease, 0u) << "drained";
  }
}

TEST(ConfigChange, RemovedClusterFinishesItsRequestsAndTakesNoMore) {
  for (const SimConfig& config : {SimConfig{}, Exclusive(), PerSession()}) {
    World world(config);
    world.SetHosts("a", {"h1"}, 7);
    world.servers["h1"].delay_us = 10 * kMs;
    SimClient& client = world.Connect();
    client.Send(world.Request(1));
    world.RunFor(kMs);
    world.WithEngine([](Engine& engine) { engine.RemoveCluster("a", 6); });
    client.Send(world.OneWay(9));
    world.RunFor(kMs);
    EXPECT_EQ(world.Seen().size(), 2u) << "another generation's removal is ignored";
    world.WithEngine([](Engine& engine) { engine.RemoveCluster("a", 7); });
    client.Send(world.Request(2));
    auto replies = client.Take();
    ASSERT_EQ(Kinds(replies), config.codec->traits().ordered_replies ? "" : "E");
    world.RunFor(kSecond);
    for (auto& reply : client.Take()) replies.push_back(reply);
    ASSERT_EQ(replies.size(), 2u);
    for (const auto& reply : replies) {
      EXPECT_EQ(reply.body, reply.token == "2" ? "cluster_not_found" : "");
    }
    world.SetHosts("a", {"h1"}, 8);
    client.Send(world.Request(3));
    world.RunFor(kSecond);
    EXPECT_EQ(Kinds(client.Take()), "R");
    client.Reset();
    world.RunFor(20 * kSecond);
    world.ExpectQuiet();
  }
}

TEST(ConfigChange, RequestsThatWaitInARemovedClusterAreAnswered) {
  World world(Exclusive());
  world.policy.max_leases_per_host = 1;
  world.SetHosts("a", {"h1"});
  world.servers["h1"].delay_us = 10 * kMs;
  for (int i = 0; i < 3; ++i) world.Connect().Send(world.Request(1));
  world.RunFor(kMs);
  world.WithEngine([](Engine& engine) { engine.RemoveCluster("a", 1); });
  world.RunFor(kSecond);
  for (auto& client : world.clients) EXPECT_EQ(client->Take().size(), 1u);
}

TEST(ConfigChange, UnknownClusterIsAnError) {
  World world;
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  const auto replies = client.Take();
  ASSERT_EQ(Kinds(replies), "E");
  EXPECT_EQ(replies[0].body, "cluster_not_found");
  // It works as soon as there is one.
  world.SetHosts("a", {"h1"});
  client.Send(world.Request(2));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(client.Take()), "R");
}

TEST(ConfigChange, PolicyOfAClusterChangesInPlace) {
  World world;
  world.SetHosts("a", {"h1"});
  world.servers["h1"].mode = SimServer::Mode::kSilent;
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.policy.max_requests_in_flight = 1;
  world.SetHosts("a", {"h1"});
  client.Send(world.Request(2));
  EXPECT_EQ(Ids(client.Take()), (std::vector<uint64_t>{2}));
}

// Clusters a and b with those weights; `other` is what else there is to change.
SimConfig Weighted(uint32_t a, uint32_t b, int other) {
  SimConfig config;
  config.routes = {SimRoute{.match = {Exact("k", std::to_string(other))}},
                   SimRoute{.clusters = {{"a", a}, {"b", b}}}};
  return config;
}

TEST(ConfigChange, WeightedRoutesGoOnWithTheirTurns) {
  for (const int between : {1, 2, 4, 5, 9}) {  // requests from one change to the next
    World world(Weighted(9, 1, 0));
    world.SetHosts("a", {"h1"});
    world.SetHosts("b", {"h2"});
    SimClient& client = world.Connect();
    int sent = 0;
    for (int change = 1; sent < 1000; ++change) {
      for (int i = 0; i < between; ++i) client.Send(world.Request(static_cast<uint64_t>(++sent)));
      world.RunFor(kMs);
      world.Publish(Weighted(9, 1, change));
    }
    EXPECT_NEAR(static_cast<double>(world.Count(Counter::kRequests, "b", "main/1")), sent / 10, 1)
        << between << " requests between changes";
  }
}

TEST(ConfigChange, WeightsBeginAnywhere) {
  int small = 0;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    World world(BuildSnapshot(Weighted(9, 1, 0)), seed);
    world.SetHosts("a", {"h1"});
    world.SetHosts("b", {"h2"});
    world.Connect().Send(world.Request(1));
    world.RunFor(kMs);
    small += static_cast<int>(world.Count(Counter::kRequests, "b", "main/1"));
  }
  EXPECT_GT(small, 5);
  EXPECT_LT(small, 60);
}

TEST(ConfigChange, WithoutConfigurationConnectionsAreRefused) {
  World world;
  world.slot = std::make_shared<ConfigSlot>();
  EXPECT_TRUE(world.Connect().refused);
}

}  // namespace
}  // namespace metaprotocol::test
