// Exchanges: each request that expects a reply gets exactly one, its own.
#include <algorithm>
#include <map>

#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {
namespace {

TEST(Exchange, GetsItsOwnReplyUnderItsOwnId) {
  World world;
  world.SetHosts("a", {"h1"});
  SimClient& one = world.Connect();
  SimClient& two = world.Connect();
  one.Send(world.Request(7) + world.Request(8));
  two.Send(world.Request(7));
  world.RunFor(10 * kMs);
  EXPECT_EQ(Ids(one.Take()), (std::vector<uint64_t>{7, 8}));
  const auto replies = two.Take();
  ASSERT_EQ(Kinds(replies), "R");
  EXPECT_EQ(replies[0].id, 7u);
  EXPECT_EQ(replies[0].token, "7");
  EXPECT_EQ(world.Count(Counter::kRequests), 3u);
  EXPECT_EQ(world.Count(Counter::kResponsesOk), 3u);
  one.Reset();
  two.Reset();
  world.RunFor(10 * kSecond);
  world.ExpectQuiet();
}

TEST(Exchange, ARequestThatCannotBeDecodedCostsNobodyElseAnything) {
  World world;
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  SimClient& other = world.Connect();
  client.Send(world.Request(1) + FakeMessage('U', 2, {{"name", "n"}}, "?") + world.Request(3));
  other.Send(world.Request(1));
  world.RunFor(10 * kMs);
  auto replies = client.Take();
  ASSERT_EQ(replies.size(), 3u);
  std::sort(replies.begin(), replies.end(), [](auto& a, auto& b) { return a.id < b.id; });
  EXPECT_EQ(Kinds(replies), "RER");
  EXPECT_EQ(replies[1].id, 2u);
  EXPECT_EQ(world.Count(LocalReply::kMalformed), 1u);
  EXPECT_EQ(world.Count(Counter::kDownstreamMalformed), 1u);
  EXPECT_TRUE(client.alive());
  EXPECT_EQ(Kinds(other.Take()), "R");
  EXPECT_EQ(world.Seen().size(), 3u) << "the server sees nothing of it";
}

TEST(Exchange, AnUndecodableRequestThatComesInPiecesIsPassedOverToItsEnd) {
  World world;
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  const std::string bad = FakeMessage('U', 2, {}, std::string(1000, 'x'));
  client.Send(bad.substr(0, 100));
  world.RunFor(kMs);
  EXPECT_EQ(Kinds(client.Take()), "E") << "at once";
  client.Send(bad.substr(100, 500));
  client.Send(bad.substr(600) + world.Request(3));
  world.RunFor(10 * kMs);
  EXPECT_EQ(Kinds(client.Take()), "R");
  client.Reset();
  world.RunFor(10 * kSecond);
  world.ExpectQuiet();
}

TEST(Exchange, AReplyIsEncodedWithWhatItsRequestSaid) {
  FakeOptions options = FakeMultiplexed();
  options.carries_tag = true;
  World world(With(options, UpstreamMode::kShared));
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  client.Send(FakeMessage('Q', 1, {{"tag", "17"}}, "x") + FakeMessage('Q', 2, {{"tag", "4"}}, "y"));
  world.RunFor(10 * kMs);
  std::map<uint64_t, FakeKv> found;
  for (const FakeParsed& reply : ParseFakeMessages(client.received)) found[reply.id] = reply.kv;
  EXPECT_EQ(found[1], (FakeKv{{"for", "17"}}));
  EXPECT_EQ(found[2], (FakeKv{{"for", "4"}}));
}

TEST(Exchange, TheClientsOwnTimeoutHoldsWhereItIsTheShorterOne) {
  const auto answered_after = [](uint64_t of_route_ms, const FakeKv& kv, std::string* seen) {
    World world({.routes = {SimRoute{.timeout_us = of_route_ms * kMs}}});
    world.SetHosts("a", {"h1"});
    world.servers["h1"].mode = SimServer::Mode::kSilent;
    SimClient& client = world.Connect();
    client.Send(FakeMessage('Q', 1, kv));
    uint64_t ms = 0;
    while (client.received.empty() && ms < 1000) {
      world.RunFor(10 * kMs);
      ms += 10;
    }
    const FakeParsed asked = ParseFakeMessages(world.connections.at(0)->received).at(0);
    for (const auto& [key, value] : asked.kv) {
      if (key == "timeout") *seen = value;
    }
    return ms;
  };
  std::string seen = "-";
  EXPECT_NEAR(answered_after(0, {{"timeout", "100"}}, &seen), 100, 20);
  EXPECT_EQ(seen, "100");
  EXPECT_NEAR(answered_after(500, {{"timeout", "100"}}, &seen), 100, 20);
  EXPECT_EQ(seen, "100");
  EXPECT_NEAR(answered_after(50, {{"timeout", "400"}}, &seen), 50, 20);
  EXPECT_EQ(seen, "50") << "the server is told how long somebody waits";
  seen = "-";
  EXPECT_NEAR(answered_after(50, {{"a", "b"}}, &seen), 50, 20);
  EXPECT_EQ(seen, "-");
  EXPECT_EQ(answered_after(0, {}, &seen), 1000);
}

TEST(Exchange, RepliesAreCountedByTheirStatus) {
  World world;
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& client = world.Connect();
  client.Send(world.Request(1) + world.Request(2) + world.Request(3));
  world.RunFor(kMs);
  const auto seen = world.Seen();
  ASSERT_EQ(seen.size(), 3u);
  world.connections[0]->Reply(seen[0], 'R');
  world.connections[0]->Reply(seen[1], 'X');
  world.connections[0]->Reply(seen[2], 'E');
  EXPECT_EQ(Kinds(client.Take()), "RXE");
  EXPECT_EQ(world.Count(Counter::kResponsesOk), 1u);
  EXPECT_EQ(world.Count(Counter::kResponsesException), 1u);
  EXPECT_EQ(world.Count(Counter::kResponsesError), 1u);
}

TEST(Exchange, RepliesOfMultiplexedProtocolsComeInAnyOrder) {
  World world;
  world.SetHosts("a", {"h1"});
  world.servers["h1"].reorder = 3;
  SimClient& client = world.Connect();
  client.Send(world.Request(1) + world.Request(2) + world.Request(3));
  world.RunFor(10 * kMs);
  EXPECT_EQ(Ids(client.Take()), (std::vector<uint64_t>{3, 2, 1}));
}

TEST(Exchange, RepliesOfPipelinedProtocolsComeInRequestOrder) {
  World world(Pipelined());
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& client = world.Connect();
  client.Send(world.Request(1) + world.Request(2) + world.Request(3));
  world.RunFor(kMs);
  // Exclusive leases: each request is on its own connection.
  ASSERT_EQ(world.connections.size(), 3u);
  for (int i = 2; i >= 0; --i) {
    EXPECT_EQ(client.Take().size(), 0u);
    for (auto& connection : world.connections) {
      ASSERT_EQ(connection->requests.size(), 1u);
      if (connection->requests[0].token == std::to_string(i + 1)) {
        connection->Reply(connection->requests[0]);
      }
    }
  }
  EXPECT_EQ(Tokens(client.Take()), (Texts{"1", "2", "3"}));
}

TEST(Exchange, LocalRepliesOfPipelinedProtocolsWaitForTheirTurn) {
  SimConfig config = Pipelined();
  config.routes = {SimRoute{.match = {Exact("to", "a")}},
                   SimRoute{.match = {Exact("to", "direct")}, .direct_reply = LocalReply::kDenied}};
  World world(config);
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& client = world.Connect();
  client.Send(world.Request(1, {}, {{"to", "a"}}) + world.Request(2, {}, {{"to", "direct"}}) +
              world.Request(3, {}, {{"to", "nowhere"}}) + world.Request(4, {}, {{"to", "a"}}));
  world.RunFor(kMs);
  EXPECT_TRUE(client.Take().empty());
  ASSERT_EQ(world.connections.size(), 2u);
  for (auto& connection : world.connections) connection->Reply(connection->requests.at(0));
  const auto replies = client.Take();
  EXPECT_EQ(Tokens(replies), (Texts{"1", "2", "3", "4"}));
  EXPECT_EQ(Kinds(replies), "REER");
  EXPECT_EQ(replies[1].body, "denied");
  EXPECT_EQ(replies[2].body, "no_route");
  client.Reset();
  world.RunFor(10 * kSecond);
  world.ExpectQuiet();
}

TEST(Exchange, FailuresOfPipelinedProtocolsWaitForTheirTurn) {
  World world(Pipelined());
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& client = world.Connect();
  client.Send(world.Request(1) + world.Request(2));
  world.RunFor(kMs);
  ASSERT_EQ(world.connections.size(), 2u);
  auto& second = world.connections[world.connections[0]->requests[0].token == "2" ? 0 : 1];
  auto& first = world.connections[world.connections[0]->requests[0].token == "2" ? 1 : 0];
  second->Close();
  EXPECT_TRUE(client.Take().empty());
  first->Reply(first->requests[0]);
  const auto replies = client.Take();
  EXPECT_EQ(Tokens(replies), (Texts{"1", "2"}));
  EXPECT_EQ(Kinds(replies), "RE");
}

TEST(Exchange, TimesOutWithTheProtocolsOwnError) {
  World world({.routes = {SimRoute{.timeout_us = 100 * kMs}}});
  world.SetHosts("a", {"h1"});
  world.servers["h1"].mode = SimServer::Mode::kSilent;
  SimClient& client = world.Connect();
  client.Send(world.Request(5));
  world.RunFor(99 * kMs);
  EXPECT_TRUE(client.Take().empty());
  world.RunFor(10 * kMs);
  const auto replies = client.Take();
  ASSERT_EQ(Kinds(replies), "E");
  EXPECT_EQ(replies[0].id, 5u);
  EXPECT_EQ(replies[0].body, "timeout");
  EXPECT_EQ(world.Count(LocalReply::kTimeout), 1u);
}

// Requests say in their `tag` how many microseconds their client waits, and that is passed on.
class TimedCodec : public FakeCodec {
 public:
  using FakeCodec::FakeCodec;
  DecodeResult Decode(DecodeState* state, Direction direction, Bytes bytes,
                      const DecodeOptions& options, Message& message) const override {
    const DecodeResult result = FakeCodec::Decode(state, direction, bytes, options, message);
    if (direction == Direction::kRequest) message.timeout_us = message.tag;
    return result;
  }
  Encoded Encode(const Message& message, Bytes bytes, const EncodeOptions& options,
                 std::string& out) const override {
    if (options.timeout_us != 0) passed_on = options.timeout_us;
    return FakeCodec::Encode(message, bytes, options, out);
  }
  mutable uint64_t passed_on = 0;  // in place of the client's
};

TEST(Exchange, TheShorterTimeoutHoldsOfTheClientsAndTheRoutes) {
  struct Case {
    uint64_t routes;
    uint64_t clients;
    uint64_t holds;
    uint64_t passed_on;
  };
  for (const Case& c : {Case{100 * kMs, 0, 100 * kMs, 0}, Case{0, 100 * kMs, 100 * kMs, 0},
                        Case{300 * kMs, 100 * kMs, 100 * kMs, 0},
                        Case{100 * kMs, 300 * kMs, 100 * kMs, 100 * kMs}}) {
    const auto codec = std::make_shared<TimedCodec>();
    World world({.codec = codec, .routes = {SimRoute{.timeout_us = c.routes}}});
    world.SetHosts("a", {"h1"});
    world.servers["h1"].mode = SimServer::Mode::kSilent;
    SimClient& client = world.Connect();
    client.Send(world.Request(5, {}, {{"tag", std::to_string(c.clients)}}));
    world.RunFor(c.holds - kMs);
    EXPECT_TRUE(client.Take().empty());
    world.RunFor(10 * kMs);
    EXPECT_EQ(Kinds(client.Take()), "E");
    EXPECT_EQ(codec->passed_on, c.passed_on);
  }
}

TEST(Exchange, TakesTheDefaultTimeoutWhereTheRouteHasNone) {
  World world({.default_timeout_us = 50 * kMs});
  world.SetHosts("a", {"h1"});
  world.servers["h1"].mode = SimServer::Mode::kSilent;
  SimClient& client = world.Connect();
  client.Send(world.Request(5));
  world.RunFor(60 * kMs);
  EXPECT_EQ(Kinds(client.Take()), "E");
}

TEST(Exchange, DropsAndCountsALateReply) {
  World world({.routes = {SimRoute{.timeout_us = 100 * kMs}}});
  world.SetHosts("a", {"h1"});
  world.servers["h1"].delay_us = 200 * kMs;
  SimClient& client = world.Connect();
  client.Send(world.Request(5));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(client.Take()), "E");
  EXPECT_EQ(world.Count(Counter::kLateReplies), 1u);
  EXPECT_EQ(world.Count(Counter::kResponsesOk), 0u);
  // The connection is as good as before.
  world.servers["h1"].delay_us = 0;
  client.Send(world.Request(6));
  world.RunFor(kSecond);
  EXPECT_EQ(Tokens(client.Take()), (Texts{"6"}));
  EXPECT_EQ(world.connections.size(), 1u);
}

