// Retries. The laws: what may have been done is not done again unless the route says so; nothing is
// tried again once a reply has begun; a cluster that fails gets hardly more load for it; what is
// kept for retries is bounded.
#include <algorithm>

#include "src/route/retry_policy.h"
#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {
namespace {

SimConfig Retrying(RetryPolicy policy, SimConfig config = {}) {
  config.routes = {SimRoute{.retry = std::move(policy)}};
  return config;
}

void ExpectQuietAfterClients(World& world) {
  for (const auto& client : world.clients) {
    if (client->alive()) client->Reset();
  }
  world.RunFor(60 * kSecond);
  world.ExpectQuiet();
}

TEST(Retry, RefusedConnectionCostsNoCallIfThereIsAnotherHost) {
  for (const SimConfig& base : EveryMode()) {
    World world(Retrying({.backoff_us = 25 * kMs, .max_backoff_us = 250 * kMs}, base));
    world.SetHosts("a", {"h1", "h2"});
    world.servers["h1"].connect = SimServer::Connect::kRefuse;
    for (uint64_t i = 0; i < 20; ++i) {
      SimClient& client = world.Connect();
      client.Send(world.Request(i));
      world.RunFor(kSecond);
      EXPECT_EQ(Kinds(client.Take()), "R");
    }
    ExpectQuietAfterClients(world);
  }
}

TEST(Retry, HostThatComesBackWithinThePausesLosesNoCall) {
  World world(Retrying({.retries = 5, .backoff_us = 100 * kMs, .max_backoff_us = kSecond}));
  world.SetHosts("a", {"h1"});
  world.servers["h1"].connect = SimServer::Connect::kRefuse;
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.At(world.now() + 60 * kMs,
           [&world] { world.servers["h1"].connect = SimServer::Connect::kLater; });
  world.RunFor(5 * kSecond);
  EXPECT_EQ(Kinds(client.Take()), "R");
  EXPECT_GE(world.Count(Counter::kRetries), 1u);
  EXPECT_EQ(world.Count(Counter::kRetrySuccesses), 1u);
}

TEST(Retry, WhatMayHaveBeenDoneIsDoneAgainOnlyIfTheRouteSaysSo) {
  for (const SimConfig& base : {SimConfig{}, Pipelined(), Exclusive()}) {
    for (const bool lost : {false, true}) {
      RetryPolicy policy;
      if (lost) policy.causes |= RetryPolicy::kLost;
      World world(Retrying(policy, base));
      world.SetHosts("a", {"h1", "h2"});
      for (const char* host : {"h1", "h2"}) {
        world.servers[host].on_message = [](SimConnection& connection, const WireMessage& request) {
          if (connection.world_.Seen().size() == 1) {
            connection.Close();
          } else {
            connection.Reply(request);
          }
        };
      }
      SimClient& client = world.Connect();
      client.Send(world.Request(1));
      world.RunFor(kSecond);
      EXPECT_EQ(Kinds(client.Take()), lost ? "R" : "E");
      EXPECT_EQ(world.Seen().size(), lost ? 2u : 1u);
      ExpectQuietAfterClients(world);
    }
  }
}

TEST(Retry, AttemptThatTakesTooLongIsGivenUpForAnotherHost) {
  for (const SimConfig& base : {SimConfig{}, Pipelined(), Exclusive()}) {
    World world(Retrying({.causes = RetryPolicy::kTimeout, .per_try_timeout_us = 50 * kMs}, base));
    world.SetHosts("a", {"h1", "h2"});
    Manual(world, "h1");
    for (uint64_t i = 0; i < 10; ++i) {
      SimClient& client = world.Connect();
      client.Send(world.Request(i));
      world.RunFor(kSecond);
      EXPECT_EQ(Kinds(client.Take()), "R");
    }
    EXPECT_GE(world.Count(Counter::kRetries), 1u);
    ExpectQuietAfterClients(world);
  }
}

TEST(Retry, AttemptsEndAndTheClientLearnsWhy) {
  for (const SimConfig& base : {SimConfig{}, Pipelined(), Exclusive()}) {
    World world(Retrying(
        {.retries = 3, .causes = RetryPolicy::kTimeout, .per_try_timeout_us = 50 * kMs}, base));
    world.SetHosts("a", {"h1"});
    Manual(world, "h1");
    SimClient& client = world.Connect();
    client.Send(world.Request(1));
    world.RunFor(kSecond);
    EXPECT_EQ(Kinds(client.Take()), "E");
    EXPECT_EQ(world.Seen().size(), 4u);
    EXPECT_EQ(world.Count(LocalReply::kTimeout), 1u);
    ExpectQuietAfterClients(world);
  }
}

TEST(Retry, TimeOfTheRouteBoundsAllAttemptsTogether) {
  SimConfig config =
      Retrying({.retries = 100, .causes = RetryPolicy::kTimeout, .per_try_timeout_us = 50 * kMs});
  config.routes[0].timeout_us = 180 * kMs;
  World world(config);
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(200 * kMs);
  EXPECT_EQ(Kinds(client.Take()), "E");
  EXPECT_LE(world.Seen().size(), 4u);
}

TEST(Retry, RepliesOfTheNamedKindsAreNotTheLast) {
  struct Case {
    uint8_t causes;
    char kind;
    bool retried;
  };
  for (const SimConfig& base : {SimConfig{}, Pipelined(), Exclusive()}) {
    for (const Case& c : {Case{RetryPolicy::kError, 'E', true},
                          {RetryPolicy::kError, 'X', false},
                          {RetryPolicy::kException, 'X', true},
                          {RetryPolicy::kException, 'E', false},
                          {RetryPolicy::kUnseen, 'E', false}}) {
      for (const size_t body : {size_t{10}, size_t{100000}}) {
        World world(Retrying({.causes = c.causes}, base));
        world.SetHosts("a", {"h1", "h2"});
        world.servers["h1"].reply_kind = c.kind;
        world.servers["h1"].reply_body_bytes = body;
        SimClient& client = world.Connect();
        std::string kinds;
        for (uint64_t i = 0; i < 10; ++i) {
          client.Send(world.Request(i));
          world.RunFor(kSecond);
          kinds += Kinds(client.Take());
        }
        EXPECT_EQ(kinds == std::string(10, 'R'), c.retried) << kinds;
        EXPECT_EQ(kinds.size(), 10u);
        ExpectQuietAfterClients(world);
      }
    }
  }
}

TEST(Retry, RepliesWithAListedKeyAreNotTheLast) {
  for (const SimConfig& base : {SimConfig{}, Pipelined(), Exclusive()}) {
    for (const bool listed : {true, false}) {
      SimConfig config = Retrying({.reply_keys = {"busy"}}, base);
      config.response_keys = {"busy"};
      World world(std::move(config));
      world.SetHosts("a", {"h1", "h2"});
      world.servers["h1"].on_message = [&](SimConnection& connection, const WireMessage& request) {
        const FakeKv kv = {{listed ? "busy" : "other", "very"}};
        connection.Send(world.wire().Make('R', request.id, request.token, "from h1", kv));
      };
      SimClient& client = world.Connect();
      size_t by_h1 = 0;
      for (uint64_t i = 0; i < 10; ++i) {
        client.Send(world.Request(i));
        world.RunFor(kSecond);
        for (const WireMessage& reply : client.Take()) by_h1 += reply.body == "from h1" ? 1 : 0;
      }
      EXPECT_EQ(by_h1 == 0, listed);
      EXPECT_EQ(world.Count(Counter::kRetries) != 0, listed);
      ExpectQuietAfterClients(world);
    }
  }
}

TEST(Retry, LastReplyIsTheClientsWhateverItIs) {
  for (const SimConfig& base : {SimConfig{}, Pipelined(), Exclusive()}) {
    World world(Retrying({.retries = 2, .causes = RetryPolicy::kError}, base));
    world.SetHosts("a", {"h1"});
    world.servers["h1"].reply_kind = 'E';
    SimClient& client = world.Connect();
    client.Send(world.Request(1));
    world.RunFor(kSecond);
    EXPECT_EQ(Kinds(client.Take()), "E");
    EXPECT_EQ(world.Seen().size(), 3u);
    EXPECT_EQ(world.Count(Counter::kResponsesError), 1u);
    EXPECT_EQ(world.Count(Counter::kRequests), 1u);
    ExpectQuietAfterClients(world);
  }
}

TEST(Retry, NothingIsTriedAgainOnceAReplyHasBegun) {
  World world(Retrying({.causes = RetryPolicy::kUnseen | RetryPolicy::kLost}));
  world.SetHosts("a", {"h1", "h2"});
  for (const char* host : {"h1", "h2"}) {
    world.servers[host].on_message = [](SimConnection& connection, const WireMessage& request) {
      const std::string reply = FakeMessage('R', request.id, {}, std::string(100000, 'x'));
      connection.Send(reply.substr(0, 60000));
      connection.Close();
    };
  }
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kSecond);
  EXPECT_EQ(world.Seen().size(), 1u);
  EXPECT_EQ(world.Count(Counter::kRetries), 0u);
}

