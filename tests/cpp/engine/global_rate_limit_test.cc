// Global rate limits: requests that wait for a service's word.
#include "src/limit/rate_limit_service.h"
#include "tests/cpp/engine/world.h"
#include "tests/cpp/support/proto_fields.h"

namespace metaprotocol::test {
namespace {

using Mode = SimLimiter::Mode;

SimConfig Asking(SimConfig config = {}, SimGlobalLimit limit = {}) {
  config.global_limit = std::move(limit);
  return config;
}

class AskingWorld : public World {
 public:
  explicit AskingWorld(SimConfig config = Asking()) : World(std::move(config)) {
    SetHosts("a", {"h"});
  }
};

std::string QuestionFor(std::string_view who) {
  RateLimitRequestWriter writer;
  writer.BeginDescriptor();
  writer.AddEntry("who", who);
  return writer.Finish("sim");
}

TEST(GlobalRateLimit, RequestsGoOnWhenTheServiceSaysSo) {
  for (const SimConfig& config : EveryMode()) {
    AskingWorld world(Asking(config));
    SimClient& client = world.Connect();
    client.Send(world.Request(1, "body") + world.OneWay(2) + world.Request(3));
    EXPECT_TRUE(world.Seen().empty());
    world.RunFor(kSecond);
    EXPECT_EQ(Tokens(client.Take()), (Texts{"1", "3"}));
    EXPECT_EQ(world.Seen().size(), 3u);
    ASSERT_EQ(world.limiter.questions.size(), 3u);
    const SimLimiter::Question& question = world.limiter.questions[0];
    EXPECT_EQ(question.cluster, "limiter");
    EXPECT_EQ(question.path, "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit");
    EXPECT_EQ(question.message, QuestionFor("1"));
    EXPECT_EQ(question.timeout_us, 20 * kMs);
    EXPECT_EQ(world.Count(Counter::kRateLimitCalls, "a", "main/0"), 3u);
    EXPECT_EQ(world.Count(Counter::kRateLimitFailures), 0u);
    client.Reset();
    world.RunFor(20 * kSecond);
    world.ExpectQuiet();
  }
}

TEST(GlobalRateLimit, RequestsOverItGetTheProtocolsOwnError) {
  for (const SimConfig& config : EveryMode()) {
    AskingWorld world(Asking(config));
    world.limiter.mode = Mode::kRefuses;
    SimClient& client = world.Connect();
    client.Send(world.Request(1) + world.OneWay(2) + world.Request(3));
    world.RunFor(kSecond);
    const auto replies = client.Take();
    EXPECT_EQ(Kinds(replies), "EE");
    for (const WireMessage& reply : replies) EXPECT_EQ(reply.body, "over_limit");
    EXPECT_TRUE(world.Seen().empty());
    EXPECT_EQ(world.Count(Counter::kGlobalRateLimited, "a", "main/0"), 3u);
    EXPECT_EQ(world.Count(LocalReply::kOverLimit), 3u);
    client.Reset();
    world.RunFor(20 * kSecond);
    EXPECT_EQ(world.Value(Gauge::kExchangesActive), 0);
  }
}

TEST(GlobalRateLimit, WithoutAnAnswerRequestsPassOrNotAsConfigured) {
  for (const Mode mode : {Mode::kFails, Mode::kSilent, Mode::kSaysNothing, Mode::kSaysNonsense}) {
    for (const bool deny : {false, true}) {
      AskingWorld world(Asking({}, {.deny_on_fail = deny}));
      world.limiter.mode = mode;
      SimClient& client = world.Connect();
      client.Send(world.Request(1));
      world.RunFor(10 * kMs);
      EXPECT_EQ(client.Take().size(), mode == Mode::kSilent ? 0u : 1u) << "not later than it must";
      world.RunFor(20 * kMs);
      EXPECT_EQ(world.Seen().size(), deny ? 0u : 1u);
      EXPECT_EQ(world.Count(Counter::kRateLimitFailures), 1u);
      EXPECT_EQ(world.Count(Counter::kGlobalRateLimited), deny ? 1u : 0u);
      EXPECT_EQ(world.exchanges(), 0u);
    }
  }
}

TEST(GlobalRateLimit, AnAnswerThatComesTooLateIsIgnored) {
  AskingWorld world;
  world.limiter.mode = Mode::kRefuses;
  world.limiter.delay_us = 50 * kMs;
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(client.Take()), "R");
  EXPECT_EQ(world.Count(Counter::kRateLimitFailures), 1u);
}

TEST(GlobalRateLimit, AsksNothingWithoutAMatchOrAKey) {
  AskingWorld world(Asking({}, {.match = {Exact("to", "x")}, .descriptors = {{{"user", "u"}}}}));
  SimClient& client = world.Connect();
  client.Send(world.Request(1, {}, {{"user", "me"}}) + world.Request(2, {}, {{"to", "x"}}));
  world.RunFor(kMs);
  EXPECT_EQ(client.Take().size(), 2u);
  EXPECT_TRUE(world.limiter.questions.empty());
  client.Send(world.Request(3, {}, {{"to", "x"}, {"user", "me"}}));
  world.RunFor(kMs);
  EXPECT_EQ(world.limiter.questions.size(), 1u);
}

// The entries of each descriptor of a question, "who=1 to=x|lane=slow".
std::string DescriptorsOf(const SimLimiter::Question& question) {
  std::string told;
  ProtoReader reader(question.message);
  for (ProtoField field; reader.Next(field);) {
    if (!field.is(2, WireType::kLength)) continue;
    if (!told.empty()) told += '|';
    ProtoReader entries(field.bytes);
    for (ProtoField entry; entries.Next(entry);) {
      const auto read = ReadProtoEntry(entry.bytes);
      if (!told.empty() && told.back() != '|') told += ' ';
      told += std::string(read->key) + "=" + std::string(read->value);
    }
  }
  return told;
}

TEST(GlobalRateLimit, EachEntryThatMatchesAddsItsDescriptorsToOneQuestion) {
  const SimGlobalLimit limit{
      .match = {Exact("free", "yes")},
      .descriptors = {{{"name", "who"}}},
      .further = {{{Exact("to", "x")}, {{{"to", "to"}, {"user", "user"}}, {{"=slow", "lane"}}}},
                  {{Exact("user", "me")}, {{{"user", "user"}}}},
                  {{}, {{{"nobody", "n"}, {"neither", "m"}}}}}};
  for (const SimConfig& config : EveryMode()) {
    SimGlobalLimit asked = limit;
    asked.match[0].invert = true;
    AskingWorld world(Asking(config, asked));
    SimClient& client = world.Connect();
    client.Send(world.Request(1));
    client.Send(world.Request(2, {}, {{"to", "x"}}));
    client.Send(world.Request(3, {}, {{"to", "y"}, {"user", "me"}}));
    client.Send(world.Request(4, {}, {{"to", "x"}, {"user", "me"}}));
    client.Send(world.Request(5, {}, {{"to", "x"}, {"user", "me"}, {"free", "yes"}}));
    world.RunFor(kSecond);
    EXPECT_EQ(client.Take().size(), 5u);
    std::vector<std::string> asked_for;
    for (const auto& question : world.limiter.questions) {
      asked_for.push_back(DescriptorsOf(question));
    }
    EXPECT_EQ(asked_for, (Texts{"who=1", "who=2|to=x user=|lane=slow", "who=3|user=me",
                                "who=4|to=x user=me|lane=slow|user=me"}));
    client.Reset();
    world.RunFor(20 * kSecond);
    world.ExpectQuiet();
  }
}

TEST(GlobalRateLimit, EntriesAloneAreEnough) {
  AskingWorld world(
      Asking({}, {.descriptors = {}, .further = {{{Exact("to", "x")}, {{{"=all", "kind"}}}}}}));
  world.limiter.mode = Mode::kRefuses;
  SimClient& client = world.Connect();
  client.Send(world.Request(1) + world.Request(2, {}, {{"to", "x"}}));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(client.Take()), "ER") << "the second, at once";
  ASSERT_EQ(world.limiter.questions.size(), 1u);
  EXPECT_EQ(DescriptorsOf(world.limiter.questions[0]), "kind=all");
}

