// Local rate limits: which requests pass, what the others get, and what a new configuration keeps.
#include <algorithm>

#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {
namespace {

SimConfig Limited(uint32_t tokens, SimConfig config = {}) {
  config.bucket = {tokens, tokens, kSecond};
  return config;
}

class LimitedWorld : public World {
 public:
  explicit LimitedWorld(SimConfig config) : World(std::move(config)) { SetHosts("a", {"h"}); }
};

TEST(LocalRateLimit, RequestsOverItGetTheProtocolsOwnError) {
  for (const SimConfig& config : {SimConfig{}, Pipelined(), Exclusive(), PerSession()}) {
    LimitedWorld world(Limited(2, config));
    SimClient& client = world.Connect();
    for (uint64_t id = 1; id <= 4; ++id) client.Send(world.Request(id));
    world.RunFor(500 * kMs);
    const auto replies = client.Take();
    ASSERT_EQ(replies.size(), 4u);
    for (const WireMessage& reply : replies) {
      EXPECT_EQ(reply.kind, reply.token <= "2" ? 'R' : 'E') << reply.token;
      EXPECT_EQ(reply.body, reply.kind == 'E' ? "over_limit" : "");
    }
    EXPECT_EQ(world.Seen().size(), 2u);
    EXPECT_EQ(world.Count(Counter::kLocalRateLimited, "-", "main/0"), 2u);
    EXPECT_EQ(world.Count(LocalReplyCounter(LocalReply::kOverLimit), "-", "main/0"), 2u);
    world.RunFor(kSecond);
    client.Send(world.Request(5));
    world.RunFor(100 * kMs);
    EXPECT_EQ(Kinds(client.Take()), "R");
    client.Reset();
    world.RunFor(20 * kSecond);
    world.ExpectQuiet();
  }
}

TEST(LocalRateLimit, MessagesWithoutReplyAreDroppedAndCounted) {
  LimitedWorld world(Limited(1));
  SimClient& client = world.Connect();
  client.Send(world.OneWay(1) + world.OneWay(2) + world.OneWay(3));
  world.RunFor(500 * kMs);
  EXPECT_EQ(Tokens(world.Seen()), (Texts{"1"}));
  EXPECT_EQ(client.Take().size(), 0u);
  EXPECT_EQ(world.Count(Counter::kLocalRateLimited), 2u);
  EXPECT_EQ(world.Count(Counter::kOneWay), 1u);
}

TEST(LocalRateLimit, TheFirstRuleThatHoldsSaysWhichBucket) {
  SimConfig config = Limited(1);
  config.limit_rules = {{{Exact("to", "x")}, {2, 2, kSecond}},
                        {{Exact("from", "y")}, {3, 3, kSecond}}};
  LimitedWorld world(config);
  SimClient& client = world.Connect();
  const auto passing = [&](const FakeKv& kv) {
    const size_t before = world.Seen().size();
    for (uint64_t id = 1; id <= 5; ++id) client.Send(world.Request(id, {}, kv));
    world.RunFor(10 * kMs);
    return world.Seen().size() - before;
  };
  EXPECT_EQ(passing({{"to", "x"}, {"from", "y"}}), 2u);
  EXPECT_EQ(passing({{"from", "y"}}), 3u);
  EXPECT_EQ(passing({}), 1u);
  EXPECT_EQ(passing({{"to", "x"}}), 0u) << "that bucket is empty, and no other is tried";
}

TEST(LocalRateLimit, WithoutADefaultBucketTheRestIsNotLimited) {
  SimConfig config;
  config.limit_rules = {{{Exact("to", "x")}, {1, 1, kSecond}}};
  LimitedWorld world(config);
  SimClient& client = world.Connect();
  for (uint64_t id = 1; id <= 50; ++id) client.Send(world.Request(id));
  world.RunFor(100 * kMs);
  EXPECT_EQ(world.Seen().size(), 50u);
}

TEST(LocalRateLimit, TakesNoTokenForRequestsWithoutARoute) {
  SimConfig config = Limited(1);
  config.routes[0].match = {Exact("to", "x")};
  LimitedWorld world(config);
  SimClient& client = world.Connect();
  client.Send(world.Request(1) + world.Request(2) + world.Request(3, {}, {{"to", "x"}}));
  world.RunFor(100 * kMs);
  EXPECT_EQ(Tokens(world.Seen()), (Texts{"3"}));
}

TEST(LocalRateLimit, HoldsForDirectRepliesToo) {
  SimConfig config = Limited(1);
  config.routes[0].direct_reply = LocalReply::kNoContent;
  LimitedWorld world(config);
  SimClient& client = world.Connect();
  client.Send(world.Request(1) + world.Request(2));
  EXPECT_EQ(Kinds(client.Take()), "RE");
}

TEST(LocalRateLimit, TakesOneTokenForARequestThatComesInPieces) {
  SimConfig config = Limited(1);
  config.limits.stream_message_bytes = 1024;
  config.routes[0].request_mutation = {{MutationOp::Kind::kSet, "k", "v"}};  // wants it whole
  LimitedWorld world(config);
  SimClient& client = world.Connect();
  const std::string request = world.Request(1, std::string(5000, 'x'));
  for (size_t at = 0; at < request.size(); at += 500) client.Send(request.substr(at, 500));
  world.RunFor(100 * kMs);
  EXPECT_EQ(Kinds(client.Take()), "R");
}

TEST(LocalRateLimit, ThrowsAwayTheRestOfAStreamedRequestThatHasNoToken) {
  SimConfig config = Limited(1);
  config.limits.stream_message_bytes = 1024;
  LimitedWorld world(config);
  SimClient& client = world.Connect();
  const std::string request = world.Request(2, std::string(5000, 'x'));
  client.Send(world.Request(1) + request.substr(0, 2000));
  client.Send(request.substr(2000) + world.Request(3));
  world.RunFor(100 * kMs);
  EXPECT_EQ(Tokens(world.Seen()), (Texts{"1"}));
  EXPECT_EQ(client.Take().size(), 3u);
  EXPECT_TRUE(client.alive());
}

TEST(LocalRateLimit, ANewConfigurationKeepsTheTokensOfBucketsThatStayAsTheyAre) {
  SimConfig config = Limited(2);
  config.limit_rules = {{{Exact("to", "x")}, {2, 2, kSecond}}};
  LimitedWorld world(config);
  SimClient& client = world.Connect();
  const auto pass = [&](const FakeKv& kv) {
    const size_t before = world.Seen().size();
    for (uint64_t id = 1; id <= 3; ++id) client.Send(world.Request(id, {}, kv));
    world.RunFor(kMs);
    return world.Seen().size() - before;
  };
  EXPECT_EQ(pass({}), 2u);
  EXPECT_EQ(pass({{"to", "x"}}), 2u);
  for (int i = 0; i < 20; ++i) {
    config.default_timeout_us += kSecond;
    world.Publish(config);
    EXPECT_EQ(pass({}) + pass({{"to", "x"}}), 0u);
  }
  config.bucket->max_tokens = 1;
  world.Publish(config);
  EXPECT_EQ(pass({}), 1u) << "another bucket begins full";
  EXPECT_EQ(pass({{"to", "x"}}), 0u) << "the other one has not changed";
  config.limit_rules.clear();
  world.Publish(config);
  EXPECT_EQ(pass({{"to", "x"}}), 0u) << "takes from the default bucket now";
}

TEST(LocalRateLimit, EachValueOfTheKeysHasABucketOfItsOwn) {
  for (const SimConfig& base : {SimConfig{}, Pipelined(), Exclusive(), PerSession()}) {
    SimConfig config = base;
    config.limit_rules = {{{Exact("to", "x")}, {2, 2, kSecond}, {"user", "method"}}};
    LimitedWorld world(config);
    SimClient& client = world.Connect();
    SimClient& other = world.Connect();
    const auto passing = [&](const FakeKv& kv) {
      const size_t before = world.Seen().size();
      for (uint64_t id = 1; id <= 4; ++id) {
        (id % 2 == 0 ? client : other).Send(world.Request(id, {}, kv));
      }
      world.RunFor(10 * kMs);
      return world.Seen().size() - before;
    };
    EXPECT_EQ(passing({{"to", "x"}, {"user", "a"}, {"method", "m"}}), 2u);
    EXPECT_EQ(passing({{"to", "x"}, {"user", "a"}, {"method", "m"}}), 0u);
    EXPECT_EQ(passing({{"to", "x"}, {"user", "b"}, {"method", "m"}}), 2u);
    EXPECT_EQ(passing({{"to", "x"}, {"user", "a"}}), 2u) << "without a key, too";
    EXPECT_EQ(passing({{"to", "x"}, {"user", "a"}, {"method", ""}}), 0u) << "as if it were empty";
    EXPECT_EQ(passing({{"user", "a"}, {"method", "m"}}), 4u) << "not what the rule is about";
    world.RunFor(kSecond);
    EXPECT_EQ(passing({{"to", "x"}, {"user", "a"}, {"method", "m"}}), 2u);
    EXPECT_EQ(world.Count(Counter::kLocalRateLimitShared), 0u);
    client.Reset();
    other.Reset();
    world.RunFor(20 * kSecond);
    world.ExpectQuiet();
  }
}

TEST(LocalRateLimit, ValuesBeyondTheBoundShareOneBucketAndNobodyElseNotices) {
  SimConfig config;
  config.limit_rules = {{{}, {2, 2, kSecond}, {"user"}, 3}};
  LimitedWorld world(config);
  SimClient& client = world.Connect();
  SimClient& attacker = world.Connect();
  client.Send(world.Request(1, {}, {{"user", "me"}}));
  for (uint64_t id = 1; id <= 500; ++id) {
    attacker.Send(world.Request(id, {}, {{"user", "u" + std::to_string(id)}}));
  }
  client.Send(world.Request(2, {}, {{"user", "me"}}) + world.Request(3, {}, {{"user", "me"}}));
  world.RunFor(10 * kMs);
  EXPECT_EQ(Kinds(client.Take()), "ERR") << "two pass, and the third is answered at once";
  EXPECT_EQ(world.Seen().size(), 2u + 2u + 2u) << "two more buckets, and the shared one's tokens";
  EXPECT_EQ(world.Count(Counter::kLocalRateLimitShared, "-", "main/0"), 498u);
  EXPECT_EQ(world.Count(Counter::kLocalRateLimited, "-", "main/0"), 497u);
}

TEST(LocalRateLimit, ANewConfigurationKeepsTheBucketsOfValues) {
  SimConfig config;
  config.limit_rules = {{{}, {2, 2, kSecond}, {"user"}}};
  LimitedWorld world(config);
  SimClient& client = world.Connect();
  const auto passing = [&] {
    const size_t before = world.Seen().size();
    for (uint64_t id = 1; id <= 3; ++id) {
      client.Send(world.Request(id, {}, {{"user", "a"}, {"other", "a"}}));
    }
    world.RunFor(kMs);
    return world.Seen().size() - before;
  };
  EXPECT_EQ(passing(), 2u);
  config.default_timeout_us += kSecond;
  world.Publish(config);
  EXPECT_EQ(passing(), 0u);
  config.limit_rules[0].per_value_of = {"other"};
  world.Publish(config);
  EXPECT_EQ(passing(), 2u) << "what a value means has changed";
  config.limit_rules[0].per_value_of = {};
  world.Publish(config);
  EXPECT_EQ(passing(), 2u) << "one bucket for all is another one";
}

TEST(LocalRateLimit, HoldsForAllEnginesOfTheProcess) {
  LimitedWorld one(Limited(5));
  LimitedWorld two(Limited(100));
  two.slot = one.slot;
  SimClient& first = one.Connect();
  SimClient& second = two.Connect();
  for (uint64_t id = 1; id <= 10; ++id) {
    first.Send(one.Request(id));
    second.Send(two.Request(id));
  }
  one.RunFor(100 * kMs);
  two.RunFor(100 * kMs);
  EXPECT_EQ(one.Seen().size() + two.Seen().size(), 5u);
}

std::string ToldOfBucket(const WireMessage& reply) {
  std::string told;
  for (const auto& [key, value] : reply.kv) {
    if (key.starts_with("x-ratelimit-")) told += key.substr(12) + "=" + value + " ";
  }
  return told;
}

TEST(LocalRateLimit, ClientsAreToldWhatIsLeftInWhateverReplyTheyGet) {
  for (SimConfig config : {SimConfig{}, Pipelined(), Exclusive(), PerSession()}) {
    config.bucket = {2, 1, 10 * kSecond};
    config.limit_tells_clients = true;
    config.routes[0].response_mutation = {{MutationOp::Kind::kSet, "via", "route"}};
    LimitedWorld world(config);
    SimClient& client = world.Connect();
    const auto told = [&] {
      client.Send(world.Request(1));
      world.RunFor(100 * kMs);
      const auto replies = client.Take();
      EXPECT_EQ(replies.size(), 1u);
      const FakeKv& kv = replies[0].kv;
      const bool via =
          std::find(kv.begin(), kv.end(), FakeKv::value_type("via", "route")) != kv.end();
      return std::string(1, replies[0].kind) + (via ? "v " : " ") + ToldOfBucket(replies[0]);
    };
    EXPECT_EQ(told(), "Rv limit=2 remaining=1 reset=10 ");
    EXPECT_EQ(told(), "Rv limit=2 remaining=0 reset=10 ");
    world.RunFor(3 * kSecond);
    EXPECT_EQ(told(), "E limit=2 remaining=0 reset=7 ") << "the route's changes are not for ours";
    world.RunFor(7 * kSecond);
    EXPECT_EQ(told(), "Rv limit=2 remaining=0 reset=10 ");
    client.Reset();
    world.RunFor(20 * kSecond);
    world.ExpectQuiet();
  }
}

TEST(LocalRateLimit, NobodyIsToldOfALimitThatIsNotThere) {
  SimConfig config;
  config.limit_rules = {{{Exact("to", "x")}, {9, 1, kSecond}}};
  config.limit_tells_clients = true;
  LimitedWorld world(config);
  SimClient& client = world.Connect();
  client.Send(world.Request(1) + world.Request(2, {}, {{"to", "x"}}) + world.OneWay(3));
  world.RunFor(kMs);
  const auto replies = client.Take();
  ASSERT_EQ(replies.size(), 2u);
  EXPECT_EQ(ToldOfBucket(replies[0]), "");
  EXPECT_EQ(ToldOfBucket(replies[1]), "limit=9 remaining=8 reset=1 ");
}

// The law: what is told to have been left is exactly what passes.
TEST(LocalRateLimit, WhatIsToldToBeLeftPasses) {
  for (const bool by_value : {false, true}) {
    SimConfig config = Limited(50);
    config.bucket->tokens_per_fill = 7;
    if (by_value) {
      config.limit_rules = {{{}, *config.bucket, {"user"}}};
      config.bucket.reset();
    }
    config.limit_tells_clients = true;
    LimitedWorld world(config);
    SimClient& client = world.Connect();
    size_t left = 50;
    for (uint64_t id = 1; id <= 400; ++id) {
      if (id % 100 == 1 && id != 1) left += 7;  // a second has passed
      client.Send(world.Request(id, {}, {{"user", "me"}}));
      world.RunFor(10 * kMs);
      const auto replies = client.Take();
      ASSERT_EQ(replies.size(), 1u);
      const std::string expected = "limit=50 remaining=" + std::to_string(left - (left > 0)) + " ";
      ASSERT_TRUE(ToldOfBucket(replies[0]).starts_with(expected)) << id << ToldOfBucket(replies[0]);
      ASSERT_EQ(replies[0].kind, left > 0 ? 'R' : 'E') << id;
      left -= left > 0;
    }
    EXPECT_EQ(world.Seen().size(), 50u + 3 * 7);
  }
}

}  // namespace
}  // namespace metaprotocol::test