TEST(Retry, MessagesWithoutReplyAndRequestsInPiecesAreNeverTriedAgain) {
  SimConfig config = Retrying({.causes = RetryPolicy::kUnseen | RetryPolicy::kLost});
  config.limits.stream_message_bytes = 1024;
  World world(config);
  world.SetHosts("a", {"h1", "h2"});
  for (const char* host : {"h1", "h2"}) world.servers[host].close_after = 1;
  SimClient& client = world.Connect();
  client.Send(world.OneWay(1));
  world.RunFor(kSecond);
  EXPECT_EQ(world.Seen().size(), 1u);
  const std::string request = world.Request(2, std::string(5000, 'x'));
  client.Send(request.substr(0, 2000));
  world.RunFor(kMs);
  client.Send(request.substr(2000));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(client.Take()), "E");
  EXPECT_EQ(world.Count(Counter::kRetries), 0u);
}

TEST(Retry, ConnectionsWithAMemoryAreNotReplacedByOthers) {
  World world(Retrying({.causes = RetryPolicy::kUnseen | RetryPolicy::kLost | RetryPolicy::kError},
                       PerSession()));
  world.SetHosts("a", {"h1", "h2"});
  for (const char* host : {"h1", "h2"}) world.servers[host].reply_kind = 'E';
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(client.Take()), "E");
  for (const char* host : {"h1", "h2"}) world.servers[host].close_after = 1;
  client.Send(world.Request(2));
  world.RunFor(kSecond);
  EXPECT_EQ(world.Count(Counter::kRetries), 0u);
}

