// Bounds: what happens at each limit, and that nothing grows beyond it.
#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {
namespace {

TEST(Bounds, MessageOverTheSizeLimitIsAnsweredAndItsConnectionClosed) {
  World world({.limits = {.max_message_bytes = 1000}});
  world.SetHosts("a", {"h1"});
  SimClient& bad = world.Connect();
  SimClient& good = world.Connect();
  // The head is enough to know.
  bad.Send(world.Request(1, std::string(2000, 'x')).substr(0, 100));
  const auto replies = bad.Take();
  ASSERT_EQ(Kinds(replies), "E");
  EXPECT_EQ(replies[0].id, 1u);
  EXPECT_EQ(replies[0].body, "too_large");
  EXPECT_EQ(bad.closed, CloseMode::kFlush);
  EXPECT_EQ(world.Count(Counter::kDownstreamMalformed), 1u);
  good.Send(world.Request(2));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(good.Take()), "R");
  EXPECT_TRUE(good.alive());
}

TEST(Bounds, MessageOfExactlyTheSizeLimitPasses) {
  World world;
  const std::string request = world.Request(1, std::string(5000, 'x'));
  for (const size_t limit : {request.size(), request.size() - 1}) {
    World bounded({.limits = {.max_message_bytes = limit}});
    bounded.SetHosts("a", {"h1"});
    SimClient& client = bounded.Connect();
    client.Send(request);
    bounded.RunFor(kSecond);
    EXPECT_EQ(Kinds(client.Take()), limit == request.size() ? "R" : "E");
  }
}

TEST(Bounds, ReplyOverTheSizeLimitFailsItsRequest) {
  World world({.limits = {.max_message_bytes = 1000}});
  world.SetHosts("a", {"h1"});
  world.servers["h1"].reply_body_bytes = 2000;
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(client.Take()), "E");
  EXPECT_EQ(world.Count(Counter::kUpstreamMalformed), 1u);
  EXPECT_TRUE(client.alive());
}

TEST(Bounds, ReplyOverTheSizeLimitIsNoticedByNobodyElse) {
  for (const SimConfig& base : {SimConfig{}, Pipelined(), Exclusive(), PerSession()}) {
    SimConfig config = base;
    config.limits.max_message_bytes = 1000;
    World world(config);
    world.SetHosts("a", {"h1"});
    Manual(world, "h1");
    SimClient& large = world.Connect();
    SimClient& other = world.Connect();
    large.Send(world.Request(1));
    other.Send(world.Request(2));
    world.RunFor(kMs);
    for (const auto& connection : world.connections) {
      for (const WireMessage& request : connection->requests) {
        connection->Reply(request, 'R', std::string(request.token == "1" ? 50000 : 10, 'x'));
      }
    }
    world.RunFor(kMs);
    const auto replies = large.Take();
    ASSERT_EQ(Kinds(replies), "E");
    EXPECT_EQ(replies[0].body, "too_large");
    EXPECT_EQ(Tokens(other.Take()), Texts{"2"});
    EXPECT_TRUE(large.alive());
    // In pieces, and with a reply close behind.
    large.Send(world.Request(3));
    other.Send(world.Request(4));
    world.RunFor(kMs);
    for (const auto& connection : world.connections) {
      std::string all;
      for (const WireMessage& request : connection->requests) {
        if (request.token != "3" && request.token != "4") continue;
        all += world.wire().Make('R', request.id, request.token,
                                 std::string(request.token == "3" ? 5000 : 10, 'x'));
      }
      for (size_t i = 0; i < all.size() && connection->open; i += 700) {
        connection->Send(all.substr(i, 700));
      }
    }
    EXPECT_EQ(Kinds(large.Take()), "E");
    EXPECT_EQ(Tokens(other.Take()), Texts{"4"});
  }
}

TEST(Bounds, MalformedMessageEndsOnlyItsConnection) {
  World world;
  world.SetHosts("a", {"h1"});
  world.servers["h1"].delay_us = 10 * kMs;
  SimClient& bad = world.Connect();
  SimClient& good = world.Connect();
  bad.Send(world.Request(1));
  good.Send(world.Request(2));
  world.RunFor(kMs);
  bad.Send(std::string(20, '\x7f'));
  world.RunFor(kSecond);
  EXPECT_EQ(bad.closed, CloseMode::kFlush);
  EXPECT_EQ(Tokens(bad.Take()), (Texts{"1"})) << "what came before is answered";
  EXPECT_EQ(Tokens(good.Take()), (Texts{"2"}));
  EXPECT_EQ(world.Count(Counter::kDownstreamMalformed), 1u);
  world.RunFor(20 * kSecond);
  world.ExpectQuiet();
}

