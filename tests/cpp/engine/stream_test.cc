// Streams through the whole engine: opened like requests, any number of messages both ways, ended
// by each side or reset by one, and none of it at the cost of anybody else on the connection.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tests/cpp/engine/stream_world.h"

namespace metaprotocol::test {
namespace {

TEST(Stream, MessagesGoBothWaysUnderEachSidesOwnIdUntilBothHaveEnded) {
  StreamWorld world;
  SimClient& client = world.Connect();
  client.Send(Of(7, 'S', "open", {{"name", "x"}}));
  client.Send(Of(7, 'D', "one"));
  world.RunFor(kMs);
  auto seen = world.TakeAtServer();
  EXPECT_EQ(Said(seen), (Texts{"S:open", "D:one"}));
  const uint64_t id = seen[0].id;
  EXPECT_NE(id, 7u);
  EXPECT_EQ(seen[1].id, id);

  world.server().Send(Of(id, 'D', "two"));
  world.server().Send(Of(id, 'D', "three"));
  EXPECT_EQ(world.exchanges(), 1u);
  client.Send(Of(7, 'F'));  // ends its side, and goes on to read
  world.server().Send(Of(id, 'L', "four"));
  world.RunFor(kMs);
  EXPECT_EQ(Said(world.TakeAtServer()), (Texts{"F:"}));
  auto said = client.Take();
  EXPECT_EQ(Said(said), (Texts{"D:two", "D:three", "L:four"}));
  for (const WireMessage& message : said) EXPECT_EQ(message.id, 7u);
  EXPECT_EQ(world.exchanges(), 0u);
  EXPECT_EQ(world.Count(Counter::kResponsesOk), 1u);
  EXPECT_EQ(world.Count(Counter::kRequests), 1u);
  EXPECT_TRUE(client.alive());
  ExpectQuietLater(world);
}

TEST(Stream, EitherSideMayEndFirst) {
  StreamWorld world;
  SimClient& client = world.Connect();
  client.Send(Of(1, 'S'));
  world.RunFor(kMs);
  const uint64_t id = world.TakeAtServer().at(0).id;
  world.server().Send(Of(id, 'F'));
  client.Send(Of(1, 'D', "still"));
  world.RunFor(kMs);
  EXPECT_EQ(world.exchanges(), 1u);
  EXPECT_EQ(Said(world.TakeAtServer()), (Texts{"D:still"}));
  client.Send(Of(1, 'L', "last"));
  world.RunFor(kMs);
  EXPECT_EQ(Said(world.TakeAtServer()), (Texts{"L:last"}));
  EXPECT_EQ(Kinds(client.Take()), "F");
  EXPECT_EQ(world.exchanges(), 0u);
  ExpectQuietLater(world);
}

TEST(Stream, AnIdMayBeUsedAgainAfterTheEnd) {
  StreamWorld world;
  SimClient& client = world.Connect();
  std::vector<uint64_t> ids;
  for (int i = 0; i < 3; ++i) {
    ids.push_back(OpenOne(world, client));
    world.server().Send(Of(ids.back(), 'F'));
    client.Send(Of(1, 'F'));
    world.RunFor(kMs);
    world.TakeAtServer();
  }
  EXPECT_EQ(Kinds(client.Take()), "FFF");
  EXPECT_NE(ids[0], ids[1]);
  EXPECT_NE(ids[1], ids[2]);
  ExpectQuietLater(world);
}

TEST(Stream, StreamsAndCallsOfManyClientsInterleaveOnOneLease) {
  StreamWorld world;
  std::vector<SimClient*> clients;
  std::string expected_kinds;
  for (int i = 0; i < 5; ++i) {
    SimClient& client = world.Connect();
    clients.push_back(&client);
    // All clients use the same ids.
    client.Send(Of(1, 'S') + Of(2, 'S') + world.Request(1) + Of(1, 'D', std::to_string(i)) +
                world.Request(2) + Of(2, 'L', std::to_string(i)));
  }
  world.RunFor(kMs);
  EXPECT_EQ(world.lease_count(), 1u);
  for (const WireMessage& message : world.TakeAtServer()) {
    if (message.kind == 'D') world.server().Send(Of(message.id, 'D', "re " + message.body));
    if (message.kind == 'L') world.server().Send(Of(message.id, 'L', "end " + message.body));
  }
  world.RunFor(kMs);
  for (size_t i = 0; i < clients.size(); ++i) {
    std::multiset<std::string> got;
    for (const WireMessage& message : clients[i]->Take()) {
      got.insert(message.kind + std::to_string(message.id) + message.body);
    }
    const std::string n = std::to_string(i);
    EXPECT_EQ(got, (std::multiset<std::string>{"R1", "R2", "D1re " + n, "L2end " + n}));
  }
  EXPECT_EQ(world.exchanges(), 5u);  // streams 1 are open
  for (SimClient* client : clients) client->Finish();
  ExpectQuietLater(world);
}

TEST(Stream, AMessageThatCannotBeWrittenEndsItsOwnStream) {
  for (const bool from_client : {true, false}) {
    StreamWorld world;
    SimClient& client = world.Connect();
    SimClient& other = world.Connect();
    const uint64_t id = OpenOne(world, client);
    const uint64_t others = OpenOne(world, other);
    if (from_client) {
      client.Send(FakeMessage('D', 1, {{"unwritable", ""}}));
    } else {
      world.server().Send(FakeMessage('D', id, {{"unwritable", ""}}));
    }
    world.RunFor(kMs);
    const Texts over = {from_client ? "Z:malformed" : "Z:bad_response"};
    EXPECT_EQ(Said(client.Take()), over);
    EXPECT_EQ(Said(world.TakeAtServer()), over);
    world.server().Send(Of(others, 'D', "for the other"));
    world.RunFor(kMs);
    EXPECT_EQ(Said(other.Take()), (Texts{"D:for the other"}));
    client.Finish();
    other.Finish();
    ExpectQuietLater(world);
  }
}

TEST(Stream, TheClientsResetReachesTheServerAndWhatComesLateGoesNowhere) {
  StreamWorld world;
  SimClient& client = world.Connect();
  SimClient& other = world.Connect();
  const uint64_t id = OpenOne(world, client);
  const uint64_t others = OpenOne(world, other);
  client.Send(Of(1, 'Z', "enough"));
  client.Send(Of(1, 'D', "late"));
  world.RunFor(kMs);
  EXPECT_EQ(Said(world.TakeAtServer()), (Texts{"Z:enough"}));
  world.server().Send(Of(id, 'D', "late too"));
  world.server().Send(Of(others, 'D', "for the other"));
  world.RunFor(kMs);
  EXPECT_EQ(client.Take().size(), 0u);
  EXPECT_EQ(Said(other.Take()), (Texts{"D:for the other"}));
  EXPECT_EQ(world.Count(Counter::kLateReplies), 1u);
  EXPECT_EQ(world.Count(Counter::kClientGone), 1u);
  EXPECT_TRUE(client.alive());
  other.Send(Of(1, 'Z'));
  ExpectQuietLater(world);
  EXPECT_EQ(world.Count(Counter::kLeasesReleased), 0u) << "late messages for whoever gets it next";
}

TEST(Stream, TheServersResetReachesTheClient) {
  StreamWorld world;
  SimClient& client = world.Connect();
  const uint64_t id = OpenOne(world, client);
  world.server().Send(Of(id, 'Z', "no more"));
  world.RunFor(kMs);
  EXPECT_EQ(Said(client.Take()), (Texts{"Z:no more"}));
  EXPECT_EQ(world.Count(Counter::kResponsesError), 1u);
  client.Send(Of(1, 'D', "late") + world.Request(3));
  world.RunFor(kMs);
  EXPECT_EQ(Kinds(world.TakeAtServer()), "Q");
  EXPECT_EQ(Kinds(client.Take()), "R");
  ExpectQuietLater(world);
}

TEST(Stream, ALostLeaseResetsItsStreamsAndNothingElse) {
  SimConfig config = Streams();
  config.routes = {SimRoute{.match = {Exact("to", "b")}, .clusters = {{"b", 1}}}, SimRoute{}};
  StreamWorld world(config);
  world.SetHosts("b", {"t"});
  SimClient& client = world.Connect();
  SimClient& other = world.Connect();
  OpenOne(world, client, 1);
  OpenOne(world, other, 1);
  client.Send(Of(2, 'S', {}, {{"to", "b"}}));
  world.RunFor(kMs);
  const uint64_t id = world.TakeAtServer().at(0).id;
  world.server().Close();
  world.RunFor(kMs);
  EXPECT_EQ(Said(client.Take()), (Texts{"Z:upstream_lost"}));
  EXPECT_EQ(Said(other.Take()), (Texts{"Z:upstream_lost"}));
  world.Open("t").at(0)->Send(Of(id, 'D', "here"));
  world.RunFor(kMs);
  const auto rest = client.Take();
  EXPECT_EQ(Said(rest), (Texts{"D:here"}));
  EXPECT_EQ(rest[0].id, 2u);
  client.Finish();
  ExpectQuietLater(world);
}

TEST(Stream, AClientThatLeavesResetsItsStreamsAndNobodyElseNotices) {
  StreamWorld world;
  SimClient& client = world.Connect();
  SimClient& other = world.Connect();
  const uint64_t first = OpenOne(world, client, 1);
  const uint64_t second = OpenOne(world, client, 2);
  const uint64_t others = OpenOne(world, other, 1);
  client.Reset();
  world.RunFor(kMs);
  std::set<uint64_t> reset;
  for (const WireMessage& message : world.TakeAtServer()) {
    EXPECT_EQ(message.kind, 'Z');
    reset.insert(message.id);
  }
  EXPECT_EQ(reset, (std::set<uint64_t>{first, second}));
  world.server().Send(Of(others, 'L', "here"));
  other.Send(Of(1, 'L', "there"));
  world.RunFor(kMs);
  EXPECT_EQ(Said(other.Take()), (Texts{"L:here"}));
  EXPECT_EQ(Said(world.TakeAtServer()), (Texts{"L:there"}));
  ExpectQuietLater(world);
}

TEST(Stream, AClientThatEndsItsConnectionStillGetsWhatItHasFinishedAskingFor) {
  StreamWorld world;
  SimClient& client = world.Connect();
  const uint64_t asked = OpenOne(world, client, 1);
  const uint64_t unfinished = OpenOne(world, client, 2);
  client.Send(Of(1, 'F'));
  client.Finish();
  world.RunFor(kMs);
  const auto seen = world.TakeAtServer();
  ASSERT_EQ(Kinds(seen), "FZ");
  EXPECT_EQ(seen[1].id, unfinished);
  world.server().Send(Of(asked, 'D', "one") + Of(asked, 'L', "two"));
  world.RunFor(kMs);
  EXPECT_EQ(Said(client.Take()), (Texts{"D:one", "L:two"}));
  EXPECT_FALSE(client.alive());
  ExpectQuietLater(world);
}

TEST(Stream, WhatIsNoMoreAllowedEndsItsOwnStreamOnBothSides) {
  StreamWorld world;
  SimClient& client = world.Connect();
  const uint64_t twice = OpenOne(world, client, 1);
  const uint64_t ended = OpenOne(world, client, 2);
  const uint64_t servers = OpenOne(world, client, 3);
  const uint64_t good = OpenOne(world, client, 4);
  client.Send(Of(1, 'S') + Of(2, 'F') + Of(2, 'D', "after its end"));
  world.server().Send(Of(servers, 'F') + Of(servers, 'D', "after its end"));
  world.RunFor(kMs);
  std::map<uint64_t, std::string> got;
  for (const WireMessage& message : client.Take()) got[message.id] += message.kind + message.body;
  EXPECT_EQ(got, (std::map<uint64_t, std::string>{
                     {1, "Zmalformed"}, {2, "Zmalformed"}, {3, "FZbad_response"}}));
  std::map<uint64_t, std::string> seen;
  for (const WireMessage& message : world.TakeAtServer()) seen[message.id] += message.kind;
  EXPECT_EQ(seen, (std::map<uint64_t, std::string>{{twice, "Z"}, {ended, "FZ"}, {servers, "Z"}}));
  world.server().Send(Of(good, 'D', "goes on"));
  world.RunFor(kMs);
  EXPECT_EQ(Said(client.Take()), (Texts{"D:goes on"}));
  client.Reset();
  ExpectQuietLater(world);
}

TEST(Stream, RefusalsAreResetsInTheProtocolsOwnForm) {
  SimConfig config = Streams();
  config.routes = {SimRoute{.match = {Exact("to", "nowhere")}, .clusters = {{"none", 1}}},
                   SimRoute{.match = {Exact("to", "empty")}, .clusters = {{"empty", 1}}},
                   SimRoute{.match = {Exact("to", "a")}}};
  config.limits.max_streams = 2;
  StreamWorld world(config);
  world.SetHosts("empty", {});
  SimClient& client = world.Connect();
  client.Send(Of(1, 'S', {}, {{"to", "?"}}));
  client.Send(Of(2, 'S', {}, {{"to", "nowhere"}}));
  client.Send(Of(3, 'S', {}, {{"to", "empty"}}));
  const FakeKv to_a = {{"to", "a"}};
  for (uint64_t id = 4; id < 7; ++id) client.Send(Of(id, 'S', {}, to_a));
  client.Send(Of(6, 'D', "to nobody"));
  client.Send(world.Request(9, {}, to_a));
  world.RunFor(kMs);
  std::map<uint64_t, std::string> got;
  for (const WireMessage& message : client.Take()) got[message.id] += message.kind + message.body;
  EXPECT_EQ(got, (std::map<uint64_t, std::string>{{1, "Zno_route"},
                                                  {2, "Zcluster_not_found"},
                                                  {3, "Zno_healthy_upstream"},
                                                  {6, "Zover_limit"},
                                                  {9, "R"}}));
  EXPECT_EQ(Kinds(world.TakeAtServer()), "SSQ");
  client.Send(Of(4, 'Z') + Of(8, 'S', {}, to_a));  // there is room again
  world.RunFor(kMs);
  EXPECT_EQ(Kinds(world.TakeAtServer()), "ZS");
  client.Reset();
  ExpectQuietLater(world);
}

TEST(Stream, TheRouteChangesWhatOpensIt) {
  SimConfig config = Streams();
  config.routes[0].request_mutation = {{MutationOp::Kind::kSet, "added", "1"}};
  StreamWorld world(config);
  SimClient& client = world.Connect();
  client.Send(Of(1, 'S') + Of(1, 'D', "x"));
  world.RunFor(kMs);
  const auto seen = world.TakeAtServer();
  ASSERT_EQ(Kinds(seen), "SD");
  EXPECT_EQ(seen[0].kv, (FakeKv{{"added", "1"}}));
  EXPECT_EQ(seen[1].kv, FakeKv{});
  client.Reset();
  ExpectQuietLater(world);
}

TEST(Stream, IdleOnesAndThoseBeyondTheClientsOwnTimeoutAreReset) {
  SimConfig config = Streams();
  config.limits.stream_idle_timeout_us = 10 * kSecond;
  config.default_timeout_us = kSecond;  // of requests
  StreamWorld world(config);
  SimClient& client = world.Connect();
  const uint64_t idle = OpenOne(world, client, 1);
  const uint64_t busy = OpenOne(world, client, 2);
  OpenOne(world, client, 3, {{"timeout", "3000"}});
  EXPECT_EQ(world.Seen().back().kv, (FakeKv{{"timeout", "3000"}})) << "the route's is for requests";
  for (int i = 0; i < 4; ++i) {
    world.RunFor(4 * kSecond);
    if (i % 2 == 0) {
      client.Send(Of(2, 'D', "c"));
    } else {
      world.server().Send(Of(busy, 'D', "s"));
    }
  }
  world.RunFor(kMs);
  std::map<uint64_t, std::string> got;
  for (const WireMessage& message : client.Take()) got[message.id] += message.kind + message.body;
  EXPECT_EQ(got, (std::map<uint64_t, std::string>{{1, "Ztimeout"}, {2, "DsDs"}, {3, "Ztimeout"}}));
  EXPECT_EQ(world.Count(LocalReply::kTimeout), 2u);
  std::map<uint64_t, std::string> seen;
  for (const WireMessage& message : world.TakeAtServer()) seen[message.id] += message.kind;
  EXPECT_EQ(seen[idle], "Z") << "the server is told as well";
  EXPECT_EQ(seen[busy], "DD");
  world.RunFor(20 * kSecond);
  EXPECT_EQ(world.exchanges(), 0u);
  client.Reset();
  ExpectQuietLater(world);
}

TEST(Stream, DrainingLetsStreamsEndAndTakesNoNewOnes) {
  StreamWorld world;
  SimClient& client = world.Connect();
  const uint64_t id = OpenOne(world, client);
  world.WithEngine([](Engine& engine) { engine.Drain(); });
  client.Send(Of(2, 'S'));
  world.RunFor(5 * kSecond);
  EXPECT_EQ(Said(client.Take()), (Texts{"G:", "Z:shutting_down"}));
  ASSERT_TRUE(client.alive());
  client.Send(Of(1, 'L', "end"));
  world.server().Send(Of(id, 'L', "end"));
  world.RunFor(kMs);
  EXPECT_EQ(Said(client.Take()), (Texts{"L:end"}));
  EXPECT_FALSE(client.alive());
  ExpectQuietLater(world);
}

TEST(Stream, ADrainedListenersConnectionIsClosedOnceItsStreamsHaveEnded) {
  StreamWorld world;
  SimClient& client = world.Connect();
  OpenOne(world, client);
  world.WithEngine([&](Engine& engine) { engine.DrainSession(client.session); });
  world.RunFor(5 * kSecond);
  EXPECT_TRUE(client.alive());
  client.Send(Of(1, 'Z'));
  world.RunFor(kMs);
  EXPECT_FALSE(client.alive());
  ExpectQuietLater(world);
}

TEST(Stream, MessagesThatComeInPiecesArePassedOnWhole) {
  StreamWorld world;
  SimClient& client = world.Connect();
  const uint64_t id = OpenOne(world, client);
  const std::string large(200000, 'x');
  const std::string bytes = Of(1, 'D', large);
  client.Send(bytes.substr(0, 100000));
  world.RunFor(kMs);
  EXPECT_EQ(world.TakeAtServer().size(), 0u);
  SimClient& other = world.Connect();
  other.Send(world.Request(1));
  world.RunFor(kMs);
  EXPECT_EQ(Kinds(other.Take()), "R") << "nobody else waits for the rest";
  client.Send(bytes.substr(100000));
  world.RunFor(kMs);
  EXPECT_EQ(Said(world.TakeAtServer()), (Texts{"Q:", "D:" + large}));
  const std::string back = Of(id, 'D', large);
  world.server().Send(back.substr(0, 100000));
  world.server().Send(back.substr(100000));
  world.RunFor(kMs);
  EXPECT_EQ(Said(client.Take()), (Texts{"D:" + large}));
  client.Reset();
  ExpectQuietLater(world);
}

TEST(Stream, AMessageOverTheLimitEndsItsOwnStream) {
  SimConfig config = Streams();
  config.limits.max_message_bytes = 10000;
  StreamWorld world(config);
  SimClient& client = world.Connect();
  const uint64_t id = OpenOne(world, client, 1);
  const uint64_t other = OpenOne(world, client, 2);
  world.server().Send(Of(id, 'D', std::string(20000, 'x')) + Of(other, 'D', "fine"));
  world.RunFor(kMs);
  EXPECT_EQ(Said(client.Take()), (Texts{"Z:too_large", "D:fine"}));
  EXPECT_EQ(Kinds(world.TakeAtServer()), "Z");
  client.Reset();
  ExpectQuietLater(world);
}

TEST(Stream, AMessageThatCannotBeDecodedEndsItsOwnStream) {
  FakeOptions options = FakeStreams();
  options.checksum = true;
  StreamWorld world(With(options, UpstreamMode::kShared));
  const auto checked = [](uint64_t id, char kind) { return FakeChecked(Of(id, kind)); };
  const auto broken = [&](uint64_t id, char kind) {
    std::string bytes = checked(id, kind);
    bytes.back() ^= 1;
    return bytes;
  };
  SimClient& client = world.Connect();
  client.Send(checked(1, 'S') + checked(2, 'S') + checked(3, 'S') + broken(4, 'S') +
              broken(5, 'D'));
  world.RunFor(kMs);
  const auto ids = Ids(world.TakeAtServer());
  ASSERT_EQ(ids.size(), 3u);
  client.Send(broken(1, 'D') + checked(3, 'D'));
  world.server().Send(broken(ids[1], 'D') + checked(ids[2], 'D'));
  world.RunFor(kMs);
  std::map<uint64_t, std::string> got;
  for (const WireMessage& message : client.Take()) {
    got[message.id] += message.kind + message.body.substr(0, message.body.size() - 4);
  }
  EXPECT_EQ(got, (std::map<uint64_t, std::string>{
                     {1, "Zmalformed"}, {2, "Zbad_response"}, {3, "D"}, {4, "Zmalformed"}}));
  std::map<uint64_t, std::string> seen;
  for (const WireMessage& message : world.TakeAtServer()) seen[message.id] += message.kind;
  EXPECT_EQ(seen, (std::map<uint64_t, std::string>{{ids[0], "Z"}, {ids[1], "Z"}, {ids[2], "D"}}));
  client.Reset();
  ExpectQuietLater(world);
}

TEST(Stream, AResponseThatCannotBeDecodedFailsItsOwnCall) {
  FakeOptions options = FakeStreams();
  options.checksum = true;
  StreamWorld world(With(options, UpstreamMode::kShared));
  Manual(world, "s");
  SimClient& client = world.Connect();
  client.Send(FakeChecked(world.Request(1)) + FakeChecked(world.Request(2)));
  world.RunFor(kMs);
  const auto ids = Ids(world.TakeAtServer());
  ASSERT_EQ(ids.size(), 2u);
  std::string broken = FakeChecked(FakeMessage('R', ids[0], {}, "?"));
  broken.back() ^= 1;
  world.server().Send(broken + FakeChecked(FakeMessage('R', ids[1], {}, "!")));
  world.RunFor(kMs);
  EXPECT_EQ(Kinds(client.Take()), "ER");
  EXPECT_EQ(world.Count(Counter::kLeasesReset), 0u);
  ExpectQuietLater(world);
}

TEST(Stream, OnePerExclusiveLease) {
  StreamWorld world(With(FakeStreams(), UpstreamMode::kExclusive));
  SimClient& client = world.Connect();
  const uint64_t first = OpenOne(world, client, 1);
  const uint64_t second = OpenOne(world, client, 2);
  EXPECT_EQ(world.lease_count(), 2u);
  world.connections[0]->Send(Of(first, 'L', "one"));
  world.connections[1]->Send(Of(second, 'L', "two"));
  client.Send(Of(1, 'F') + Of(2, 'F'));
  world.RunFor(kMs);
  EXPECT_EQ(Said(client.Take()), (Texts{"L:one", "L:two"}));
  EXPECT_EQ(world.exchanges(), 0u);
  client.Send(world.Request(3));
  world.RunFor(kMs);
  EXPECT_EQ(Kinds(client.Take()), "R");
  ExpectQuietLater(world);
}

TEST(Stream, NotWithoutIdsOnUpstreamConnections) {
  FakeOptions options = FakeStreams();
  options.id_bits = 0;
  options.multiplexed = false;
  StreamWorld world(With(options, UpstreamMode::kExclusive));
  SimClient& client = world.Connect();
  client.Send(FakeMessage('S', std::nullopt) + world.Request(1));
  world.RunFor(kMs);
  EXPECT_EQ(Kinds(client.Take()), "R");
  EXPECT_EQ(world.Count(Counter::kDropped), 1u);
  ExpectQuietLater(world);
}

// Random streams and calls of several clients, cut into random pieces; the servers send back what
// they get. Nothing is lost, changed, out of order or somebody else's.
TEST(Stream, RandomOnesKeepTheirContentAndOrder) {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    SimConfig config = Streams();
    config.limits.max_streams = 4;
    World world(BuildSnapshot(config), seed);
    world.max_piece = 1 + world.Draw(300);
    world.policy.exchanges_per_shared_lease = 3;
    world.SetHosts("a", {"s", "t"});
    for (const char* name : {"s", "t"}) {
      world.servers[name].on_message = [](SimConnection& connection, const WireMessage& message) {
        if (message.kind == 'D' || message.kind == 'L') {
          connection.Send(FakeMessage(message.kind, message.id, {}, message.body));
        }
        if (message.kind == 'Q') connection.Reply(message);
      };
    }
    std::vector<SimClient*> clients;
    std::map<std::pair<size_t, uint64_t>, std::string> sent;
    uint64_t calls = 0;
    for (size_t c = 0; c < 3; ++c) clients.push_back(&world.Connect());
    std::map<std::pair<size_t, uint64_t>, bool> open;
    for (int step = 0; step < 200; ++step) {
      const size_t c = world.Draw(clients.size());
      const uint64_t id = 1 + world.Draw(4);
      const std::pair<size_t, uint64_t> key(c, id);
      if (world.Draw(5) == 0) {
        clients[c]->Send(world.Request(100 + ++calls));
      } else if (!open.contains(key)) {
        clients[c]->Send(FakeMessage('S', id));
        open[key] = true;
      } else if (open[key]) {
        const bool last = world.Draw(8) == 0;
        const std::string body = std::to_string(step) + std::string(world.Draw(50), 'x') + ";";
        clients[c]->Send(FakeMessage(last ? 'L' : 'D', id, {}, body));
        sent[key] += body;
        open[key] = !last;
      }
      world.RunFor(world.Draw(3) * 10);
    }
    world.RunFor(kSecond);
    std::map<std::pair<size_t, uint64_t>, std::string> got;
    uint64_t replies = 0;
    for (size_t c = 0; c < clients.size(); ++c) {
      for (const WireMessage& message : clients[c]->Take()) {
        if (message.kind == 'R') {
          ++replies;
        } else {
          EXPECT_TRUE(message.kind == 'D' || message.kind == 'L') << message.kind;
          got[{c, message.id}] += message.body;
        }
      }
      clients[c]->Finish();
    }
    EXPECT_EQ(got, sent) << "seed " << seed;
    EXPECT_EQ(replies, calls) << "seed " << seed;
    world.RunFor(60 * kSecond);
    world.ExpectQuiet();
  }
}

}  // namespace
}  // namespace metaprotocol::test