TEST(Exchange, LateReplyOfAnExclusiveConnectionReachesNobody) {
  SimConfig config = Exclusive();
  config.routes = {SimRoute{.timeout_us = 100 * kMs}};
  World world(config);
  world.SetHosts("a", {"h1"});
  world.servers["h1"].delay_us = 200 * kMs;
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(150 * kMs);
  EXPECT_EQ(Kinds(client.Take()), "E");
  client.Send(world.Request(2));
  world.servers["h1"].delay_us = 0;
  world.RunFor(kSecond);
  const auto replies = client.Take();
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].token, "2");
  EXPECT_EQ(world.connections.size(), 2u);
}

TEST(Exchange, LateReplyIsNotTakenForAnothersAfterTheConnectionWentThroughThePool) {
  for (const UpstreamMode mode : {UpstreamMode::kShared, UpstreamMode::kPerSession}) {
    SimConfig config;
    config.mode = mode;
    World world(config);
    world.SetHosts("a", {"h1"});
    Manual(world, "h1");
    SimClient& gone = world.Connect();
    gone.Send(world.Request(1));
    world.RunFor(kMs);
    const WireMessage first = world.Seen().at(0);
    gone.Reset();
    world.RunFor(20 * kSecond);  // idle leases have gone back by now
    SimClient& next = world.Connect();
    next.Send(world.Request(2));
    world.RunFor(kMs);
    world.connections[0]->Reply(first);
    for (const WireMessage& message : next.Take()) EXPECT_EQ(message.token, "2");
  }
}

