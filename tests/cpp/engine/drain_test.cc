// Draining: no new requests, replies still delivered, clients told where the protocol can.
#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {
namespace {

void Drain(World& world) {
  world.WithEngine([](Engine& engine) { engine.Drain(); });
}

TEST(Drain, TellsClientsToGoAwayAndDeliversTheirReplies) {
  World world;
  world.SetHosts("a", {"h1"});
  world.servers["h1"].delay_us = 3 * kSecond;
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kMs);
  Drain(world);
  EXPECT_EQ(Kinds(client.Take()), "G");
  world.RunFor(2 * kSecond);
  EXPECT_TRUE(client.alive());
  world.RunFor(2 * kSecond);
  EXPECT_EQ(Kinds(client.Take()), "R");
  EXPECT_EQ(client.closed, CloseMode::kFlush);
  world.RunFor(10 * kSecond);
  world.ExpectQuiet();
}

TEST(Drain, AnswersNewRequestsWithAnError) {
  World world;
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  Drain(world);
  world.RunFor(100 * kMs);
  client.Send(world.Request(1) + world.OneWay(2));
  const auto replies = client.Take();
  EXPECT_EQ(Kinds(replies), "GE");
  EXPECT_EQ(replies.at(1).body, "shutting_down");
  EXPECT_TRUE(world.connections.empty());
  EXPECT_EQ(world.Count(LocalReply::kShuttingDown), 2u);
}

TEST(Drain, GivesIdleClientsAMomentToActOnGoAway) {
  World world;
  SimClient& client = world.Connect();
  Drain(world);
  world.RunFor(500 * kMs);
  EXPECT_TRUE(client.alive());
  world.RunFor(600 * kMs);
  EXPECT_EQ(client.closed, CloseMode::kFlush);
}

TEST(Drain, ClosesIdleClientsAtOnceWhereTheProtocolHasNoGoAway) {
  World world(Pipelined());
  world.SetHosts("a", {"h1"});
  world.servers["h1"].delay_us = 100 * kMs;
  SimClient& idle = world.Connect();
  SimClient& busy = world.Connect();
  busy.Send(world.Request(1) + world.Request(2));
  world.RunFor(kMs);
  Drain(world);
  EXPECT_EQ(idle.closed, CloseMode::kFlush);
  EXPECT_TRUE(busy.alive());
  busy.Send(world.Request(3));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(busy.Take()), "RRE") << "in order";
  EXPECT_EQ(busy.closed, CloseMode::kFlush);
}

TEST(Drain, RefusesNewConnections) {
  World world;
  Drain(world);
  EXPECT_TRUE(world.Connect().refused);
}

void DrainOne(World& world, SimClient& client) {
  world.WithEngine([&](Engine& engine) { engine.DrainSession(client.session); });
}

TEST(Drain, OfOneSessionLeavesOthersAlone) {
  World world;
  world.SetHosts("a", {"h1"});
  SimClient& one = world.Connect();
  SimClient& other = world.Connect();
  DrainOne(world, one);
  DrainOne(world, one);
  EXPECT_EQ(Kinds(one.Take()), "G") << "told once";
  EXPECT_TRUE(other.received.empty());
  EXPECT_FALSE(world.Connect().refused);
  world.RunFor(2 * kSecond);
  EXPECT_EQ(one.closed, CloseMode::kFlush);
  other.Send(world.Request(1));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(other.Take()), "R");
}

TEST(Drain, OfOneSessionServesWhatComesNevertheless) {
  World world;
  world.SetHosts("a", {"h1"});
  world.servers["h1"].delay_us = 3 * kSecond;
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kMs);
  DrainOne(world, client);
  client.Send(world.Request(2));
  world.RunFor(2 * kSecond);
  client.Send(world.Request(3));
  world.RunFor(2 * kSecond);
  EXPECT_TRUE(client.alive());
  EXPECT_EQ(Kinds(client.Take()), "GRR");
  world.RunFor(2 * kSecond);
  EXPECT_EQ(Kinds(client.Take()), "R");
  EXPECT_EQ(client.closed, CloseMode::kFlush);
  EXPECT_EQ(world.Count(LocalReply::kShuttingDown), 0u);
  world.RunFor(10 * kSecond);
  world.ExpectQuiet();
}