TEST(Bounds, WhatCameBeforeAMalformedMessageIsAnsweredAndThenTheConnectionEnds) {
  for (const SimConfig& config : {SimConfig{}, Pipelined(), Exclusive()}) {
    World world(config);
    world.SetHosts("a", {"h1"});
    SimClient& client = world.Connect();
    client.Send(world.Request(1) + world.Request(2) +
                std::string("\0\0\0\x20zzzzzzzzzzzzzzzz", 20));
    EXPECT_TRUE(client.alive());
    client.Send(world.Request(3));  // nothing behind it is a message
    world.RunFor(kSecond);
    EXPECT_EQ(client.closed, CloseMode::kFlush);
    Texts answered = Tokens(client.Take());
    std::sort(answered.begin(), answered.end());
    EXPECT_EQ(answered, (Texts{"1", "2"}));
    EXPECT_EQ(world.Count(Counter::kClientGone), 0u);
    EXPECT_EQ(world.Count(Counter::kDownstreamMalformed), 1u);
    world.RunFor(20 * kSecond);
    world.ExpectQuiet();
  }
}

TEST(Bounds, SessionWithTooManyRequestsInFlightIsPausedAndResumed) {
  for (const SimConfig& base : {SimConfig{}, Pipelined(), Exclusive()}) {
    SimConfig config = base;
    config.limits.max_requests_in_flight = 3;
    World world(config);
    world.SetHosts("a", {"h1"});
    world.servers["h1"].delay_us = 10 * kMs;
    SimClient& client = world.Connect();
    for (uint64_t i = 1; i <= 10; ++i) client.Send(world.Request(i));
    EXPECT_TRUE(client.paused);
    EXPECT_EQ(world.exchanges(), 3u);
    world.RunFor(kSecond);
    EXPECT_EQ(client.Take().size(), 10u);
    EXPECT_FALSE(client.paused);
    EXPECT_GE(world.Count(Counter::kReadPaused), 1u);
  }
}

TEST(Bounds, RequestsReadInOnePieceKeepTheLimitToo) {
  SimConfig config;
  config.limits.max_requests_in_flight = 2;
  World world(config);
  world.SetHosts("a", {"h1"});
  world.servers["h1"].delay_us = 10 * kMs;
  SimClient& client = world.Connect();
  std::string all;
  for (uint64_t i = 1; i <= 100; ++i) all += world.Request(i);
  client.Send(all);
  size_t most = 0;
  for (int i = 0; i < 1000; ++i) {
    world.RunFor(kMs);
    most = std::max(most, world.exchanges());
  }
  EXPECT_EQ(client.Take().size(), 100u);
  EXPECT_EQ(most, 2u);
  EXPECT_LE(world.pauses, 2u) << "resumed only when all that was read is handled";
}

TEST(Bounds, SessionWithTooManyBytesInFlightIsPausedAndResumed) {
  World world({.limits = {.max_bytes_in_flight = 3000}});
  world.SetHosts("a", {"h1"});
  world.servers["h1"].delay_us = 10 * kMs;
  SimClient& client = world.Connect();
  for (uint64_t i = 1; i <= 10; ++i) client.Send(world.Request(i, std::string(1000, 'x')));
  EXPECT_TRUE(client.paused);
  EXPECT_EQ(world.exchanges(), 3u);
  world.RunFor(kSecond);
  EXPECT_EQ(client.Take().size(), 10u);
}

TEST(Bounds, LocalRepliesThatWaitForTheirTurnCountAsInFlight) {
  SimConfig config = Pipelined();
  config.routes = {SimRoute{.match = {Exact("to", "a")}}};
  config.limits.max_requests_in_flight = 10;
  World world(config);
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& client = world.Connect();
  client.Send(world.Request(0, {}, {{"to", "a"}}));
  for (uint64_t i = 1; i <= 100; ++i) client.Send(world.Request(i));
  EXPECT_TRUE(client.paused);
  EXPECT_LE(world.exchanges(), 10u);
  world.RunFor(kMs);
  world.connections[0]->Reply(world.Seen().at(0));
  world.RunFor(kMs);
  EXPECT_EQ(client.Take().size(), 101u);
}