TEST(Exchange, ForwardsAOneWayMessageOnceAndNeverAnswersIt) {
  for (const SimConfig& config : {SimConfig{}, Pipelined(), Exclusive(), PerSession()}) {
    World world(config);
    world.SetHosts("a", {"h1"});
    SimClient& client = world.Connect();
    client.Send(world.OneWay(1) + world.OneWay(2));
    world.RunFor(10 * kSecond);
    EXPECT_EQ(Kinds(world.Seen()), "OO");
    EXPECT_TRUE(client.received.empty());
    EXPECT_EQ(world.Count(Counter::kOneWay), 2u);
    EXPECT_EQ(world.Count(Counter::kRequests), 0u);
    client.Reset();
    world.RunFor(10 * kSecond);
    EXPECT_EQ(Kinds(world.Seen()), "OO");
    world.ExpectQuiet();
  }
}

TEST(Exchange, OneWayMessageIsNotAnsweredWhenItCannotBeForwarded) {
  SimConfig config;
  config.routes = {SimRoute{.match = {Exact("to", "a")}}};
  World world(config);
  world.SetHosts("a", {});
  SimClient& client = world.Connect();
  client.Send(world.OneWay(1) + world.OneWay(2, {}, {{"to", "a"}}));
  world.RunFor(kSecond);
  EXPECT_TRUE(client.received.empty());
  EXPECT_EQ(world.Count(LocalReply::kNoRoute), 1u);
  EXPECT_EQ(world.Count(LocalReply::kNoHealthyUpstream), 1u);
  EXPECT_EQ(world.exchanges(), 0u);
}

