// Mirrors: copies of requests that go to another cluster and never touch the client's exchange.
#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {
namespace {

SimConfig Mirroring(SimConfig config = {}, uint64_t chance = Route::kAlways) {
  for (SimRoute& route : config.routes) route.mirrors = {{"m", chance}};
  return config;
}

// What servers of the cluster have seen.
std::vector<WireMessage> SeenBy(const World& world, std::string_view cluster) {
  std::vector<WireMessage> all;
  for (const auto& connection : world.connections) {
    if (connection->cluster != cluster) continue;
    all.insert(all.end(), connection->requests.begin(), connection->requests.end());
  }
  return all;
}

class MirrorWorld : public World {
 public:
  explicit MirrorWorld(SimConfig config = {}, uint64_t chance = Route::kAlways)
      : World(Mirroring(std::move(config), chance)) {
    SetHosts("a", {"h"});
    SetHosts("m", {"mirror"});
  }
  uint64_t Copies() { return Count(Counter::kMirrorRequests, "m", "main/0"); }
  uint64_t Replies() { return Count(Counter::kMirrorReplies, "m", "main/0"); }
  uint64_t Failures() { return Count(Counter::kMirrorFailures, "m", "main/0"); }
};

TEST(Mirror, CopiesRequestsAndMessagesWithoutReplyAndDropsTheReplies) {
  for (const SimConfig& config : {SimConfig{}, Pipelined(), Exclusive(), PerSession()}) {
    MirrorWorld world(config);
    world.servers["mirror"].reply_body_bytes = 100000;  // comes in pieces
    world.max_piece = 1000;
    SimClient& client = world.Connect();
    client.Send(world.Request(1, "body") + world.OneWay(2) + world.Request(3));
    world.RunFor(5 * kSecond);
    EXPECT_EQ(Tokens(client.Take()), (Texts{"1", "3"}));
    std::multiset<std::string> copied;
    for (const WireMessage& copy : SeenBy(world, "m")) copied.insert(copy.token + copy.body);
    EXPECT_EQ(copied, (std::multiset<std::string>{"1body", "2", "3"}));
    EXPECT_EQ(world.Copies(), 3u);
    EXPECT_EQ(world.Replies(), 2u);
    EXPECT_EQ(world.Failures(), 0u);
    EXPECT_EQ(world.Count(Counter::kRequests, "m"), 0u) << "copies are no requests";
    EXPECT_EQ(world.Count(Counter::kRequests, "a"), 2u);
    client.Reset();
    world.RunFor(20 * kSecond);
    world.ExpectQuiet();
  }
}

TEST(Mirror, GivesTheCopyTheRequestsMutation) {
  SimConfig config;
  config.routes[0].request_mutation = {{MutationOp::Kind::kSet, "lane", "canary"}};
  MirrorWorld world(config);
  world.Connect().Send(world.Request(1));
  world.RunFor(kSecond);
  EXPECT_EQ(SeenBy(world, "m").at(0).kv, SeenBy(world, "a").at(0).kv);
  EXPECT_EQ(SeenBy(world, "m").at(0).kv.back(),
            (std::pair<std::string, std::string>("lane", "canary")));
}

TEST(Mirror, CopiesTheShareThatWasAskedFor) {
  MirrorWorld world({}, Route::kAlways / 4);
  SimClient& client = world.Connect();
  for (uint64_t id = 1; id <= 4000; ++id) {
    client.Send(world.Request(id));
    world.RunFor(kMs);
  }
  EXPECT_EQ(client.Take().size(), 4000u);
  EXPECT_NEAR(static_cast<double>(world.Copies()), 1000, 120);  // four standard deviations
  EXPECT_EQ(world.Copies(), world.Replies());
}

TEST(Mirror, SendsACopyToEachMirror) {
  SimConfig config;
  config.routes[0].mirrors = {
      {"m", Route::kAlways}, {"n", Route::kAlways}, {"gone", Route::kAlways}};
  World world(config);
  for (const char* name : {"a", "m", "n"}) world.SetHosts(name, {std::string("h-") + name});
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(client.Take()), "R");
  EXPECT_EQ(SeenBy(world, "m").size(), 1u);
  EXPECT_EQ(SeenBy(world, "n").size(), 1u);
  EXPECT_EQ(world.Count(Counter::kMirrorReplies), 2u);
  EXPECT_EQ(world.Count(Counter::kMirrorFailures, "gone", "main/0"), 1u);
}

