// What servers send of themselves: on connections that belong to one client it goes there, and the
// answers back.
#include <cstdint>
#include <string>
#include <vector>

#include "src/session/session_manager.h"
#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {
namespace {

SimConfig AskingClients(UpstreamMode mode = UpstreamMode::kPerSession) {
  FakeOptions options = FakeMultiplexed();
  options.stateful = mode == UpstreamMode::kPerSession;
  options.server_requests = true;
  return With(options, mode);
}

class ServerRequests : public testing::Test {
 protected:
  explicit ServerRequests(const SimConfig& config = AskingClients()) : world(config) {
    world.SetHosts("a", {"h1"});
    Manual(world, "h1");
    for (SimClient* const client : {&one, &two}) {
      client->Send(world.Request(1));
      world.RunFor(kMs);
    }
  }
  // What the servers have read since.
  std::vector<WireMessage> Answers(size_t connection) {
    auto& seen = world.connections[connection]->requests;
    return {seen.begin() + 1, seen.end()};
  }
  void ServerSends(size_t connection, const std::string& bytes) {
    world.connections[connection]->Send(bytes);
    world.RunFor(kMs);
  }

  World world;
  SimClient& one = world.Connect();
  SimClient& two = world.Connect();
};

TEST_F(ServerRequests, GoToTheClientWhoseConnectionTheyComeOn) {
  ServerSends(0, world.wire().Make('O', 7, "for one"));
  ServerSends(1, world.wire().Make('O', 7, "for two"));
  EXPECT_EQ(Tokens(one.Take()), Texts{"for one"});
  EXPECT_EQ(Tokens(two.Take()), Texts{"for two"});
  EXPECT_EQ(world.Count(Counter::kUnsolicited), 0u);
}

TEST_F(ServerRequests, AreAnsweredUnderTheServersIds) {
  ServerSends(0, world.wire().Make('Q', 70, "first") + world.wire().Make('Q', 70, "second"));
  const auto asked = one.Take();
  ASSERT_EQ(Kinds(asked), "QQ");
  EXPECT_NE(asked[0].id, asked[1].id) << "the client can tell them apart";
  one.Send(world.wire().Make('R', asked[1].id, "yes") + world.wire().Make('R', asked[0].id, "no") +
           world.wire().Make('R', asked[0].id, "again") + world.wire().Make('R', 999, "what"));
  world.RunFor(kMs);
  EXPECT_EQ(Tokens(Answers(0)), (Texts{"yes", "no"}));
  EXPECT_EQ(Ids(Answers(0)), (std::vector<uint64_t>{70, 70}));
  EXPECT_TRUE(Answers(1).empty());
  EXPECT_EQ(world.Count(Counter::kDropped), 2u) << "an answer to nothing";
  world.connections[0]->Reply(world.connections[0]->requests[0]);
  world.RunFor(kMs);
  EXPECT_EQ(Kinds(one.Take()), "R") << "its own call goes on meanwhile";
}

TEST_F(ServerRequests, DoNotBreakIntoAReplyThatIsPassedOn) {
  const WireMessage request = world.connections[0]->requests[0];
  const std::string reply = world.wire().Make('R', request.id, "1", std::string(300 << 10, 'x'));
  ServerSends(0, reply.substr(0, 200 << 10));
  ServerSends(0, reply.substr(200 << 10) + world.wire().Make('O', 7, "behind"));
  EXPECT_EQ(Tokens(one.Take()), (Texts{"1", "behind"}));
}

TEST_F(ServerRequests, OfWhichManyAreNotAnsweredAreForgotten) {
  for (size_t i = 0; i < 3 * kMostServerRequests; ++i) {
    ServerSends(0, world.wire().Make('Q', i, "asked"));
  }
  const auto asked = one.Take();
  ASSERT_EQ(asked.size(), 3 * kMostServerRequests);
  for (const WireMessage& request : asked) one.Send(world.wire().Make('R', request.id, "late"));
  world.RunFor(kMs);
  EXPECT_EQ(Answers(0).size(), kMostServerRequests);
  EXPECT_EQ(Answers(0).front().id, 2 * kMostServerRequests);
}

TEST_F(ServerRequests, AreDroppedWhereTheClientDoesNotRead) {
  one.SetReading(false);
  const std::string message = world.wire().Make('O', 7, "more", std::string(64 << 10, 'x'));
  for (int i = 0; i < 100; ++i) ServerSends(0, message);
  EXPECT_GT(world.Count(Counter::kUnsolicited), 50u);
  one.SetReading(true);
  world.RunFor(kMs);
  EXPECT_LT(one.Take().size(), 50u);
  EXPECT_TRUE(one.alive());
}

class ServerRequestsOnSharedConnections : public ServerRequests {
 protected:
  ServerRequestsOnSharedConnections() : ServerRequests(AskingClients(UpstreamMode::kShared)) {}
};

TEST_F(ServerRequestsOnSharedConnections, AreForNobody) {
  ServerSends(0, world.wire().Make('Q', 7, "asked") + world.wire().Make('O', 8, "told"));
  one.Send(world.wire().Make('R', 7, "answer"));
  world.RunFor(kMs);
  EXPECT_TRUE(one.Take().empty());
  EXPECT_EQ(Kinds(world.connections[0]->requests), "QQ") << "what both clients have asked";
  EXPECT_EQ(world.Count(Counter::kUnsolicited), 2u);
}

}  // namespace
}  // namespace metaprotocol::test