TEST(Exchange, OneWayMessageOfAClientThatLeavesAtOnceIsForwarded) {
  for (const SimConfig& config : {SimConfig{}, Exclusive(), PerSession()}) {
    for (const bool reset : {false, true}) {
      World world(config);
      world.SetHosts("a", {"h1"});
      SimClient& client = world.Connect();
      client.Send(world.OneWay(1));
      if (reset) {
        client.Reset();
      } else {
        client.Finish();
      }
      world.RunFor(20 * kSecond);
      EXPECT_EQ(Kinds(world.Seen()), "O");
      world.ExpectQuiet();
    }
  }
}

TEST(Exchange, OneWayMessageThatWaitsForAConnectionOutlivesItsClientAndHoldsUpNoReply) {
  SimConfig config = Pipelined();
  config.routes = {SimRoute{.match = {Exact("to", "b")}, .clusters = {{"b", 1}}}, SimRoute{}};
  World world(config);
  world.policy.max_leases_per_host = 1;
  world.SetHosts("a", {"h1"});
  world.SetHosts("b", {"h2"});
  world.servers["h1"].delay_us = 100 * kMs;
  SimClient& busy = world.Connect();
  SimClient& client = world.Connect();
  busy.Send(world.Request(1));
  client.Send(world.OneWay(2) + world.Request(3, {}, {{"to", "b"}}) + world.Request(4));
  world.RunFor(50 * kMs);
  EXPECT_EQ(Tokens(client.Take()), (Texts{"3"}));
  EXPECT_EQ(world.Count(Counter::kOneWay), 0u);
  client.Reset();
  world.RunFor(10 * kSecond);
  EXPECT_EQ(world.Count(Counter::kOneWay), 1u);
  EXPECT_EQ(Kinds(world.Open("h1").at(0)->requests), "QO");
  busy.Reset();
  world.RunFor(10 * kSecond);
  world.ExpectQuiet();
}

