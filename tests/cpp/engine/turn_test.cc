// Turns: a client that sends much at once keeps nobody waiting for long, and loses nothing by it.
#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "src/session/session_manager.h"
#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {
namespace {

// All that happens until time passes is one turn.
class Turns : public testing::Test {
 protected:
  explicit Turns(SimConfig config = {}) : world(std::move(config)) {
    world.turn = 1;
    world.SetHosts("a", {"h1"});
    // The connection is there.
    SimClient& first = world.Connect();
    first.Send(world.Request(1));
    world.RunFor(kMs);
    EXPECT_EQ(Kinds(first.Take()), "R");
    ++world.turn;
  }

  // Messages with these numbers.
  std::string OneWays(uint64_t begin, uint64_t end) const {
    std::string messages;
    for (uint64_t id = begin; id < end; ++id) messages += world.OneWay(id);
    return messages;
  }
  // What servers have seen of those with that number of millions.
  std::vector<uint64_t> SeenOf(uint64_t million) const {
    std::vector<uint64_t> seen;
    for (const std::string& token : Tokens(world.Seen())) {
      const uint64_t number = std::stoull(token);
      if (number / 1'000'000 == million) seen.push_back(number);
    }
    return seen;
  }
  static std::vector<uint64_t> Numbers(uint64_t begin, uint64_t end) {
    std::vector<uint64_t> numbers;
    for (uint64_t number = begin; number < end; ++number) numbers.push_back(number);
    return numbers;
  }
  // Bytes to servers.
  size_t Written() const {
    size_t bytes = 0;
    for (const auto& connection : world.connections) bytes += connection->received.size();
    return bytes;
  }