TEST(Drain, OfOneSessionWaitsForAMessageThatHasBegun) {
  for (const SimConfig& config : {SimConfig{}, Pipelined()}) {
    World world(config);
    world.SetHosts("a", {"h1"});
    SimClient& client = world.Connect();
    const std::string request = world.Request(1) + world.wire().Make('?', 1, "no route for it");
    client.Send(request.substr(0, 7));
    DrainOne(world, client);
    world.RunFor(3 * kSecond);
    EXPECT_TRUE(client.alive());
    client.Send(request.substr(7));
    world.RunFor(kSecond);
    EXPECT_TRUE(Kinds(client.Take()).ends_with("R"));
    EXPECT_EQ(client.closed, CloseMode::kFlush);
  }
}

TEST(Drain, OfOneSessionEndsAfterAMessageThatNobodyAnswers) {
  World world;
  SimClient& client = world.Connect();
  const std::string message = world.wire().Make('?', 1, "dropped");
  client.Send(message.substr(0, 7));
  DrainOne(world, client);
  world.RunFor(3 * kSecond);
  client.Send(message.substr(7));
  EXPECT_EQ(client.closed, CloseMode::kFlush);
}

TEST(Drain, OfOneSessionClosesAtOnceWhereTheProtocolHasNoGoAway) {
  World world(Pipelined());
  world.SetHosts("a", {"h1"});
  SimClient& idle = world.Connect();
  SimClient& busy = world.Connect();
  busy.Send(world.Request(1) + world.Request(2));
  DrainOne(world, idle);
  DrainOne(world, busy);
  EXPECT_EQ(idle.closed, CloseMode::kFlush);
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(busy.Take()), "RR");
  EXPECT_EQ(busy.closed, CloseMode::kFlush);
}

TEST(Drain, DeliversAReplyThatIsBeingPassedOn) {
  SimConfig config;
  config.limits.stream_message_bytes = 1024;
  World world(config);
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kMs);
  const std::string reply = world.wire().Make('R', world.Seen()[0].id, "1", std::string(5000, 'x'));
  world.connections[0]->Send(reply.substr(0, 3000));
  Drain(world);
  world.RunFor(5 * kSecond);
  world.connections[0]->Send(reply.substr(3000));
  EXPECT_EQ(Kinds(client.Take()), "RG");
  EXPECT_EQ(client.closed, CloseMode::kFlush);
}

TEST(Drain, WaitsWithoutWork) {
  World world;
  world.SetHosts("a", {"h1"});
  world.servers["h1"].delay_us = 100 * kSecond;
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kMs);
  Drain(world);
  world.RunFor(5 * kSecond);
  const size_t before = world.ticks;
  world.RunFor(60 * kSecond);
  EXPECT_LT(world.ticks - before, 150u) << "about one a second, for metrics";
}

TEST(Drain, SessionThatIsNotReadIsClosedWhenItsRepliesAreDelivered) {
  SimConfig config;
  config.limits.max_requests_in_flight = 1;
  World world(config);
  world.SetHosts("a", {"h1"});
  world.servers["h1"].delay_us = 2 * kSecond;
  SimClient& client = world.Connect();
  client.Send(world.Request(1) + world.Request(2));
  EXPECT_TRUE(client.paused);
  Drain(world);
  world.RunFor(10 * kSecond);
  std::string kinds = Kinds(client.Take());
  std::sort(kinds.begin(), kinds.end());
  EXPECT_EQ(kinds, "EGR");
  EXPECT_TRUE(client.closed);
  world.RunFor(10 * kSecond);
  world.ExpectQuiet();
}

}  // namespace
}  // namespace metaprotocol::test