TEST(Bounds, RequestOverTheBytesOfALeaseTakesAnotherLease) {
  World world;
  world.policy.max_lease_bytes_in_flight = 2500;
  world.policy.max_leases_per_host = 2;
  world.SetHosts("a", {"h1"});
  world.servers["h1"].mode = SimServer::Mode::kSilent;
  SimClient& client = world.Connect();
  for (uint64_t i = 1; i <= 4; ++i) client.Send(world.Request(i, std::string(1000, 'x')));
  world.RunFor(kMs);
  EXPECT_EQ(world.connections.size(), 2u);
  EXPECT_TRUE(client.received.empty());
  // Both are full now.
  client.Send(world.Request(5, std::string(1000, 'x')));
  const auto replies = client.Take();
  ASSERT_EQ(Kinds(replies), "E");
  EXPECT_EQ(replies[0].body, "over_limit");
}

TEST(Bounds, RequestLargerThanALeaseMayCarryGoesAloneOnOne) {
  World world;
  world.policy.max_lease_bytes_in_flight = 2500;
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  client.Send(world.Request(1, std::string(5000, 'x')));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(client.Take()), "R");
}

TEST(Bounds, ClusterWithTooManyRequestsIsOverItsLimit) {
  World world;
  world.policy.max_requests_in_flight = 3;
  world.SetHosts("a", {"h1", "h2"});
  world.servers["h1"].mode = world.servers["h2"].mode = SimServer::Mode::kSilent;
  for (int i = 0; i < 4; ++i) world.Connect().Send(world.Request(1));
  EXPECT_EQ(Kinds(world.clients[3]->Take()), "E");
  EXPECT_EQ(world.Count(LocalReply::kOverLimit), 1u);
  world.clients[0]->Reset();
  world.Connect().Send(world.Request(1));
  EXPECT_TRUE(world.clients[4]->received.empty()) << "there is room again";
}

TEST(Bounds, ClusterWithTooManyBytesIsOverItsLimit) {
  World world;
  world.policy.max_bytes_in_flight = 2500;
  world.SetHosts("a", {"h1"});
  world.servers["h1"].mode = SimServer::Mode::kSilent;
  SimClient& client = world.Connect();
  for (uint64_t i = 1; i <= 3; ++i) client.Send(world.Request(i, std::string(1000, 'x')));
  EXPECT_EQ(Ids(client.Take()), (std::vector<uint64_t>{3}));
}

TEST(Bounds, TooManyRequestsThatWaitForAnExclusiveLeaseAreOverTheLimit) {
  World world(Exclusive());
  world.policy.max_leases_per_host = 1;
  world.policy.max_pending_requests = 2;
  world.SetHosts("a", {"h1"});
  world.servers["h1"].delay_us = 10 * kMs;
  for (int i = 0; i < 5; ++i) world.Connect().Send(world.Request(1));
  EXPECT_EQ(world.Count(LocalReply::kOverLimit), 2u);
  world.RunFor(kSecond);
  EXPECT_EQ(world.Count(Counter::kResponsesOk), 3u);
}

TEST(Bounds, RequestsThatWaitForDifferentHostsOfAClusterAreCountedTogether) {
  World world(Exclusive());
  world.policy.max_leases_per_host = 1;
  world.policy.max_pending_requests = 2;
  world.SetHosts("a", {"h1", "h2", "h3"});
  for (auto& [address, server] : world.servers) server.delay_us = 10 * kMs;
  for (int i = 0; i < 12; ++i) world.Connect().Send(world.Request(1));
  EXPECT_EQ(world.Count(LocalReply::kOverLimit), 7u) << "three go, two wait";
  world.RunFor(11 * kMs);
  for (int i = 0; i < 3; ++i) world.Connect().Send(world.Request(1));
  EXPECT_EQ(world.Count(LocalReply::kOverLimit), 7u) << "their places are free again";
  world.RunFor(kSecond);
  EXPECT_EQ(world.Count(Counter::kResponsesOk), 8u);
}

TEST(Bounds, LeasesOfAHostAreBounded) {
  World world(PerSession());
  world.policy.max_leases_per_host = 2;
  world.SetHosts("a", {"h1"});
  for (int i = 0; i < 3; ++i) world.Connect().Send(world.Request(1));
  EXPECT_EQ(world.Count(LocalReply::kOverLimit), 1u);
  world.RunFor(kSecond);
  EXPECT_EQ(world.connections.size(), 2u);
}

TEST(Bounds, SessionsOfAWorkerAreBounded) {
  World world({.limits = {.max_sessions_per_worker = 2}});
  SimClient& first = world.Connect();
  world.Connect();
  EXPECT_TRUE(world.Connect().refused);
  EXPECT_EQ(world.Count(Counter::kSessionsRefused), 1u);
  first.Reset();
  EXPECT_FALSE(world.Connect().refused);
  EXPECT_EQ(world.Count(Counter::kSessionsOpened), 3u);
}