  World world;
};

TEST_F(Turns, OneEventHandlesABoundedNumberOfMessages) {
  SimClient& client = world.Connect();
  const size_t before = Written();
  const std::string each = world.OneWay(1'000'000);
  client.Send(OneWays(1'000'000, 1'000'000 + 3 * kMessagesPerTurn));
  EXPECT_LE(Written() - before, kMessagesPerTurn * each.size());
  EXPECT_GE(Written() - before, kMessagesPerTurn * each.size() / 2);
  world.RunFor(kMs);
  EXPECT_EQ(SeenOf(1), Numbers(1'000'000, 1'000'000 + 3 * kMessagesPerTurn));
}

TEST_F(Turns, TheBoundIsForAllClientsTogether) {
  const size_t before = Written();
  const std::string each = world.OneWay(1'000'000);
  constexpr uint64_t kEach = 32;  // a part of what a turn has room for
  constexpr uint64_t kClients = 3 * kMessagesPerTurn / kEach;
  for (uint64_t i = 0; i < kClients; ++i) {
    const uint64_t begin = 1'000'000 + i * kEach;
    world.Connect().Send(OneWays(begin, begin + kEach));
  }
  EXPECT_LE(Written() - before, kMessagesPerTurn * each.size());
  world.RunFor(kMs);
  // Those that have come first go on first.
  EXPECT_EQ(SeenOf(1), Numbers(1'000'000, 1'000'000 + kClients * kEach));
}

TEST_F(Turns, AClientThatSendsMuchIsOvertakenByOneThatSendsLittle) {
  SimClient& much = world.Connect();
  SimClient& little = world.Connect();
  much.Send(OneWays(1'000'000, 1'000'000 + 3 * kMessagesPerTurn));
  little.Send(world.Request(2'000'000));
  world.RunFor(kMs);
  EXPECT_EQ(Kinds(little.Take()), "R");
  const Texts seen = Tokens(world.Seen());
  const auto place = std::find(seen.begin(), seen.end(), "2000000") - seen.begin();
  EXPECT_LE(static_cast<size_t>(place), 2 * kMessagesPerTurn + 2);
  EXPECT_EQ(SeenOf(1).size(), 3 * kMessagesPerTurn);
}

TEST_F(Turns, WhatComesWhileAClientStandsInLineKeepsItsOrder) {
  SimClient& client = world.Connect();
  const uint64_t half = 1'000'000 + 2 * kMessagesPerTurn;
  const uint64_t end = half + 2 * kMessagesPerTurn;
  client.Send(OneWays(1'000'000, half));
  const std::string rest = OneWays(half, end);
  // In pieces that end within messages, some of them in the same turn.
  for (size_t at = 0; at < rest.size(); at += 1001) {
    client.Send(rest.substr(at, 1001));
    if (at % 7 == 0) world.RunFor(1);
  }
  world.RunFor(kSecond);
  EXPECT_EQ(SeenOf(1), Numbers(1'000'000, end));
}

TEST_F(Turns, AClientThatSendsOnWhileItStandsInLineIsNotRead) {
  SimClient& client = world.Connect();
  // More than one window is left when the turn is over.
  const uint64_t half = 1'000'000 + 9 * kMessagesPerTurn;
  const uint64_t end = half + kMessagesPerTurn;
  client.Send(OneWays(1'000'000, half));
  EXPECT_TRUE(client.paused);
  client.Send(OneWays(half, end));
  EXPECT_FALSE(client.to_send.empty());
  world.RunFor(kSecond);
  EXPECT_FALSE(client.paused);
  EXPECT_EQ(SeenOf(1), Numbers(1'000'000, end));
}

TEST_F(Turns, AClientThatEndsInLineHasAllItsMessagesHandled) {
  SimClient& client = world.Connect();
  client.Send(OneWays(1'000'000, 1'000'000 + 3 * kMessagesPerTurn) + world.Request(2'000'000));
  client.Finish();
  world.RunFor(kSecond);
  EXPECT_EQ(SeenOf(1).size(), 3 * kMessagesPerTurn);
  EXPECT_EQ(Kinds(client.Take()), "R");
  EXPECT_EQ(client.closed, CloseMode::kFlush);
}

TEST_F(Turns, AClientThatBreaksInLineIsForgottenAndNobodyElseNotices) {
  SimClient& broken = world.Connect();
  SimClient& other = world.Connect();
  broken.Send(OneWays(1'000'000, 1'000'000 + 3 * kMessagesPerTurn));
  other.Send(world.Request(2'000'000));
  broken.Reset();
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(other.Take()), "R");
  EXPECT_LE(SeenOf(1).size(), kMessagesPerTurn);
}

TEST_F(Turns, AWorkerThatDrainsAnswersThoseInLine) {
  SimClient& much = world.Connect();
  SimClient& little = world.Connect();
  much.Send(OneWays(1'000'000, 1'000'000 + 3 * kMessagesPerTurn));
  little.Send(world.Request(2'000'000));
  world.WithEngine([](Engine& engine) { engine.Drain(); });
  world.RunFor(10 * kSecond);
  EXPECT_EQ(Kinds(little.Take()), "GE");
  EXPECT_EQ(little.closed, CloseMode::kFlush);
}

TEST_F(Turns, AnEngineMayEndWithClientsInLine) {
  world.Connect().Send(OneWays(1'000'000, 1'000'000 + 3 * kMessagesPerTurn));
}

// What has been read for those in line is kept, so there is an end to how much that is.
TEST_F(Turns, ThoseInLineKeepABoundedNumberOfBytes) {
  world.Connect().Send(OneWays(1'000'000, 1'000'000 + kMessagesPerTurn));
  const std::string body(64 << 10, 'x');
  constexpr uint64_t kEach = 12;
  const size_t before = Written();
  size_t sent = 0;
  std::vector<SimClient*> clients;
  while (sent < 3 * kMostInLine) {
    const uint64_t begin = 2'000'000 + clients.size() * kEach;
    std::string burst;
    for (uint64_t id = begin; id < begin + kEach; ++id) burst += world.OneWay(id, body);
    clients.push_back(&world.Connect());
    clients.back()->Send(burst);
    sent += burst.size();
  }
  // Each is read on while it stands there, up to a window.
  EXPECT_LE(sent - (Written() - before), kMostInLine + clients.size() * kWindowBytes);
  EXPECT_GE(sent - (Written() - before), kMostInLine / 2);
  world.RunFor(kMs);
  EXPECT_EQ(SeenOf(2).size(), clients.size() * kEach);
  // There is room again.
  ++world.turn;
  world.Connect().Send(OneWays(3'000'000, 3'000'000 + kMessagesPerTurn));
  SimClient& late = world.Connect();
  late.Send(world.Request(4'000'000));
  EXPECT_EQ(Kinds(late.Take()), "");
  world.RunFor(kMs);
  EXPECT_EQ(Kinds(late.Take()), "R");
}

