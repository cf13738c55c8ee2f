// Large messages pass through as they arrive, in both directions, and disturb nobody.
#include "tests/cpp/engine/large_messages.h"

namespace metaprotocol::test {
namespace {

// All of `bytes` in one event, as a host with small buffers has them.
void SendInSlices(World& world, SimClient& client, const std::string& bytes, size_t slice_bytes) {
  std::vector<Bytes> slices;
  for (size_t at = 0; at < bytes.size(); at += slice_bytes) {
    slices.push_back(Bytes(bytes).substr(at, slice_bytes));
  }
  world.WithEngine([&](Engine& engine) { engine.SessionData(client.session, slices, false); });
}

TEST(Streaming, AMessageWithAChecksumWaitsForItsEndAndGetsANewOne) {
  World world(With(FakeWithChecksum(), UpstreamMode::kShared));
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& client = world.Connect();
  const std::string body(100'000, 'b');
  const std::string request = FakeChecked(FakeMessage('Q', 1, {{"k", "v"}}, body));
  client.Send(request.substr(0, 70'000));
  world.RunFor(kMs);
  EXPECT_TRUE(world.connections.empty() || world.connections[0]->received.empty());
  client.Send(request.substr(70'000));
  world.RunFor(kMs);
  ASSERT_EQ(world.connections.size(), 1u);
  const std::string seen = world.connections[0]->received;
  ASSERT_EQ(seen.size(), request.size());
  const uint64_t id = LoadBe64(seen.data() + 5);
  EXPECT_NE(id, 1u);
  EXPECT_EQ(seen, FakeChecked(FakeMessage('Q', id, {{"k", "v"}}, body)));
  world.connections[0]->Send(FakeChecked(FakeMessage('R', id, {}, body)));
  world.RunFor(kMs);
  EXPECT_EQ(client.received, FakeChecked(FakeMessage('R', 1, {}, body)));
}

TEST(Streaming, LargeRequestReachesTheServerWhileItIsStillBeingSent) {
  for (const SimConfig& config : {SimConfig{}, Exclusive(), PerSession()}) {
    World world(Streaming(config));
    world.SetHosts("a", {"h1"});
    SimClient& client = world.Connect();
    const std::string request = world.Request(1, Body(100000));
    client.Send(request.substr(0, 50000));
    world.RunFor(10 * kMs);
    ASSERT_EQ(world.connections.size(), 1u);
    EXPECT_GT(world.connections[0]->received.size(), 40000u);
    client.Send(request.substr(50000));
    world.RunFor(10 * kMs);
    ASSERT_EQ(world.Seen().size(), 1u);
    EXPECT_EQ(world.Seen()[0].body.size(), 100000u);
    EXPECT_EQ(Tokens(client.Take()), (Texts{"1"}));
    EXPECT_EQ(world.Count(Counter::kRequests), 1u);
  }
}

// The first reply comes last, and slowly, when more than anybody may keep waits behind it.
TEST(Streaming, RepliesThatWaitForTheFirstDoNotHoldItUp) {
  SimConfig ids_on_one_lease = With(FakePipelinedWithIds(), UpstreamMode::kShared);
  for (const SimConfig& base : {Pipelined(), ids_on_one_lease}) {
    World world(Streaming(base));
    world.SetHosts("a", {"h1"});
    Manual(world, "h1");
    SimClient& client = world.Connect();
    for (uint64_t i = 1; i <= 10; ++i) client.Send(world.Request(i));
    world.RunFor(10 * kMs);
    const std::vector<WireMessage> seen = world.Seen();
    ASSERT_EQ(seen.size(), 10u);
    const auto connection_of = [&](const std::string& token) -> SimConnection& {
      for (const auto& connection : world.connections) {
        for (const WireMessage& request : connection->requests) {
          if (request.token == token) return *connection;
        }
      }
      ADD_FAILURE() << "no request " << token;
      return *world.connections[0];
    };
    std::string first;
    for (const WireMessage& request : seen) {
      const std::string reply = world.wire().Make('R', request.id, request.token, Body(300'000));
      if (request.token == "1") {
        first = reply;
        continue;
      }
      SimConnection& connection = connection_of(request.token);
      for (size_t at = 0; at < reply.size(); at += 16'384) {
        connection.Send(reply.substr(at, 16'384));
        world.RunFor(kMs);
      }
    }
    EXPECT_TRUE(client.received.empty());
    SimConnection& connection = connection_of("1");
    for (size_t at = 0; at < first.size(); at += 16'384) {
      connection.Send(first.substr(at, 16'384));
      world.RunFor(kMs);
    }
    world.RunFor(kSecond);
    const auto replies = client.Take();
    ASSERT_EQ(replies.size(), 10u);
    for (uint64_t i = 1; i <= 10; ++i) {
      EXPECT_EQ(replies[i - 1].token, std::to_string(i));
      EXPECT_EQ(replies[i - 1].body.size(), 300'000u);
    }
    world.RunFor(20 * kSecond);
    world.ExpectQuiet();
  }
}

TEST(Streaming, BodyThatTheCodecRefusesGoesNoFurtherAndCostsItsOwnCall) {
  for (const UpstreamMode mode : {UpstreamMode::kShared, UpstreamMode::kExclusive}) {
    World world(Streaming(With({.id_bits = 32, .bad_body = '!'}, mode)));
    world.SetHosts("a", {"h1"});
    SimClient& client = world.Connect();
    const std::string request = world.Request(1, Body(5000) + "!!!!" + Body(5000));
    client.Send(request.substr(0, 4000));
    client.Send(request.substr(4000, 500));
    world.RunFor(10 * kMs);
    ASSERT_EQ(world.connections.size(), 1u);
    EXPECT_TRUE(client.received.empty());
    const size_t before = world.connections[0]->received.size();
    client.Send(request.substr(4500));
    const auto replies = client.Take();
    EXPECT_EQ(Kinds(replies), "E");
    EXPECT_EQ(replies.at(0).body, "malformed");
    EXPECT_EQ(world.connections[0]->received.size(), before);
    EXPECT_FALSE(world.connections[0]->open);
    EXPECT_EQ(world.Count(Counter::kDownstreamMalformed), 1u);
    client.Send(world.Request(2));
    world.RunFor(10 * kMs);
    EXPECT_EQ(Kinds(client.Take()), "R") << "the next one begins where this one said it ends";
    world.RunFor(10 * kSecond);
    world.ExpectQuiet();
  }
}

TEST(Streaming, BodyThatIsThrownAwayIsNotChecked) {
  SimConfig config = Streaming(With({.bad_body = '!'}, UpstreamMode::kShared));
  config.routes = {SimRoute{.match = {Exact("name", "other")}}};
  World world(config);
  SimClient& client = world.Connect();
  const std::string request = world.Request(1, Body(5000) + "!");
  client.Send(request.substr(0, 4000));
  EXPECT_EQ(Kinds(client.Take()), "E") << "no route";
  client.Send(request.substr(4000));
  EXPECT_TRUE(client.Take().empty()) << "answered once";
  EXPECT_EQ(world.Count(Counter::kDownstreamMalformed), 0u);
  client.Send(world.Request(2));
  EXPECT_EQ(Kinds(client.Take()), "E") << "no route";
}

TEST(Streaming, ARequestThatCannotBeWrittenCostsItsOwnCall) {
  for (const SimConfig& config : {SimConfig{}, Exclusive(), PerSession()}) {
    World world(Streaming(config));
    world.SetHosts("a", {"h1"});
    SimClient& client = world.Connect();
    SimClient& other = world.Connect();
    const std::string bad = world.Request(7, Body(100'000), {{"unwritable", ""}});
    client.Send(bad.substr(0, 40'000));
    other.Send(world.Request(1));
    world.RunFor(10 * kMs);
    EXPECT_EQ(Kinds(client.Take()), "E") << "at once";
    EXPECT_EQ(Kinds(other.Take()), "R");
    client.Send(bad.substr(40'000) + world.Request(8, "b", {{"unwritable", ""}}) +
                world.Request(9));
    world.RunFor(10 * kMs);
    std::string kinds = Kinds(client.Take());
    std::sort(kinds.begin(), kinds.end());
    EXPECT_EQ(kinds, "ER");
    EXPECT_EQ(world.Count(LocalReply::kMalformed), 2u);
    EXPECT_EQ(world.Seen().size(), 2u) << "nothing of them is sent";
    client.Reset();
    other.Reset();
    world.RunFor(10 * kSecond);
    world.ExpectQuiet();
  }
}

TEST(Streaming, AReplyThatCannotBeWrittenIsReplacedByAnErrorAndDropped) {
  for (const size_t size : {10, 100'000}) {
    World world(Streaming());
    world.SetHosts("a", {"h1"});
    Manual(world, "h1");
    SimClient& client = world.Connect();
    SimClient& other = world.Connect();
    client.Send(world.Request(1));
    other.Send(world.Request(1));
    world.RunFor(kMs);
    ASSERT_EQ(world.connections.size(), 1u);
    SimConnection& connection = *world.connections[0];
    const std::vector<FakeParsed> seen = ParseFakeMessages(connection.received);
    ASSERT_EQ(seen.size(), 2u);
    const std::string bad = FakeMessage('R', seen[0].id, {{"unwritable", ""}}, Body(size));
    connection.Send(bad.substr(0, size * 2 / 3));
    world.RunFor(kMs);
    connection.Send(bad.substr(size * 2 / 3) + FakeMessage('R', seen[1].id));
    world.RunFor(kMs);
    EXPECT_EQ(Kinds(client.Take()), "E");
    EXPECT_EQ(world.Count(LocalReply::kBadResponse), 1u);
    EXPECT_EQ(Kinds(other.Take()), "R") << "over the same connection";
    EXPECT_TRUE(client.alive());
    client.Reset();
    other.Reset();
    world.RunFor(10 * kSecond);
    world.ExpectQuiet();
  }
}

TEST(Streaming, AReplyThatCannotBeWrittenKeepsItsTurnAmongOrderedReplies) {
  World world(With(FakePipelinedWithIds(), UpstreamMode::kShared));
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& client = world.Connect();
  client.Send(world.Request(1) + world.Request(2) + world.Request(3));
  world.RunFor(kMs);
  ASSERT_EQ(world.connections.size(), 1u);
  SimConnection& connection = *world.connections[0];
  const std::vector<FakeParsed> seen = ParseFakeMessages(connection.received);
  ASSERT_EQ(seen.size(), 3u);
  connection.Send(FakeMessage('R', seen[2].id) +
                  FakeMessage('R', seen[1].id, {{"unwritable", ""}}, "b"));
  world.RunFor(kMs);
  EXPECT_EQ(Kinds(client.Take()), "");
  connection.Send(FakeMessage('R', seen[0].id));
  world.RunFor(kMs);
  EXPECT_EQ(Kinds(client.Take()), "RER");
}

TEST(Streaming, SmallMessagesAreNotStreamed) {
  World world({.limits = {.stream_message_bytes = 5000}});
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  client.Send(world.Request(1, Body(3000)).substr(0, 2000));
  world.RunFor(10 * kMs);
  EXPECT_TRUE(world.connections.empty());
}

TEST(Streaming, RouteThatLooksAtTheBodyWaitsForIt) {
  SimConfig config = Streaming();
  config.routes = {SimRoute{.match = {Exact("body", Body(3000))}}};
  World world(config);
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  const std::string request = world.Request(1, Body(3000));
  client.Send(request.substr(0, 2000));
  world.RunFor(10 * kMs);
  EXPECT_TRUE(world.connections.empty());
  client.Send(request.substr(2000));
  world.RunFor(10 * kMs);
  EXPECT_EQ(Kinds(client.Take()), "R");
}

TEST(Streaming, MutationOfAHeadIsAppliedToAStreamedMessage) {
  for (const bool in_head : {true, false}) {
    SimConfig config = Streaming();
    FakeOptions options = FakeMultiplexed();
    options.mutation_in_head = in_head;
    config.codec = std::make_shared<FakeCodec>(options);
    config.routes = {SimRoute{.request_mutation = {{MutationOp::Kind::kSet, "k", "v"}},
                              .response_mutation = {{MutationOp::Kind::kSet, "r", "w"}}}};
    World world(config);
    world.SetHosts("a", {"h1"});
    Manual(world, "h1");
    SimClient& client = world.Connect();
    const std::string request = world.Request(1, Body(5000));
    client.Send(request.substr(0, 3000));
    world.RunFor(10 * kMs);
    EXPECT_EQ(world.connections.empty(), !in_head);
    client.Send(request.substr(3000));
    world.RunFor(10 * kMs);
    ASSERT_EQ(world.Seen().size(), 1u);
    EXPECT_EQ(world.Seen()[0].kv, (FakeKv{{"name", "1"}, {"k", "v"}}));
    EXPECT_EQ(world.Seen()[0].body, Body(5000));
    const std::string reply = world.wire().Make('R', world.Seen()[0].id, "1", Body(5000));
    world.connections[0]->Send(reply.substr(0, 3000));
    EXPECT_EQ(client.received.empty(), !in_head);
    world.connections[0]->Send(reply.substr(3000));
    const auto replies = client.Take();
    ASSERT_EQ(Kinds(replies), "R");
    EXPECT_EQ(replies[0].kv, (FakeKv{{"name", "1"}, {"r", "w"}}));
    EXPECT_EQ(replies[0].body, Body(5000));
  }
}

TEST(Streaming, SlowSenderSharesItsConnectionWithNobody) {
  World world(Streaming());
  world.SetHosts("a", {"h1"});
  SimClient& slow = world.Connect();
  SimClient& quick = world.Connect();
  const std::string request = world.Request(1, Body(5000));
  slow.Send(request.substr(0, 2000));
  world.RunFor(10 * kMs);
  for (uint64_t i = 2; i < 6; ++i) {
    quick.Send(world.Request(i));
    world.RunFor(10 * kMs);
    EXPECT_EQ(quick.Take().size(), 1u);
  }
  EXPECT_EQ(world.connections.size(), 2u);
  slow.Send(request.substr(2000));
  world.RunFor(10 * kMs);
  EXPECT_EQ(Kinds(slow.Take()), "R");
}

TEST(Streaming, LargeRequestDoesNotTakeAConnectionThatOthersAreOn) {
  World world(Streaming());
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& first = world.Connect();
  first.Send(world.Request(1));
  world.RunFor(kMs);
  SimClient& large = world.Connect();
  large.Send(world.Request(2, Body(5000)).substr(0, 2000));
  world.RunFor(kMs);
  EXPECT_EQ(world.connections.size(), 2u);
}

TEST(Streaming, LargeRequestThatCameAtOnceSharesAConnection) {
  World world(Streaming());
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  std::vector<SimClient*> clients;
  for (uint64_t id = 1; id <= 3; ++id) {
    clients.push_back(&world.Connect());
    // Pieces of several messages, each cut somewhere in the middle; a small one at the end.
    SendInSlices(world, *clients.back(),
                 world.Request(10 * id, Body(3000)) + world.Request(10 * id + 1, Body(3500)) +
                     world.Request(10 * id + 2),
                 700);
  }
  world.RunFor(kMs);
  ASSERT_EQ(world.connections.size(), 1u);
  const auto seen = world.Seen();
  ASSERT_EQ(seen.size(), 9u);
  for (size_t i = 0; i < seen.size(); ++i) {
    EXPECT_EQ(seen[i].body.size(), std::vector<size_t>({3000, 3500, 0})[i % 3]);
    world.connections[0]->Send(world.wire().Make('R', seen[i].id, std::to_string(i), Body(2000)));
  }
  world.RunFor(kMs);
  for (size_t i = 0; i < clients.size(); ++i) {
    EXPECT_EQ(Tokens(clients[i]->Take()),
              (Texts{std::to_string(3 * i), std::to_string(3 * i + 1), std::to_string(3 * i + 2)}));
  }
}

TEST(Streaming, LargeRequestThatCameAtOnceIsAloneIfItIsVeryLargeOrNotAllThere) {
  for (const auto& [body, sent] : {std::pair{5000, 5200}, {3000, 2500}}) {
    World world(Streaming());
    world.SetHosts("a", {"h1"});
    Manual(world, "h1");
    world.Connect().Send(world.Request(1));
    world.RunFor(kMs);
    SendInSlices(
        world, world.Connect(),
        world.Request(2, Body(static_cast<size_t>(body))).substr(0, static_cast<size_t>(sent)),
        700);
    world.RunFor(kMs);
    EXPECT_EQ(world.connections.size(), 2u) << body;
  }
}

TEST(Streaming, LargeReplyReachesTheClientWhileItIsStillBeingSent) {
  World world(Streaming());
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kMs);
  const std::string reply = world.wire().Make('R', world.Seen()[0].id, "1", Body(50000));
  world.connections[0]->Send(reply.substr(0, 20000));
  EXPECT_GT(client.received.size(), 19000u);
  world.connections[0]->Send(reply.substr(20000));
  const auto replies = client.Take();
  ASSERT_EQ(Kinds(replies), "R");
  EXPECT_EQ(replies[0].body.size(), 50000u);
}

TEST(Streaming, LargeRepliesToOneClientNeverInterleave) {
  World world(Streaming());
  world.policy.exchanges_per_shared_lease = 1;
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& client = world.Connect();
  client.Send(world.Request(1) + world.Request(2) + world.Request(3));
  world.RunFor(kMs);
  ASSERT_EQ(world.connections.size(), 3u);
  std::vector<std::string> replies;
  for (auto& connection : world.connections) {
    const WireMessage& request = connection->requests.at(0);
    replies.push_back(world.wire().Make('R', request.id, request.token, Body(5000)));
  }
  // In turns, with a small reply and a heartbeat in between.
  for (size_t at = 0; at < 6000; at += 2000) {
    for (size_t i = 0; i < 3; ++i) world.connections[i]->Send(replies[i].substr(at, 2000));
    client.Send(world.wire().Make('H', 9, ""));
  }
  const auto got = client.Take();
  EXPECT_EQ(client.reader.used(), client.received.size());
  std::string kinds = Kinds(got);
  std::sort(kinds.begin(), kinds.end());
  EXPECT_EQ(kinds, "RRRhhh");
  for (const WireMessage& message : got) {
    if (message.kind == 'R') {
      EXPECT_EQ(message.body, Body(5000));
    }
  }
}

TEST(Streaming, LargeRepliesOfPipelinedProtocolsKeepTheirOrder) {
  World world(Streaming(Pipelined()));
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& client = world.Connect();
  client.Send(world.Request(1) + world.Request(2) + world.Request(3));
  world.RunFor(kMs);
  ASSERT_EQ(world.connections.size(), 3u);
  std::map<std::string, SimConnection*> by_token;
  for (auto& connection : world.connections) {
    by_token[connection->requests.at(0).token] = connection.get();
  }
  const auto reply = [&](const std::string& token) {
    return world.wire().Make('R', 0, token, Body(5000));
  };
  by_token["3"]->Send(reply("3"));
  by_token["2"]->Send(reply("2").substr(0, 3000));
  EXPECT_TRUE(client.received.empty());
  by_token["1"]->Send(reply("1").substr(0, 3000));
  EXPECT_FALSE(client.received.empty());
  by_token["2"]->Send(reply("2").substr(3000, 1000));
  by_token["1"]->Send(reply("1").substr(3000));
  EXPECT_GT(client.received.size(), reply("1").size()) << "the second passes straight through now";
  by_token["2"]->Send(reply("2").substr(4000));
  const auto got = client.Take();
  EXPECT_EQ(Tokens(got), (Texts{"1", "2", "3"}));
  EXPECT_EQ(client.reader.used(), client.received.size());
}

TEST(Streaming, LargeRequestThatFillsTheSessionIsStillReadToItsEnd) {
  SimConfig config = Streaming();
  config.limits.max_requests_in_flight = 1;
  config.limits.max_bytes_in_flight = 2000;
  World world(config);
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  const std::string request = world.Request(1, Body(5000));
  for (size_t at = 0; at < request.size(); at += 1500) {
    client.Send(request.substr(at, 1500));
    world.RunFor(kMs);
  }
  client.Send(world.Request(2));
  world.RunFor(kSecond);
  EXPECT_EQ(Tokens(client.Take()), (Texts{"1", "2"}));
}

TEST(Streaming, LargeRequestWithoutARouteIsAnsweredAtOnceAndThrownAway) {
  SimConfig config = Streaming();
  config.routes = {SimRoute{.match = {Exact("to", "a")}}};
  World world(config);
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  const std::string request = world.Request(1, Body(5000));
  client.Send(request.substr(0, 2000));
  EXPECT_EQ(Kinds(client.Take()), "E");
  client.Send(request.substr(2000) + world.Request(2, {}, {{"to", "a"}}));
  world.RunFor(kSecond);
  EXPECT_EQ(Tokens(client.Take()), (Texts{"2"}));
}

TEST(Streaming, LargeOneWayMessageIsForwarded) {
  for (const SimConfig& config : {SimConfig{}, Exclusive(), PerSession()}) {
    World world(Streaming(config));
    world.SetHosts("a", {"h1"});
    SimClient& client = world.Connect();
    const std::string message = world.OneWay(1, Body(50000));
    for (size_t at = 0; at < message.size(); at += 7000) client.Send(message.substr(at, 7000));
    client.Send(world.Request(2));
    world.RunFor(kSecond);
    EXPECT_EQ(Tokens(client.Take()), (Texts{"2"}));
    ASSERT_EQ(world.Seen().size(), 2u);
    client.Reset();
    world.RunFor(20 * kSecond);
    world.ExpectQuiet();
  }
}

TEST(Streaming, AnswerToAOneWayMessageThatIsBeingSentGoesNowhere) {
  for (const SimConfig& config : {SimConfig{}, Exclusive(), PerSession()}) {
    World world(Streaming(config));
    world.SetHosts("a", {"h1"});
    Manual(world, "h1");
    SimClient& client = world.Connect();
    const std::string message = world.OneWay(1, Body(5000));
    client.Send(message.substr(0, 2000));
    world.RunFor(kMs);
    SimConnection& connection = *world.connections.at(0);
    const uint64_t id = world.wire().has_ids() ? LoadBe64(connection.received.data() + 5) : 0;
    connection.Send(world.wire().Make('R', id, "1"));
    client.Send(message.substr(2000));
    world.RunFor(kSecond);
    EXPECT_TRUE(client.received.empty());
    EXPECT_EQ(world.exchanges(), 0u);
    EXPECT_TRUE(client.alive());
  }
}

TEST(Streaming, ReplyThatStallsForEverDoesNotKeepItsLeaseForEver) {
  for (const bool host_leaves : {false, true}) {
    World world(Streaming());
    world.SetHosts("a", {"h1"});
    Manual(world, "h1");
    SimClient& client = world.Connect();
    client.Send(world.Request(1));
    world.RunFor(kMs);
    world.connections[0]->Send(
        world.wire().Make('R', world.Seen()[0].id, "1", Body(5000)).substr(0, 3000));
    if (host_leaves) world.SetHosts("a", {"h2"});
    client.Reset();
    world.RunFor(20 * kSecond);
    world.ExpectQuiet();
    EXPECT_TRUE(world.Open().empty()) << "half a reply is to come on it";
  }
}

TEST(Streaming, HeartbeatOfAServerIsAnsweredBetweenMessages) {
  World world(Streaming());
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  const std::string request = world.Request(1, Body(5000));
  client.Send(request.substr(0, 2000));
  world.RunFor(kMs);
  world.connections.at(0)->Send(world.wire().Make('H', 5, ""));
  world.RunFor(kMs);
  client.Send(request.substr(2000));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(world.Seen()), "Qh");
  EXPECT_EQ(Kinds(client.Take()), "R");
}

TEST(Streaming, MessageTimeoutCoversTheWholeMessage) {
  SimConfig config = Streaming();
  config.limits.message_timeout_us = 5 * kSecond;
  World world(config);
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  client.Send(world.Request(1, Body(50000)).substr(0, 2000));
  for (int i = 0; i < 10 && client.alive(); ++i) {
    client.Send("x");
    world.RunFor(kSecond);
  }
  EXPECT_TRUE(client.closed);
  EXPECT_EQ(world.Count(Counter::kSlowClientsClosed), 1u);
}

}  // namespace
}  // namespace metaprotocol::test