TEST(Exchange, OneWayMessageIsForwardedByALeaseWhoseHostLeavesMeanwhile) {
  for (const SimConfig& config : {SimConfig{}, Exclusive(), PerSession()}) {
    World world(config);
    world.SetHosts("a", {"h1"});
    SimClient& client = world.Connect();
    client.Send(world.OneWay(1));
    world.SetHosts("a", {"h2"});
    world.RunFor(20 * kSecond);
    EXPECT_EQ(Kinds(world.Seen()), "O");
  }
}

TEST(Exchange, MutatesRequestsAndReplies) {
  SimConfig config;
  config.routes = {SimRoute{.request_mutation = {{MutationOp::Kind::kSet, "tenant", "blue"},
                                                 {MutationOp::Kind::kAddIfAbsent, "color", "red"},
                                                 {MutationOp::Kind::kRemove, "secret", ""}},
                            .response_mutation = {{MutationOp::Kind::kSet, "via", "proxy"}}}};
  World world(config);
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  client.Send(world.Request(1, "body", {{"secret", "x"}, {"color", "green"}}));
  world.RunFor(10 * kMs);
  const auto seen = world.Seen();
  ASSERT_EQ(seen.size(), 1u);
  EXPECT_EQ(seen[0].kv, (FakeKv{{"name", "1"}, {"color", "green"}, {"tenant", "blue"}}));
  EXPECT_EQ(seen[0].body, "body");
  const auto replies = client.Take();
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].kv, (FakeKv{{"name", "1"}, {"via", "proxy"}}));
}