TEST(Retry, PausesAreRandomAndTheirBoundDoublesUpToTheMaximum) {
  World world(Retrying({.retries = 6,
                        .causes = RetryPolicy::kError,
                        .backoff_us = 100 * kMs,
                        .max_backoff_us = 800 * kMs}));
  world.policy.min_retries_in_flight = 1000;
  world.SetHosts("a", {"h1"});
  std::map<uint64_t, std::vector<uint64_t>> times;
  world.servers["h1"].on_message = [&](SimConnection& connection, const WireMessage& request) {
    times[std::stoull(request.token)].push_back(world.now());
    connection.Reply(request, 'E');
  };
  SimClient& client = world.Connect();
  for (uint64_t i = 0; i < 200; ++i) client.Send(world.Request(i));
  world.RunFor(20 * kSecond);
  ASSERT_EQ(times.size(), 200u);
  std::vector<uint64_t> longest(6, 0);
  uint64_t shortest = ~uint64_t{0};
  for (const auto& [token, at] : times) {
    ASSERT_EQ(at.size(), 7u);
    for (size_t i = 0; i < 6; ++i) {
      longest[i] = std::max(longest[i], at[i + 1] - at[i]);
      shortest = std::min(shortest, at[i + 1] - at[i]);
    }
  }
  EXPECT_LT(shortest, 20 * kMs);
  for (size_t i = 0; i < 6; ++i) {
    const uint64_t bound = std::min<uint64_t>(100 << i, 800) * kMs;
    EXPECT_LE(longest[i], bound + 10 * kMs);  // a timer is up to a tick late
    EXPECT_GE(longest[i], bound * 3 / 4) << "of 200 random pauses one is long";
  }
}

// What the cluster gets when every request fails: what it would get without retries, and not much
// more.
TEST(Retry, StormAgainstADyingClusterFalls) {
  struct Load {
    size_t seen;
    size_t retries;
  };
  const auto run = [](uint64_t reply_us, double percent, uint32_t least) {
    World world(Retrying({.retries = 10,
                          .causes = RetryPolicy::kError | RetryPolicy::kLost,
                          .backoff_us = 25 * kMs,
                          .max_backoff_us = 250 * kMs}));
    world.policy.retry_budget_percent = percent;
    world.policy.min_retries_in_flight = least;
    world.SetHosts("a", {"h1", "h2", "h3"});
    for (const char* host : {"h1", "h2", "h3"}) {
      world.servers[host].reply_kind = 'E';
      world.servers[host].delay_us = reply_us;
    }
    SimClient& client = world.Connect();
    for (uint64_t i = 0; i < 5000; ++i) {
      client.Send(world.Request(i));
      world.RunFor(kMs);
    }
    world.RunFor(10 * kSecond);
    EXPECT_EQ(client.Take().size(), 5000u);
    const Load load{world.Seen().size(), world.Count(Counter::kRetries)};
    EXPECT_GT(world.Count(Counter::kRetriesOverBudget), 0u);
    ExpectQuietAfterClients(world);
    return load;
  };
  // 100 requests under way: a fifth of all may be retries, which makes at most a fourth more.
  const Load slow = run(100 * kMs, 20, 3);
  EXPECT_LE(slow.seen, 5000u * 5 / 4 + 100);
  EXPECT_GT(slow.retries, 100u) << "some are tried again";
  // It fails faster than it is asked: three at a time, each with its pause.
  const Load fast = run(50, 20, 3);
  EXPECT_LE(fast.seen, 5000u * 5 / 4 + 100);
  // None at all.
  EXPECT_EQ(run(50, 0, 0).retries, 0u);
}