TEST(Bounds, OneWayMessagesThatWaitForAConnectionAreBounded) {
  for (const SimConfig& config : {SimConfig{}, Exclusive(), PerSession()}) {
    World world(config);
    world.policy.max_lease_bytes_in_flight = 5000;
    world.policy.max_leases_per_host = 1;
    world.policy.max_pending_requests = 3;
    world.SetHosts("a", {"h1"});
    SimClient& client = world.Connect();
    for (uint64_t i = 0; i < 100; ++i) client.Send(world.OneWay(i, std::string(1000, 'x')));
    EXPECT_GE(world.Count(LocalReply::kOverLimit), 90u);
    world.RunFor(kSecond);
    EXPECT_EQ(world.Seen().size() + world.Count(LocalReply::kOverLimit), 100u);
    EXPECT_EQ(world.Count(Counter::kOneWay), world.Seen().size());
  }
}

TEST(Bounds, ClientThatDoesNotTakeItsRepliesIsNotRead) {
  World world;
  world.SetHosts("a", {"h1"});
  world.servers["h1"].reply_body_bytes = 30000;
  SimClient& client = world.Connect();
  client.SetReading(false);
  for (uint64_t i = 1; i <= 5; ++i) {
    client.Send(world.Request(i));
    world.RunFor(kMs);
  }
  EXPECT_TRUE(client.paused);
  EXPECT_LT(world.Seen().size(), 5u);
  client.SetReading(true);
  world.RunFor(kSecond);
  EXPECT_EQ(client.Take().size(), 5u);
  EXPECT_FALSE(client.paused);
}

TEST(Bounds, ClientThatNeverTakesItsRepliesIsClosedAfterTheTimeout) {
  World world({.limits = {.slow_client_timeout_us = 2 * kSecond}});
  world.SetHosts("a", {"h1"});
  world.servers["h1"].reply_body_bytes = 30000;
  SimClient& client = world.Connect();
  client.SetReading(false);
  for (uint64_t i = 1; i <= 5; ++i) client.Send(world.Request(i));
  world.RunFor(1900 * kMs);
  EXPECT_TRUE(client.alive());
  world.RunFor(200 * kMs);
  EXPECT_EQ(client.closed, CloseMode::kAbort);
  EXPECT_EQ(world.Count(Counter::kSlowClientsClosed), 1u);
  world.RunFor(10 * kSecond);
  world.ExpectQuiet();
}

TEST(Bounds, UnreadRepliesAreBounded) {
  World world({.limits = {.max_unread_reply_bytes = 200000, .slow_client_timeout_us = 0}});
  world.SetHosts("a", {"h1"});
  world.servers["h1"].reply_body_bytes = 30000;
  SimClient& client = world.Connect();
  client.SetReading(false);
  std::string all;
  for (uint64_t i = 1; i <= 100; ++i) all += world.Request(i);
  client.Send(all);
  world.RunFor(kSecond);
  EXPECT_EQ(client.closed, CloseMode::kAbort);
  EXPECT_LT(client.received.size() + client.unread.size(), 400000u);
  world.RunFor(20 * kSecond);
  world.ExpectQuiet();
}

TEST(Bounds, RepliesThatWaitForOthersAreBounded) {
  // The first reply never comes to its end; the others must wait for it.
  for (const SimConfig& base : {SimConfig{}, Pipelined()}) {
    SimConfig config = base;
    config.limits.stream_message_bytes = 1024;
    config.limits.max_unread_reply_bytes = 100000;
    World world(config);
    world.policy.max_shared_leases_per_host = 100;
    world.policy.exchanges_per_shared_lease = 1;
    world.SetHosts("a", {"h1"});
    Manual(world, "h1");
    SimClient& client = world.Connect();
    for (uint64_t i = 0; i < 50; ++i) client.Send(world.Request(i));
    world.RunFor(kMs);
    size_t replies = 0;
    for (auto& connection : world.connections) {
      const WireMessage& request = connection->requests.at(0);
      const std::string reply =
          world.wire().Make('R', request.id, request.token, std::string(10000, 'x'));
      if (request.token == "0") {
        connection->Send(reply.substr(0, 5000));
      }
    }
    for (auto& connection : world.connections) {
      const WireMessage& request = connection->requests.at(0);
      if (request.token == "0" || !client.alive()) continue;
      connection->Reply(request, 'R', std::string(10000, 'x'));
      ++replies;
    }
    EXPECT_FALSE(client.alive());
    EXPECT_LE(replies, 11u);
    world.RunFor(20 * kSecond);
    world.ExpectQuiet();
  }
}