TEST(Exchange, ClientThatLeavesIsCountedAndItsReplyReachesNobody) {
  World world;
  world.SetHosts("a", {"h1"});
  SimClient& gone = world.Connect();
  SimClient& stays = world.Connect();
  gone.Send(world.Request(1) + world.Request(2));
  stays.Send(world.Request(3));
  gone.Reset();
  world.RunFor(kSecond);
  EXPECT_EQ(world.Count(Counter::kClientGone), 2u);
  EXPECT_EQ(world.Count(Counter::kLateReplies), 2u);
  EXPECT_TRUE(gone.received.empty());
  EXPECT_EQ(Tokens(stays.Take()), (Texts{"3"}));
  world.RunFor(10 * kSecond);
  world.ExpectQuiet();
}

TEST(Exchange, ClientThatHalfClosesStillGetsItsReplies) {
  for (const SimConfig& config : {SimConfig{}, Pipelined(), Exclusive(), PerSession()}) {
    World world(config);
    world.SetHosts("a", {"h1"});
    SimClient& client = world.Connect();
    client.Send(world.Request(1) + world.Request(2));
    client.Finish();
    EXPECT_TRUE(client.alive());
    world.RunFor(kSecond);
    EXPECT_EQ(client.Take().size(), 2u);
    EXPECT_EQ(client.closed, CloseMode::kFlush);
    world.RunFor(10 * kSecond);
    world.ExpectQuiet();
  }
}

TEST(Exchange, MeasuresTheTimeFromRequestToReply) {
  World world;
  world.SetHosts("a", {"h1"});
  world.servers["h1"].delay_us = 30 * kMs;
  world.servers["h1"].connect = SimServer::Connect::kNow;
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kSecond);
  EXPECT_EQ(world.Times(), (std::vector<uint64_t>{30 * kMs}));
}

// A protocol whose errors cannot be said: the client must not take a later reply for the missing
// one.
class WordlessCodec : public FakeCodec {
 public:
  using FakeCodec::FakeCodec;
  bool Reply(const ReplyContext&, LocalReply, std::string_view, std::string&) const override {
    return false;
  }
};

TEST(Exchange, WithoutAWordForAnErrorTheConnectionEndsInItsPlace) {
  for (const bool ordered : {false, true}) {
    SimConfig config = ordered ? Pipelined() : SimConfig{};
    config.codec = std::make_shared<WordlessCodec>(ordered ? FakePipelined() : FakeMultiplexed());
    config.routes = {SimRoute{.match = {Exact("to", "a")}},
                     SimRoute{.match = {Exact("to", "b")}, .clusters = {{"b", 1}}}};
    World world(config);
    world.SetHosts("a", {"h1"});
    world.SetHosts("b", {"h2"});
    world.servers["h1"].delay_us = 50 * kMs;
    Manual(world, "h2");
    SimClient& client = world.Connect();
    client.Send(world.Request(1, {}, {{"to", "a"}}) + world.Request(2, {}, {{"to", "b"}}) +
                world.Request(3, {}, {{"to", "a"}}));
    world.RunFor(kMs);
    for (SimConnection* connection : world.Open("h2")) connection->Close();
    client.Send(world.Request(4, {}, {{"to", "a"}}));
    world.RunFor(kSecond);
    const auto tokens = Tokens(client.Take());
    if (ordered) {
      EXPECT_EQ(tokens, (Texts{"1"}));
    } else {
      EXPECT_EQ(tokens, (Texts{"1", "3"}));
    }
    EXPECT_TRUE(client.closed);
    world.RunFor(10 * kSecond);
    world.ExpectQuiet();
  }
}

}  // namespace
}  // namespace metaprotocol::test