TEST_F(Turns, TurnsWithFewMessagesHaveNoLine) {
  SimClient& client = world.Connect();
  const size_t ticks = world.ticks;
  for (uint64_t i = 0; i < 3; ++i) {
    const uint64_t begin = 1'000'000 + i * kMessagesPerTurn;
    client.Send(OneWays(begin, begin + kMessagesPerTurn));
    EXPECT_FALSE(client.paused);
    ++world.turn;
  }
  EXPECT_EQ(world.ticks, ticks);
  world.RunFor(1);
  EXPECT_EQ(SeenOf(1).size(), 3 * kMessagesPerTurn);
}

// What one event of a server's connection costs, and what becomes of the rest.
class ServerTurns : public Turns {
 protected:
  using Turns::Turns;
  SimConnection& server() { return *world.connections.front(); }
  // Replies that nobody waits for.
  std::string Unasked(size_t count) const {
    std::string messages;
    for (size_t i = 0; i < count; ++i) messages += world.wire().Make('R', 900'000 + i, "x");
    return messages;
  }
  uint64_t Handled() { return world.Count(Counter::kUnsolicited); }
};

TEST_F(ServerTurns, OneEventHandlesABoundedNumberOfReplies) {
  server().Send(Unasked(4 * kRepliesPerTurn));
  EXPECT_LE(Handled(), kRepliesPerTurn);
  EXPECT_GE(Handled(), kRepliesPerTurn / 2);
  world.RunFor(kMs);
  EXPECT_EQ(Handled(), 4 * kRepliesPerTurn);
}

// Each message is compressed and stands for as much as this many.
class TurnsWithCompression : public ServerTurns {
 protected:
  static constexpr size_t kMuch = 15;
  TurnsWithCompression()
      : ServerTurns(With({.unpacked_bytes = kMuch * TurnShare::kUnpackedBytesOfOne},
                         UpstreamMode::kShared)) {}
};

TEST_F(TurnsWithCompression, WhatMessagesOfClientsStandForCounts) {
  SimClient& client = world.Connect();
  const size_t before = Written();
  const std::string each = world.OneWay(1'000'000);
  client.Send(OneWays(1'000'000, 1'000'000 + kMessagesPerTurn));
  EXPECT_LE(Written() - before, kMessagesPerTurn / kMuch * each.size());
  EXPECT_GE(Written() - before, kMessagesPerTurn / kMuch * each.size() / 2);
  world.RunFor(kMs);
  EXPECT_EQ(SeenOf(1), Numbers(1'000'000, 1'000'000 + kMessagesPerTurn));
}

TEST_F(TurnsWithCompression, WhatRepliesOfServersStandForCounts) {
  server().Send(Unasked(kRepliesPerTurn));
  EXPECT_LE(Handled(), kRepliesPerTurn / kMuch);
  EXPECT_GE(Handled(), kRepliesPerTurn / kMuch / 2);
  world.RunFor(kMs);
  EXPECT_EQ(Handled(), kRepliesPerTurn);
}

TEST_F(ServerTurns, TheBoundIsForAllEventsOfATurnTogether) {
  for (int i = 0; i < 8; ++i) server().Send(Unasked(kRepliesPerTurn / 2));
  EXPECT_LE(Handled(), kRepliesPerTurn);
  world.RunFor(kMs);
  EXPECT_EQ(Handled(), 4 * kRepliesPerTurn);
}

TEST_F(ServerTurns, RepliesBehindManyOthersComeInTheirOrderAndWhole) {
  Manual(world, "h1");
  SimClient& client = world.Connect();
  for (uint64_t id = 1; id <= 3; ++id) client.Send(world.Request(id, std::string(id * 100, 'q')));
  world.RunFor(kMs);
  const std::vector<WireMessage> requests = server().requests;
  ASSERT_GE(requests.size(), 3u);
  std::string bytes = Unasked(2 * kRepliesPerTurn);
  for (size_t i = requests.size() - 3; i < requests.size(); ++i) {
    bytes += world.wire().Make('R', requests[i].id, requests[i].token, std::string(20'000, 'r'));
  }
  // In pieces that end within messages.
  for (size_t at = 0; at < bytes.size(); at += 10'007) server().Send(bytes.substr(at, 10'007));
  EXPECT_EQ(Kinds(client.Take()), "");
  world.RunFor(kMs);
  EXPECT_EQ(Tokens(client.Take()), (Texts{"1", "2", "3"}));
}

TEST_F(ServerTurns, OtherServersAreServedInTheirTurn) {
  world.SetHosts("a", {"h1", "h2"});
  Manual(world, "h2");
  // Some request goes to the other host.
  SimClient& client = world.Connect();
  for (uint64_t id = 1; world.connections.size() < 2 && id < 10; ++id) {
    client.Send(world.Request(id));
    world.RunFor(kMs);
  }
  ASSERT_EQ(world.connections.size(), 2u);
  client.Take();
  SimConnection& other = *world.connections.back();
  server().Send(Unasked(4 * kRepliesPerTurn));
  other.Reply(other.requests.front());
  EXPECT_EQ(Kinds(client.Take()), "");
  std::string replies;
  for (int i = 0; i < 10 && replies.empty(); ++i) {
    world.RunFor(1);
    replies = Kinds(client.Take());
  }
  EXPECT_EQ(replies, "R");
  EXPECT_LT(Handled(), 4 * kRepliesPerTurn);
}

TEST_F(ServerTurns, AServerThatSendsOnWhileItStandsInLineIsNotRead) {
  // As many as nobody may keep.
  const std::string each = Unasked(1);
  const size_t count = 2 * kMostUnhandled / each.size();
  server().Send(Unasked(count));
  world.Connect().Send(world.Request(5));  // anything that happens
  server().Send(each);
  EXPECT_FALSE(server().to_send.empty());
  EXPECT_LT(Handled(), count);
  world.RunFor(kSecond);
  EXPECT_TRUE(server().to_send.empty());
  EXPECT_EQ(Handled(), count + 1);
}

TEST_F(ServerTurns, RepliesOfAServerThatClosesInLineAreDelivered) {
  Manual(world, "h1");
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kMs);
  const WireMessage request = server().requests.back();
  server().Send(Unasked(3 * kRepliesPerTurn) + world.wire().Make('R', request.id, "mine"));
  EXPECT_EQ(Kinds(client.Take()), "");
  server().Close();
  world.RunFor(kMs);
  EXPECT_EQ(Tokens(client.Take()), (Texts{"mine"}));
  EXPECT_EQ(world.lease_count(), 0u);
}

TEST_F(ServerTurns, WhatCannotBeReadInLineIsNobodysAfterTheConnectionIsClosed) {
  Manual(world, "h1");
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kMs);
  const WireMessage request = server().requests.back();
  server().Send(Unasked(2 * kRepliesPerTurn) + std::string(64, '\xff') +
                world.wire().Make('R', request.id, "lost"));
  server().Close();
  world.RunFor(kMs);
  ASSERT_EQ(Kinds(client.Take()), "E");
  EXPECT_EQ(world.lease_count(), 0u);
}

}  // namespace
}  // namespace metaprotocol::test