TEST(Bounds, HeartbeatAnswersThatWaitForAReplyAreBounded) {
  SimConfig config;
  config.limits.stream_message_bytes = 1024;
  config.limits.max_unread_reply_bytes = 10000;
  World world(config);
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kMs);
  world.connections[0]->Send(
      world.wire().Make('R', world.Seen()[0].id, "1", std::string(5000, 'x')).substr(0, 2000));
  for (int i = 0; i < 10000 && client.alive(); ++i) client.Send(world.wire().Make('H', 1, ""));
  EXPECT_FALSE(client.alive());
}

TEST(Bounds, HeartbeatsOfAServerThatWaitForASlowSenderAreBounded) {
  SimConfig config;
  config.limits.stream_message_bytes = 1024;
  World world(config);
  world.policy.max_lease_bytes_in_flight = 10000;
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& client = world.Connect();
  client.Send(world.Request(1, std::string(5000, 'x')).substr(0, 2000));
  world.RunFor(kMs);
  ASSERT_EQ(world.connections.size(), 1u);
  for (int i = 0; i < 10000 && world.connections[0]->open; ++i) {
    world.connections[0]->Send(world.wire().Make('H', 1, ""));
  }
  EXPECT_FALSE(world.connections[0]->open);
  EXPECT_EQ(Kinds(client.Take()), "E");
}

TEST(Bounds, IdleSessionIsClosedAfterTheTimeout) {
  World world({.limits = {.idle_timeout_us = 10 * kSecond}});
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  world.RunFor(9 * kSecond);
  client.Send(world.Request(1));
  world.RunFor(9 * kSecond);
  EXPECT_TRUE(client.alive());
  world.RunFor(1100 * kMs);
  EXPECT_EQ(client.closed, CloseMode::kFlush);
  EXPECT_EQ(world.Count(Counter::kIdleSessionsClosed), 1u);
}

TEST(Bounds, SessionWithAnOpenRequestIsNotIdle) {
  World world({.limits = {.idle_timeout_us = 10 * kSecond}});
  world.SetHosts("a", {"h1"});
  world.servers["h1"].delay_us = 29 * kSecond;
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(30 * kSecond);
  EXPECT_EQ(Kinds(client.Take()), "R");
  EXPECT_TRUE(client.alive());
  world.RunFor(8 * kSecond);
  EXPECT_TRUE(client.alive()) << "idle since the reply, not since the request";
  world.RunFor(2 * kSecond);
  EXPECT_FALSE(client.alive());
}

TEST(Bounds, MessageThatNeverEndsIsNotWaitedFor) {
  World world({.limits = {.message_timeout_us = 5 * kSecond}});
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  const std::string request = world.Request(1, std::string(100, 'x'));
  for (size_t i = 0; i < 10 && client.alive(); ++i) {
    client.Send(request.substr(i, 1));
    world.RunFor(kSecond);
  }
  EXPECT_TRUE(client.closed);
  EXPECT_EQ(world.Count(Counter::kSlowClientsClosed), 1u);
}

TEST(Bounds, MessageTimeoutBeginsAnewWithEachMessage) {
  World world({.limits = {.message_timeout_us = 5 * kSecond}});
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  for (uint64_t i = 0; i < 5; ++i) {
    const std::string request = world.Request(i, std::string(100, 'x'));
    client.Send(request.substr(0, 10));
    world.RunFor(3 * kSecond);
    client.Send(request.substr(10));
    world.RunFor(3 * kSecond);
  }
  EXPECT_EQ(client.Take().size(), 5u);
  EXPECT_TRUE(client.alive());
}

TEST(Bounds, TimeInWhichASessionIsNotReadDoesNotCountAgainstIt) {
  SimConfig config;
  config.limits.message_timeout_us = 5 * kSecond;
  config.limits.max_requests_in_flight = 1;
  World world(config);
  world.SetHosts("a", {"h1"});
  world.servers["h1"].delay_us = 20 * kSecond;
  SimClient& client = world.Connect();
  const std::string second = world.Request(2, std::string(100, 'x'));
  client.Send(world.Request(1) + second.substr(0, 50));
  world.RunFor(19 * kSecond);
  client.Send(second.substr(50));
  world.RunFor(30 * kSecond);
  EXPECT_EQ(client.Take().size(), 2u);
}

}  // namespace
}  // namespace metaprotocol::test
