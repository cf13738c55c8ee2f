// Draining: no new requests, replies still delivered, clients told where the protocol can.
#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {
namespace {

constexpr uint64_t kMs = SimWorld::kMs;
constexpr uint64_t kSecond = SimWorld::kSecond;

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

TEST(Drain, OfOneListenerLeavesOthersAlone) {
  World world;
  const auto connect = [&](const std::string& address, uint32_t port) -> SimClient& {
    ConnectionInfo info;
    info.local_address = address;
    info.local_port = port;
    return world.Connect(info);
  };
  SimClient& one = connect("10.0.0.1", 80);
  SimClient& other_port = connect("10.0.0.1", 81);
  SimClient& other_address = connect("10.0.0.2", 80);
  world.WithEngine([](Engine& engine) { engine.DrainListener("10.0.0.1", 80); });
  EXPECT_EQ(Kinds(one.Take()), "G");
  EXPECT_TRUE(other_port.received.empty());
  EXPECT_TRUE(other_address.received.empty());
  EXPECT_FALSE(connect("10.0.0.2", 80).refused);
  world.WithEngine([](Engine& engine) { engine.DrainListener("0.0.0.0", 80); });
  EXPECT_TRUE(other_port.received.empty());
  EXPECT_EQ(Kinds(other_address.Take()), "G");
  world.WithEngine([](Engine& engine) { engine.DrainListener("10.0.0.1", 0); });
  EXPECT_EQ(Kinds(other_port.Take()), "G");
  EXPECT_TRUE(one.Take().empty()) << "told once";
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