TEST(Retry, WhatIsKeptForRetriesIsBounded) {
  SimConfig config = Retrying({.causes = RetryPolicy::kLost});
  config.limits.max_kept_bytes_per_worker = 3000;
  World world(config);
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& client = world.Connect();
  for (int round = 0; round < 3; ++round) {
    const size_t before = world.Seen().size();
    for (uint64_t i = 0; i < 5; ++i) client.Send(world.Request(i, std::string(900, 'x')));
    world.RunFor(100 * kMs);
    EXPECT_EQ(world.Seen().size() - before, 5u);
    // Three are kept and come again, two fail; then the three are answered.
    world.Open("h1").at(0)->Close();
    world.RunFor(100 * kMs);
    EXPECT_EQ(Kinds(client.Take()), "EE");
    EXPECT_EQ(world.Seen().size() - before, 8u);
    for (SimConnection* connection : world.Open("h1")) {
      for (const WireMessage& request : std::vector<WireMessage>(connection->requests)) {
        connection->Reply(request);
      }
    }
    world.RunFor(100 * kMs);
    EXPECT_EQ(Kinds(client.Take()), "RRR");
    for (SimConnection* connection : world.Open("h1")) connection->Close();
    world.RunFor(100 * kMs);
  }
  EXPECT_EQ(world.Count(Counter::kRetriesNotKept), 6u);
}

TEST(Retry, ClientThatLeavesInThePauseEndsIt) {
  for (const SimConfig& base : {SimConfig{}, Pipelined(), Exclusive()}) {
    World world(Retrying({.retries = 100,
                          .causes = RetryPolicy::kError,
                          .backoff_us = kSecond,
                          .max_backoff_us = kSecond},
                         base));
    world.SetHosts("a", {"h1"});
    world.servers["h1"].reply_kind = 'E';
    SimClient& client = world.Connect();
    client.Send(world.Request(1));
    world.RunFor(3 * kMs);
    const size_t seen = world.Seen().size();
    client.Reset();
    world.RunFor(10 * kSecond);
    EXPECT_EQ(world.Seen().size(), seen);
    world.ExpectQuiet();
  }
}

TEST(Retry, ClusterThatGoesAwayInThePauseIsMissed) {
  World world(Retrying({.retries = 100,
                        .causes = RetryPolicy::kError,
                        .backoff_us = kSecond,
                        .max_backoff_us = kSecond}));
  world.SetHosts("a", {"h1"});
  world.servers["h1"].reply_kind = 'E';
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(3 * kMs);
  world.WithEngine([](Engine& engine) { engine.RemoveCluster("a", 1); });
  world.RunFor(30 * kSecond);
  EXPECT_EQ(Kinds(client.Take()), "E");
  EXPECT_EQ(world.Count(LocalReply::kClusterNotFound), 1u);
  ExpectQuietAfterClients(world);
}

TEST(Retry, OtherClientsNoticeNothing) {
  for (const SimConfig& base : {SimConfig{}, Pipelined(), Exclusive()}) {
    World world(Retrying({.retries = 5, .causes = RetryPolicy::kError}, base));
    world.SetHosts("a", {"h1"});
    world.servers["h1"].on_message = [](SimConnection& connection, const WireMessage& request) {
      connection.Reply(request, request.token == "13" ? 'E' : 'R');
    };
    SimClient& one = world.Connect();
    SimClient& other = world.Connect();
    one.Send(world.Request(13));
    for (uint64_t i = 100; i < 110; ++i) {
      other.Send(world.Request(i));
      world.RunFor(kMs);
    }
    world.RunFor(kSecond);
    EXPECT_EQ(Kinds(one.Take()), "E");
    EXPECT_EQ(Kinds(other.Take()), std::string(10, 'R'));
    ExpectQuietAfterClients(world);
  }
}

}  // namespace
}  // namespace metaprotocol::test