TEST(GlobalRateLimit, AQuestionIsBoundedHoweverLongTheValues) {
  SimGlobalLimit limit{.descriptors = {}};
  for (size_t i = 0; i < GlobalRateLimit::kMostEntries; ++i) {
    limit.further.push_back({{}, {{{"user", "u"}}}});
  }
  AskingWorld world(Asking({}, limit));
  SimClient& client = world.Connect();
  client.Send(world.Request(1, {}, {{"user", std::string(60'000, 'x')}}));
  world.RunFor(kSecond);
  EXPECT_EQ(client.Take().size(), 1u);
  ASSERT_EQ(world.limiter.questions.size(), 1u);
  EXPECT_LT(world.limiter.questions[0].message.size(), GlobalRateLimit::kMostEntries * 4200);
}

TEST(GlobalRateLimit, TheLocalLimitComesFirst) {
  SimConfig config = Asking();
  config.bucket = {1, 1, kSecond};
  AskingWorld world(config);
  SimClient& client = world.Connect();
  client.Send(world.Request(1) + world.Request(2));
  world.RunFor(kMs);
  EXPECT_EQ(client.Take().size(), 2u);
  EXPECT_EQ(world.limiter.questions.size(), 1u);
}

TEST(GlobalRateLimit, RepliesKeepTheirOrder) {
  SimConfig config = Asking(Pipelined());
  config.global_limit->match = {Exact("ask", "yes")};
  AskingWorld world(config);
  world.limiter.delay_us = 5 * kMs;
  world.limiter.mode = Mode::kRefuses;
  SimClient& client = world.Connect();
  client.Send(world.Request(1, {}, {{"ask", "yes"}}) + world.Request(2));
  world.RunFor(2 * kMs);
  EXPECT_TRUE(client.Take().empty());
  world.RunFor(10 * kMs);
  const auto replies = client.Take();
  EXPECT_EQ(Tokens(replies), (Texts{"1", "2"}));
  EXPECT_EQ(Kinds(replies), "ER");
}

TEST(GlobalRateLimit, RequestsKeepTheirOrderOnASessionsOwnConnection) {
  SimConfig config = Asking(PerSession());
  config.global_limit->match = {Exact("ask", "yes")};
  AskingWorld world(config);
  world.limiter.delay_us = 5 * kMs;
  SimClient& client = world.Connect();
  client.Send(world.Request(1, {}, {{"ask", "yes"}}) + world.Request(2));
  world.RunFor(2 * kMs);
  EXPECT_TRUE(client.paused);
  EXPECT_TRUE(world.Seen().empty());
  world.RunFor(100 * kMs);
  EXPECT_EQ(Tokens(world.Seen()), (Texts{"1", "2"}));
  EXPECT_EQ(client.Take().size(), 2u);
}

TEST(GlobalRateLimit, TheBoundsOfTheSessionHoldForRequestsThatWait) {
  SimConfig config = Asking();
  config.limits.max_requests_in_flight = 2;
  AskingWorld world(config);
  world.limiter.mode = Mode::kSilent;
  SimClient& client = world.Connect();
  for (uint64_t id = 1; id <= 5; ++id) client.Send(world.Request(id));
  EXPECT_EQ(world.limiter.questions.size(), 2u);
  EXPECT_TRUE(client.paused);
  world.RunFor(kSecond);
  EXPECT_EQ(client.Take().size(), 5u);
}

TEST(GlobalRateLimit, ASessionThatEndsGivesItsQuestionsUp) {
  for (const SimConfig& config : EveryMode()) {
    AskingWorld world(Asking(config));
    world.limiter.delay_us = 5 * kMs;
    SimClient& client = world.Connect();
    client.Send(world.Request(1) + world.OneWay(2));
    client.Reset();
    EXPECT_EQ(world.exchanges(), 0u);
    world.RunFor(kSecond);
    EXPECT_TRUE(world.Seen().empty());
    EXPECT_EQ(world.Count(Counter::kClientGone), 1u);
    world.ExpectQuiet();
  }
}

TEST(GlobalRateLimit, WaitsForTheWholeOfALongRequestAndKeepsItAsItWas) {
  SimConfig config = Asking();
  config.limits.stream_message_bytes = 1024;
  config.routes[0].request_mutation = {{MutationOp::Kind::kSet, "k", "v"}};
  AskingWorld world(config);
  SimClient& client = world.Connect();
  const std::string body(5000, 'x');
  const std::string request = world.Request(1, body, {{"other", "value"}});
  for (size_t at = 0; at < request.size(); at += 500) {
    client.Send(request.substr(at, 500));
    EXPECT_LE(world.limiter.questions.size(), at + 500 >= request.size() ? 1u : 0u);
  }
  client.Send(world.Request(2));  // over the bytes of the first one
  world.RunFor(100 * kMs);
  const auto seen = world.Seen();
  ASSERT_EQ(seen.size(), 2u);
  EXPECT_EQ(seen[0].body, body);
  EXPECT_EQ(seen[0].kv, (FakeKv{{"name", "1"}, {"other", "value"}, {"k", "v"}}));
}

TEST(GlobalRateLimit, DirectRepliesAndMirrorsAreForWhatPasses) {
  SimConfig config = Asking();
  config.routes = {SimRoute{.match = {Exact("to", "direct")}, .direct_reply = LocalReply::kDenied},
                   SimRoute{.mirrors = {{"m", Route::kAlways}}}};
  AskingWorld world(config);
  world.SetHosts("m", {"mirror"});
  SimClient& client = world.Connect();
  client.Send(world.Request(1, {}, {{"to", "direct"}}) + world.Request(2));
  world.RunFor(100 * kMs);
  auto replies = client.Take();
  EXPECT_EQ(Kinds(replies), "ER");
  EXPECT_EQ(world.Count(LocalReply::kDenied), 1u);
  EXPECT_EQ(world.Count(Counter::kMirrorReplies), 1u);
  world.limiter.mode = Mode::kRefuses;
  client.Send(world.Request(3, {}, {{"to", "direct"}}) + world.Request(4));
  world.RunFor(100 * kMs);
  replies = client.Take();
  EXPECT_EQ(Kinds(replies), "EE");
  for (const WireMessage& reply : replies) EXPECT_EQ(reply.body, "over_limit");
  EXPECT_EQ(world.Count(Counter::kMirrorRequests), 1u);
}

TEST(GlobalRateLimit, DrainingWaitsForThoseThatAreAskedAbout) {
  AskingWorld world;
  world.limiter.delay_us = 5 * kMs;
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.WithEngine([](Engine& engine) { engine.Drain(); });
  EXPECT_EQ(world.exchanges(), 1u);
  world.RunFor(5 * kSecond);
  EXPECT_EQ(Kinds(client.Take()), "GR");
  EXPECT_FALSE(client.alive());
}

TEST(GlobalRateLimit, GoesByTheConfigurationAndTheClustersOfItsTime) {
  AskingWorld world(Asking({}, {.deny_on_fail = true}));
  world.limiter.delay_us = 5 * kMs;
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  SimConfig other;
  other.routes[0].clusters = {{"b", 1}};
  world.Publish(other);
  client.Send(world.Request(2));
  world.WithEngine([](Engine& engine) { engine.RemoveCluster("a", 1); });
  world.RunFor(10 * kMs);
  for (const WireMessage& reply : client.Take()) EXPECT_EQ(reply.body, "cluster_not_found");
  EXPECT_EQ(world.limiter.questions.size(), 1u);
  EXPECT_EQ(world.exchanges(), 0u);
}

std::string Told(const WireMessage& reply) {
  std::string told;
  for (const auto& [key, value] : reply.kv) {
    if (key.starts_with("x-") || key == "Note") told += key + "=" + value + " ";
  }
  return told;
}

// Two limits, the second with fewer requests left, and an entry of the service's own.
std::string Limits(char code) {
  std::string says{8, code};
  const auto status = [](std::string_view name, uint64_t requests, uint64_t left, uint64_t reset) {
    return proto::Number(1, 1) +
           proto::Text(2, proto::Number(1, requests) + proto::Number(2, 2) + proto::Text(3, name)) +
           proto::Number(3, left) + proto::Text(4, proto::Number(1, reset));
  };
  says += proto::Text(2, status("all", 100, 70, 50));
  says += proto::Text(2, proto::Number(1, 1));  // a descriptor without a limit
  says += proto::Text(2, status("users", 10, 3, 41));
  return says + proto::Entry(3, "Note", "slow down");
}

TEST(GlobalRateLimit, ClientsAreToldWhatTheServiceSaysIfThatIsAskedFor) {
  for (const bool tells : {false, true}) {
    for (const SimConfig& config : EveryMode()) {
      AskingWorld world(Asking(config, {.tells_clients = tells}));
      world.limiter.mode = Mode::kSays;
      for (const char code : {1, 2}) {
        world.limiter.says = Limits(code);
        SimClient& client = world.Connect();
        client.Send(world.Request(1));
        world.RunFor(kSecond);
        const auto replies = client.Take();
        ASSERT_EQ(Kinds(replies), code == 1 ? "R" : "E");
        EXPECT_EQ(Told(replies[0]),
                  tells ? "x-ratelimit-limit=10, 100;w=60;name=\"all\", 10;w=60;name=\"users\" "
                          "x-ratelimit-remaining=3 x-ratelimit-reset=41 Note=slow down "
                        : "");
        client.Reset();
      }
    }
  }
}

TEST(GlobalRateLimit, OfTwoLimitsTheServicesIsTold) {
  SimConfig config = Asking({}, {.tells_clients = true});
  config.bucket = {5, 5, kSecond};
  config.limit_tells_clients = true;
  AskingWorld world(config);
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kMs);
  world.limiter.mode = Mode::kSays;
  world.limiter.says = Limits(1);
  client.Send(world.Request(2));
  world.RunFor(kMs);
  const auto replies = client.Take();
  ASSERT_EQ(replies.size(), 2u);
  EXPECT_EQ(Told(replies[0]), "x-ratelimit-limit=5 x-ratelimit-remaining=4 x-ratelimit-reset=1 ");
  EXPECT_NE(Told(replies[1]).find("x-ratelimit-remaining=3 "), std::string::npos);
}

}  // namespace
}  // namespace metaprotocol::test
