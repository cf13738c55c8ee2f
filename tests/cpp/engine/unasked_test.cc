// Messages that no request and no reply is waiting for: heartbeats, replies that come late, twice
// or for somebody else, and what a side may not send. They cost no exchange its own reply.
#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {
namespace {

TEST(Exchange, HeartbeatsOfClientsAreAnsweredLocally) {
  World world;
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  client.Send(world.wire().Make('H', 77, ""));
  const auto replies = client.Take();
  ASSERT_EQ(Kinds(replies), "h");
  EXPECT_EQ(replies[0].id, 77u);
  world.RunFor(kSecond);
  EXPECT_TRUE(world.connections.empty());
  EXPECT_EQ(world.Count(Counter::kDownstreamHeartbeats), 1u);
}

TEST(Exchange, HeartbeatsOfServersAreAnsweredLocally) {
  World world;
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kMs);
  world.connections[0]->Send(world.wire().Make('H', 99, ""));
  world.RunFor(kMs);
  const auto seen = world.Seen();
  ASSERT_EQ(Kinds(seen), "Qh");
  EXPECT_EQ(seen[1].id, 99u);
  EXPECT_TRUE(client.received.empty());
  EXPECT_EQ(world.Count(Counter::kUpstreamHeartbeats), 1u);
}

TEST(Exchange, AnswersToHeartbeatsNobodySentGoNowhere) {
  World world;
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& client = world.Connect();
  client.Send(world.wire().Make('h', 1, "") + world.Request(1));
  world.RunFor(kMs);
  world.connections[0]->Send(world.wire().Make('h', 1, ""));
  world.RunFor(kMs);
  EXPECT_EQ(Kinds(world.Seen()), "Q");
  EXPECT_TRUE(client.received.empty());
}

TEST(Exchange, UnsolicitedMessagesFromServersAreDroppedAndCounted) {
  World world;
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kMs);
  world.connections[0]->Send(world.wire().Make('R', 4242, "x") + world.wire().Make('R', 0, "x"));
  EXPECT_TRUE(client.received.empty());
  EXPECT_EQ(world.Count(Counter::kUnsolicited), 2u);
  world.connections[0]->Send(world.wire().Make('?', 1, "x"));
  EXPECT_EQ(world.Count(Counter::kDropped), 1u);
  world.connections[0]->Reply(world.Seen()[0]);
  EXPECT_EQ(Tokens(client.Take()), (Texts{"1"}));
}

TEST(Exchange, SecondReplyIsDroppedAsLate) {
  World world;
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kMs);
  world.connections[0]->Reply(world.Seen()[0]);
  world.connections[0]->Reply(world.Seen()[0]);
  EXPECT_EQ(Tokens(client.Take()), (Texts{"1"}));
  EXPECT_EQ(world.Count(Counter::kLateReplies), 1u);
}

TEST(Exchange, UnsolicitedReplyOnAnIdleExclusiveConnectionEndsIt) {
  World world(Exclusive());
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kMs);
  world.connections[0]->Reply(world.Seen()[0]);
  world.RunFor(kMs);
  world.connections[0]->Send(world.wire().Make('R', 0, "nobody's"));
  EXPECT_FALSE(world.connections[0]->open);
  client.Send(world.Request(2));
  world.RunFor(kMs);
  ASSERT_EQ(world.connections.size(), 2u);
  world.connections[1]->Reply(world.connections[1]->requests.at(0));
  EXPECT_EQ(Tokens(client.Take()), (Texts{"1", "2"}));
}

SimConfig ExclusiveWithIds() { return With(FakePipelinedWithIds(), UpstreamMode::kExclusive); }

TEST(Exchange, ReplyToSomebodyElseOnAnExclusiveConnectionLeavesTheRequestItsOwn) {
  World world(ExclusiveWithIds());
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kMs);
  const WireMessage asked = world.Seen()[0];
  world.connections[0]->Send(world.wire().Make('R', asked.id ^ 1, "nobody's"));
  world.RunFor(500 * kMs);
  EXPECT_TRUE(client.received.empty());
  EXPECT_TRUE(world.connections[0]->open);
  EXPECT_EQ(world.Count(Counter::kUnsolicited), 1u);
  world.connections[0]->Reply(asked);
  EXPECT_EQ(Tokens(client.Take()), (Texts{"1"}));
  world.RunFor(kMs);
  EXPECT_FALSE(world.connections[0]->open) << "nobody else is let onto it";
  client.Send(world.Request(2));
  world.RunFor(kMs);
  ASSERT_EQ(world.connections.size(), 2u);
  world.connections[1]->Reply(world.connections[1]->requests.at(0));
  EXPECT_EQ(Tokens(client.Take()), (Texts{"2"}));
  world.RunFor(10 * kSecond);
  world.ExpectQuiet();
}

