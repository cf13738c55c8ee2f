// Clients, servers and time that end in the middle of a large message.
#include "tests/cpp/engine/large_messages.h"

namespace metaprotocol::test {
namespace {

TEST(Streaming, ClientThatDiesInTheMiddleHarmsNobodyElse) {
  for (const SimConfig& config : {SimConfig{}, Exclusive(), PerSession()}) {
    World world(Streaming(config));
    world.SetHosts("a", {"h1"});
    SimClient& dies = world.Connect();
    SimClient& stays = world.Connect();
    dies.Send(world.Request(1, Body(5000)).substr(0, 2000));
    stays.Send(world.Request(2));
    world.RunFor(10 * kMs);
    dies.Reset();
    world.RunFor(kMs);
    stays.Send(world.Request(3));
    world.RunFor(kSecond);
    EXPECT_EQ(stays.Take().size(), 2u);
    // What it had begun on is not used any more.
    EXPECT_EQ(world.Count(Counter::kLeasesReset), 1u);
    stays.Reset();
    world.RunFor(10 * kSecond);
    world.ExpectQuiet();
  }
}

TEST(Streaming, ClientThatHalfClosesInTheMiddleIsClosed) {
  World world(Streaming());
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  client.Send(world.Request(1, Body(5000)).substr(0, 2000));
  world.RunFor(10 * kMs);
  client.Finish();
  EXPECT_EQ(client.closed, CloseMode::kAbort);
  world.RunFor(10 * kSecond);
  world.ExpectQuiet();
}

TEST(Streaming, ServerThatDiesWhileItIsSentARequestFailsItAndTheRestIsThrownAway) {
  for (const SimConfig& config : {SimConfig{}, Pipelined(), Exclusive(), PerSession()}) {
    World world(Streaming(config));
    world.SetHosts("a", {"h1"});
    SimClient& client = world.Connect();
    const std::string request = world.Request(1, Body(5000));
    client.Send(request.substr(0, 2000));
    world.RunFor(10 * kMs);
    world.connections.at(0)->Close();
    EXPECT_EQ(Kinds(client.Take()), "E");
    client.Send(request.substr(2000) + world.Request(2));
    world.RunFor(kSecond);
    EXPECT_EQ(Tokens(client.Take()), (Texts{"2"}));
    EXPECT_EQ(Tokens(world.Seen()), (Texts{"2"}));
  }
}

TEST(Streaming, ServerThatDiesInTheMiddleOfAReplyEndsTheConnectionOfItsClientOnly) {
  World world(Streaming());
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& hit = world.Connect();
  SimClient& other = world.Connect();
  hit.Send(world.Request(1));
  other.Send(world.Request(2));
  world.RunFor(kMs);
  const auto seen = world.Seen();
  ASSERT_EQ(seen.size(), 2u);
  const WireMessage& first = seen[seen[0].token == "1" ? 0 : 1];
  world.connections[0]->Send(
      world.wire().Make('R', first.id, first.token, Body(5000)).substr(0, 3000));
  world.connections[0]->Close();
  EXPECT_EQ(hit.closed, CloseMode::kAbort) << "half a reply is out";
  const auto replies = other.Take();
  ASSERT_EQ(Kinds(replies), "E");
  EXPECT_EQ(replies[0].body, "upstream_lost");
  EXPECT_TRUE(other.alive());
}

TEST(Streaming, ReplyThatIsLostBeforeItsTurnIsReplacedByAnError) {
  World world(Streaming(Pipelined()));
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& client = world.Connect();
  client.Send(world.Request(1) + world.Request(2));
  world.RunFor(kMs);
  SimConnection* first = world.connections.at(0).get();
  SimConnection* second = world.connections.at(1).get();
  if (first->requests.at(0).token == "2") std::swap(first, second);
  second->Send(world.wire().Make('R', 0, "2", Body(5000)).substr(0, 3000));
  second->Close();
  first->Reply(first->requests[0]);
  const auto replies = client.Take();
  EXPECT_EQ(Kinds(replies), "RE");
  EXPECT_EQ(Tokens(replies), (Texts{"1", "2"}));
  EXPECT_TRUE(client.alive());
  EXPECT_EQ(world.Count(Counter::kResponsesOk), 1u);
}

TEST(Streaming, TimeoutInTheMiddleOfARequestAnswersItAndThrowsTheRestAway) {
  for (const SimConfig& base : {SimConfig{}, Pipelined(), Exclusive(), PerSession()}) {
    SimConfig config = Streaming(base);
    config.routes = {SimRoute{.timeout_us = 100 * kMs}};
    World world(config);
    world.SetHosts("a", {"h1"});
    SimClient& client = world.Connect();
    const std::string request = world.Request(1, Body(5000));
    client.Send(request.substr(0, 2000));
    world.RunFor(200 * kMs);
    EXPECT_EQ(Kinds(client.Take()), "E");
    client.Send(request.substr(2000) + world.Request(2));
    world.RunFor(90 * kMs);
    EXPECT_EQ(Tokens(client.Take()), (Texts{"2"}));
    EXPECT_EQ(Tokens(world.Seen()), (Texts{"2"}));
  }
}

TEST(Streaming, TimeoutInTheMiddleOfAReplyEndsTheConnection) {
  SimConfig config = Streaming();
  config.routes = {SimRoute{.timeout_us = 100 * kMs}};
  World world(config);
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kMs);
  const std::string reply = world.wire().Make('R', world.Seen()[0].id, "1", Body(5000));
  world.connections[0]->Send(reply.substr(0, 3000));
  world.RunFor(200 * kMs);
  EXPECT_EQ(client.closed, CloseMode::kAbort);
  // The rest of the reply is skipped, and the connection is as good as before.
  world.connections[0]->Send(reply.substr(3000));
  SimClient& next = world.Connect();
  next.Send(world.Request(2));
  world.RunFor(kMs);
  ASSERT_EQ(world.connections.size(), 1u);
  world.connections[0]->Reply(world.connections[0]->requests.at(1));
  EXPECT_EQ(Tokens(next.Take()), (Texts{"2"}));
}

TEST(Streaming, ReplyBeforeTheRequestsEndIsDeliveredAndTheConnectionNotUsedAgain) {
  for (const SimConfig& base : {SimConfig{}, Pipelined(), Exclusive(), PerSession()}) {
    SimConfig config = Streaming(base);
    config.limits.max_requests_in_flight = 1;
    World world(config);
    world.SetHosts("a", {"h1"});
    Manual(world, "h1");
    SimClient& client = world.Connect();
    const std::string request = world.Request(1, Body(5000));
    client.Send(request.substr(0, 2000));
    world.RunFor(kMs);
    SimConnection& early = *world.connections.at(0);
    Bytes head = early.received;
    const uint64_t id = world.wire().has_ids() ? LoadBe64(head.data() + 5) : 0;
    early.Send(world.wire().Make('R', id, "1"));
    EXPECT_EQ(Tokens(client.Take()), (Texts{"1"}));
    client.Send(request.substr(2000) + world.Request(2));
    world.RunFor(kMs);
    EXPECT_FALSE(early.open);
    ASSERT_EQ(world.connections.size(), 2u);
    world.connections[1]->Reply(world.connections[1]->requests.at(0));
    EXPECT_EQ(Tokens(client.Take()), (Texts{"2"}));
  }
}

TEST(Streaming, EarlyReplyOrLossBehindAnUnansweredRequestOfAPipelinedProtocol) {
  for (const bool reply : {true, false}) {
    World world(Streaming(Pipelined()));
    world.SetHosts("a", {"h1"});
    Manual(world, "h1");
    SimClient& client = world.Connect();
    client.Send(world.Request(1));
    const std::string second = world.Request(2, Body(5000));
    client.Send(second.substr(0, 2000));
    world.RunFor(kMs);
    ASSERT_EQ(world.connections.size(), 2u);
    SimConnection* first_connection = world.connections[0].get();
    SimConnection* second_connection = world.connections[1].get();
    if (first_connection->requests.empty()) std::swap(first_connection, second_connection);
    if (reply) {
      second_connection->Send(world.wire().Make('R', 0, "2"));
    } else {
      second_connection->Close();
    }
    client.Send(second.substr(2000, 1000));
    client.Send(second.substr(3000));
    world.RunFor(kMs);
    first_connection->Reply(first_connection->requests.at(0));
    EXPECT_EQ(Tokens(client.Take()), (Texts{"1", "2"}));
  }
}

}  // namespace
}  // namespace metaprotocol::test