TEST(Mirror, HarmsNobodyWhateverTheMirrorDoes) {
  using Connect = SimServer::Connect;
  for (const SimConfig& config : {SimConfig{}, Pipelined(), PerSession()}) {
    for (int fault = 0; fault < 7; ++fault) {
      SimConfig with_timeout = config;
      with_timeout.default_timeout_us = 500 * kMs;
      MirrorWorld world(with_timeout);
      SimServer& mirror = world.servers["mirror"];
      if (fault == 0) mirror.connect = Connect::kRefuse;
      if (fault == 1) mirror.connect = Connect::kRefuseNow;
      if (fault == 2) mirror.connect = Connect::kNever;
      if (fault == 3) mirror.mode = SimServer::Mode::kSilent;
      if (fault == 4) mirror.malformed = true;
      if (fault == 5) mirror.close_after = 1;
      if (fault == 6)
        mirror.on_message = [](SimConnection& connection, const WireMessage& request) {
          // Dies in the middle of a reply that is passed on as it comes.
          const std::string reply = connection.world_.wire().Make('R', request.id, request.token,
                                                                  std::string(50000, 'x'));
          connection.Send(reply.substr(0, 40000));
          connection.Close();
        };
      SimClient& client = world.Connect();
      client.Send(world.Request(1) + world.Request(2));
      world.RunFor(10 * kSecond);
      EXPECT_EQ(Kinds(client.Take()), "RR") << fault;
      EXPECT_TRUE(client.alive());
      EXPECT_EQ(world.Copies(), 2u) << fault;
      EXPECT_EQ(world.Replies(), 0u) << fault;
      EXPECT_EQ(world.Failures(), 2u) << fault;
      EXPECT_EQ(world.Count(LocalReply::kTimeout) + world.Count(LocalReply::kUpstreamLost), 0u);
      client.Reset();
      world.RunFor(20 * kSecond);
      world.ExpectQuiet();
    }
  }
}

TEST(Mirror, TakesNothingOfTheClientsBounds) {
  SimConfig config;
  config.limits.max_requests_in_flight = 1;
  MirrorWorld world(config);
  world.servers["mirror"].mode = SimServer::Mode::kSilent;
  SimClient& client = world.Connect();
  for (uint64_t id = 1; id <= 3; ++id) {
    client.Send(world.Request(id));
    world.RunFor(10 * kMs);
  }
  EXPECT_EQ(client.Take().size(), 3u);
  EXPECT_EQ(world.Copies(), 3u);
}

TEST(Mirror, KeepsToTheBoundsOfItsOwnCluster) {
  SimConfig config;
  World world(Mirroring(config));
  world.SetHosts("a", {"h"});
  world.policy.max_requests_in_flight = 2;
  world.SetHosts("m", {"mirror"});
  world.servers["mirror"].mode = SimServer::Mode::kSilent;
  SimClient& client = world.Connect();
  for (uint64_t id = 1; id <= 5; ++id) client.Send(world.Request(id));
  world.RunFor(kSecond);
  EXPECT_EQ(client.Take().size(), 5u);
  EXPECT_EQ(SeenBy(world, "m").size(), 2u);
  EXPECT_EQ(world.Count(Counter::kMirrorFailures), 3u);
  EXPECT_EQ(world.Count(LocalReply::kOverLimit), 0u);
}