TEST(Exchange, RightReplyHasToComeSoonAfterAWrongOne) {
  World world(ExclusiveWithIds());
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kMs);
  world.connections[0]->Send(world.wire().Make('R', world.Seen()[0].id ^ 1, "x"));
  world.RunFor(2 * kSecond);
  const auto replies = client.Take();
  ASSERT_EQ(Kinds(replies), "E");
  EXPECT_EQ(replies[0].body, "upstream_lost");
  EXPECT_FALSE(world.connections[0]->open);
  world.ExpectQuiet();
}

TEST(Exchange, ServerMayNotTryManyIdsOnAnExclusiveConnection) {
  World world(ExclusiveWithIds());
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kMs);
  const uint64_t id = world.Seen()[0].id;
  for (uint64_t i = 1; i <= 8; ++i) {
    world.connections[0]->Send(world.wire().Make('R', id ^ i, "x"));
    EXPECT_TRUE(world.connections[0]->open) << i;
  }
  world.connections[0]->Send(world.wire().Make('R', id ^ 9, "x"));
  EXPECT_EQ(Kinds(client.Take()), "E");
  EXPECT_FALSE(world.connections[0]->open);
}

TEST(Exchange, AnswersToMessagesWithoutReplyHarmNobodyOnAnExclusiveConnection) {
  World world(ExclusiveWithIds());
  world.policy.max_leases_per_host = 1;  // else the victim gets another connection
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& liar = world.Connect();
  SimClient& victim = world.Connect();
  for (int i = 0; i < 20; ++i) {
    liar.Send(world.OneWay(1));
    world.RunFor(kMs);
  }
  victim.Send(world.Request(2));
  world.RunFor(kMs);
  ASSERT_EQ(world.connections.size(), 1u);
  const auto seen = world.Seen();
  ASSERT_EQ(Kinds(seen), std::string(20, 'O') + "Q");
  for (size_t i = 0; i < 20; ++i) {
    world.connections[0]->Send(world.wire().Make('R', seen[i].id, "liar's"));
  }
  world.RunFor(5 * kSecond);
  EXPECT_TRUE(victim.received.empty());
  world.connections[0]->Reply(seen[20]);
  EXPECT_EQ(Tokens(victim.Take()), (Texts{"2"}));
  EXPECT_TRUE(liar.received.empty());
  EXPECT_EQ(world.Count(Counter::kUnsolicited), 20u);
  world.connections[0]->Send(world.wire().Make('R', seen[0].id, "again"));
  victim.Send(world.Request(3));
  world.RunFor(kMs);
  EXPECT_EQ(world.connections.size(), 1u) << "and the connection is still good";
  world.connections[0]->Reply(world.Seen().back());
  EXPECT_EQ(Tokens(victim.Take()), (Texts{"3"}));
}

TEST(Exchange, MalformedRepliesOfAHostAreLoggedOnceASecondAndCountedAlways) {
  World world;
  world.SetHosts("a", {"h1", "h2"});
  Manual(world, "h1");
  Manual(world, "h2");
  const auto garbage_from_both = [&] {
    SimClient& client = world.Connect();
    client.Send(world.Request(1) + world.Request(2));
    world.RunFor(kMs);
    for (const auto& connection : world.connections) {
      if (connection->open) connection->Send(std::string(64, '\xff'));
    }
    world.RunFor(kMs);
  };
  for (int i = 0; i < 10; ++i) garbage_from_both();
  EXPECT_EQ(world.Count(Counter::kUpstreamMalformed), 20u);
  EXPECT_EQ(world.warnings, 2u);
  world.RunFor(kSecond);
  garbage_from_both();
  EXPECT_EQ(world.warnings, 4u);
}

TEST(Exchange, MessagesThatClientsMayNotSendAreDroppedAndCounted) {
  World world;
  SimClient& client = world.Connect();
  client.Send(world.wire().Make('?', 1, "") + world.wire().Make('G', 1, ""));
  EXPECT_EQ(world.Count(Counter::kDropped), 2u);
  EXPECT_TRUE(client.alive());
}

}  // namespace
}  // namespace metaprotocol::test