TEST(Mirror, StaysOffTheSessionsOwnConnection) {
  SimConfig config = PerSession();
  config.routes[0].mirrors = {{"a", Route::kAlways}};
  World world(config);
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  for (uint64_t i = 1; i <= 5; ++i) {
    client.Send(world.Request(i));
    world.RunFor(10 * kMs);
  }
  EXPECT_EQ(Tokens(client.Take()), (Texts{"1", "2", "3", "4", "5"}));
  const auto connections = world.Open("h1");
  ASSERT_EQ(connections.size(), 2u) << "one for the session, one for its copies";
  for (const SimConnection* connection : connections) {
    EXPECT_EQ(Tokens(connection->requests), (Texts{"1", "2", "3", "4", "5"}));
  }
  client.Reset();
  world.RunFor(20 * kSecond);
  world.ExpectQuiet();
}

TEST(Mirror, GivesUpAfterAMinuteWhereNoTimeoutIsSet) {
  MirrorWorld world;
  world.servers["mirror"].mode = SimServer::Mode::kSilent;
  world.Connect().Send(world.Request(1));
  world.RunFor(59 * kSecond);
  EXPECT_EQ(world.Failures(), 0u);
  world.RunFor(2 * kSecond);
  EXPECT_EQ(world.Failures(), 1u);
}

TEST(Mirror, LivesOnWhenTheSessionEnds) {
  for (const SimConfig& config : {SimConfig{}, Pipelined(), PerSession()}) {
    MirrorWorld world(config);
    world.servers["mirror"].delay_us = 100 * kMs;
    SimClient& client = world.Connect();
    client.Send(world.Request(1));
    world.RunFor(50 * kMs);
    client.Reset();
    EXPECT_EQ(world.exchanges(), 0u) << "draining waits for no copy";
    world.RunFor(20 * kSecond);
    EXPECT_EQ(world.Replies(), 1u);
    EXPECT_EQ(world.lease_count(), 0u);
  }
}

TEST(Mirror, IsWithoutARequestThatIsNotForwarded) {
  MirrorWorld world;
  world.SetHosts("a", {});
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(client.Take()), "E");
  EXPECT_EQ(world.Copies(), 0u);
}

TEST(Mirror, LeavesOutRequestsThatArePassedOnAsTheyArrive) {
  SimConfig config;
  config.limits.stream_message_bytes = 1024;
  MirrorWorld world(config);
  SimClient& client = world.Connect();
  const std::string request = world.Request(1, std::string(5000, 'x'));
  client.Send(request.substr(0, 2000));
  client.Send(request.substr(2000));
  client.Send(world.Request(2, std::string(5000, 'x')));  // there at once
  world.RunFor(kSecond);
  EXPECT_EQ(client.Take().size(), 2u);
  EXPECT_EQ(Tokens(SeenBy(world, "m")), (Texts{"2"}));
  EXPECT_EQ(world.Count(Counter::kMirrorSkipped, "m", "main/0"), 1u);
}

TEST(Mirror, FollowsItsClusterAsItComesAndGoes) {
  World world(Mirroring());
  world.SetHosts("a", {"h"});
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kSecond);
  EXPECT_EQ(world.Count(Counter::kMirrorFailures), 1u);
  world.SetHosts("m", {"mirror"});
  client.Send(world.Request(2));
  world.RunFor(kSecond);
  EXPECT_EQ(world.Count(Counter::kMirrorReplies), 1u);
  world.servers["mirror"].mode = SimServer::Mode::kSilent;
  client.Send(world.Request(3));
  world.RunFor(kSecond);
  world.WithEngine([](Engine& engine) { engine.RemoveCluster("m", 1); });
  client.Send(world.Request(4));
  world.RunFor(kSecond);
  EXPECT_EQ(client.Take().size(), 4u);
  EXPECT_EQ(world.Count(Counter::kMirrorFailures), 2u)
      << "the one that waits still may be answered";
}

}  // namespace
}  // namespace metaprotocol::test
