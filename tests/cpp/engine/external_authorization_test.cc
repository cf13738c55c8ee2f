// External authorization: requests that wait for a service's word, and what it has written into
// them.
#include "src/filter/external_authorization/external_authorization.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "src/codec/protobuf.h"
#include "src/filter/external_authorization/check_messages.h"
#include "tests/cpp/engine/stream_world.h"
#include "tests/cpp/engine/world.h"
#include "tests/cpp/support/proto_fields.h"

namespace metaprotocol::test {
namespace {

using test::proto::Text;

using Mode = SimLimiter::Mode;
using Headers = std::vector<std::pair<std::string, std::string>>;

// A CheckResponse that is OK and has these headers written, and these keys removed.
std::string Allows(const Headers& headers = {}, const std::vector<std::string>& removed = {}) {
  std::string ok;
  for (const auto& [key, value] : headers) {
    ok += Text(2, Text(1, Text(1, key) + Text(2, value)));
  }
  for (const std::string& key : removed) ok += Text(5, key);
  return Text(1, "") + Text(3, ok);
}

// One with the status PERMISSION_DENIED and a body.
std::string Denies(std::string_view body) {
  std::string status;
  AppendProtoVarint(status, 1, 7);
  return Text(1, status) + Text(2, body.empty() ? "" : Text(3, body));
}

struct Settings {
  std::vector<Condition> match = {};
  bool failure_mode_allow = false;
  size_t max_body_bytes = 0;
  std::vector<std::string> metadata = {"name"};
  std::vector<std::string> proxy_keys = {};
  // Of rules with one condition each.
  std::vector<Condition> any_of = {};
};

SimConfig Checked(SimConfig config = {}, const Settings& settings = {}) {
  config.make_filters.emplace_back("check", [settings](MetadataKeys& keys) {
    auto check = std::make_shared<ExternalAuthorization>("fake", keys);
    std::vector<RouteTable::Rule> rules(1);
    rules[0].conditions = settings.match;
    std::vector<RouteTable::BuildError> errors;
    check->match = RouteTable::Build("check", std::move(rules), keys, errors);
    check->cluster = "authz";
    check->failure_mode_allow = settings.failure_mode_allow;
    check->max_body_bytes = settings.max_body_bytes;
    for (const std::string& key : settings.metadata) check->metadata.emplace_back(key, keys);
    for (const std::string& key : settings.proxy_keys) check->AddProxyKey(key, keys);
    check->context = {{"who", "asks"}};
    if (settings.any_of.empty()) return check;
    ExternalAuthorization::Rules& met = check->any_of.emplace();
    for (auto* const table : {&met.table, &met.unread}) {
      std::vector<RouteTable::Rule> wanted;
      for (const Condition& condition : settings.any_of) {
        wanted.emplace_back().conditions = {condition};
      }
      *table = RouteTable::Build("rules", std::move(wanted), keys, errors);
    }
    return check;
  });
  return config;
}

class CheckedWorld : public World {
 public:
  explicit CheckedWorld(SimConfig config = Checked()) : World(std::move(config)) {
    SetHosts("a", {"h"});
    limiter.mode = Mode::kSays;
    limiter.says = Allows();
  }
  // What a request with these entries is when it comes to the server; empty: it does not.
  std::map<std::string, std::string> Passed(const FakeKv& kv) {
    const size_t before = Seen().size();
    Connect().Send(Request(1, "", kv));
    RunFor(kSecond);
    const auto seen = Seen();
    if (seen.size() == before) return {};
    const FakeKv& passed = seen.back().kv;
    return {passed.begin(), passed.end()};
  }
};

TEST(ExternalAuthorization, RequestsGoOnWhenTheServiceSaysSo) {
  for (const SimConfig& config : EveryMode()) {
    CheckedWorld world(Checked(config));
    ConnectionInfo info;
    info.remote_address = "192.0.2.7";
    SimClient& client = world.Connect(std::move(info));
    client.Send(world.Request(1, "body", {{"service", "shop"}, {"method", "buy"}}) +
                world.OneWay(2) + world.Request(3));
    EXPECT_TRUE(world.Seen().empty());
    world.RunFor(kSecond);
    EXPECT_EQ(Tokens(client.Take()), (Texts{"1", "3"}));
    EXPECT_EQ(world.Seen().size(), 3u);
    ASSERT_EQ(world.limiter.questions.size(), 3u);
    const SimLimiter::Question& question = world.limiter.questions[0];
    EXPECT_EQ(question.cluster, "authz");
    EXPECT_EQ(question.path, "/envoy.service.auth.v3.Authorization/Check");
    EXPECT_EQ(question.timeout_us, 200 * kMs);
    for (const char* told : {"192.0.2.7", "/shop/buy", "fake", "name", "who", "asks"}) {
      EXPECT_NE(question.message.find(told), std::string::npos) << told;
    }
    EXPECT_EQ(world.Count(Counter::kExternalAuthorizationCalls, "a", "main/0"), 3u);
    EXPECT_EQ(world.Count(Counter::kExternalAuthorizationFailures), 0u);
    EXPECT_EQ(world.Count(Counter::kExternalAuthorizationDenied), 0u);
    client.Reset();
    world.RunFor(20 * kSecond);
    world.ExpectQuiet();
  }
}

TEST(ExternalAuthorization, ADenialIsTheProtocolsOwnErrorWithTheServicesWords) {
  for (const SimConfig& base : EveryMode()) {
    SimConfig config = Checked(base);
    config.access_logs = {{"log", "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%"}};
    CheckedWorld world(config);
    SimClient& client = world.Connect();
    const auto told = [&](std::string says) {
      world.limiter.says = std::move(says);
      client.Send(world.Request(1));
      world.RunFor(kSecond);
      const auto replies = client.Take();
      return replies.size() == 1 && replies[0].kind == 'E' ? replies[0].body : "?";
    };
    EXPECT_EQ(told(Denies("too late")), "denied");
    EXPECT_EQ(told(Denies("")), "denied");
    EXPECT_EQ(told(Text(2, "")), "denied") << "a denied_response without a status";
    EXPECT_EQ(told(Text(5, "")), "denied") << "an error_response";
    EXPECT_EQ(told(Allows() + Text(2, "")), "denied") << "both";
    client.Send(world.OneWay(2));
    world.RunFor(kSecond);
    EXPECT_TRUE(world.Seen().empty());
    EXPECT_EQ(world.Count(Counter::kExternalAuthorizationDenied, "a", "main/0"), 6u);
    EXPECT_EQ(world.Count(LocalReply::kDenied), 6u);
    EXPECT_EQ(world.Count(Counter::kExternalAuthorizationFailures), 0u);
    ASSERT_EQ(world.Logged("log").size(), 6u);
    EXPECT_EQ(world.Logged("log")[0], "UAEX denied\n");
    client.Reset();
    world.RunFor(20 * kSecond);
    EXPECT_EQ(world.exchanges(), 0u);
    EXPECT_EQ(world.Value(Gauge::kExchangesActive), 0);
  }
}

TEST(ExternalAuthorization, WithoutAVerdictRequestsAreDeniedUnlessToldOtherwise) {
  for (const Mode mode : {Mode::kFails, Mode::kSilent, Mode::kSaysNothing, Mode::kSaysNonsense}) {
    for (const bool allow : {false, true}) {
      CheckedWorld world(Checked({}, {.failure_mode_allow = allow}));
      world.limiter.mode = mode;
      SimClient& client = world.Connect();
      client.Send(world.Request(1));
      world.RunFor(190 * kMs);
      EXPECT_EQ(client.Take().size(), mode == Mode::kSilent ? 0u : 1u) << "not later than it must";
      world.RunFor(20 * kMs);
      EXPECT_EQ(world.Seen().size(), allow ? 1u : 0u);
      EXPECT_EQ(world.Count(Counter::kExternalAuthorizationFailures), 1u);
      EXPECT_EQ(world.Count(Counter::kExternalAuthorizationDenied), allow ? 0u : 1u);
      EXPECT_EQ(world.exchanges(), 0u);
    }
  }
}

TEST(ExternalAuthorization, AVerdictThatComesTooLateIsNone) {
  CheckedWorld world;
  world.limiter.delay_us = 250 * kMs;
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(client.Take()), "E");
  EXPECT_TRUE(world.Seen().empty());
}

TEST(ExternalAuthorization, AClientThatLeavesWhileItWaitsLeavesNothing) {
  CheckedWorld world;
  world.limiter.mode = Mode::kSilent;
  SimClient& client = world.Connect();
  SimClient& other = world.Connect();
  client.Send(world.Request(1) + world.OneWay(2));
  world.RunFor(kMs);
  client.Reset();
  world.limiter.mode = Mode::kSays;
  other.Send(world.Request(3));
  world.RunFor(kSecond);
  EXPECT_EQ(Tokens(other.Take()), (Texts{"3"}));
  EXPECT_EQ(Tokens(world.Seen()), (Texts{"3"}));
  other.Reset();
  world.RunFor(20 * kSecond);
  world.ExpectQuiet();
}

TEST(ExternalAuthorization, IsAskedOnlyAboutWhatMatches) {
  CheckedWorld world(Checked({}, {.match = {Exact("to", "x")}}));
  world.limiter.says = Denies("");
  SimClient& client = world.Connect();
  client.Send(world.Request(1) + world.Request(2, {}, {{"to", "x"}}));
  world.RunFor(kSecond);
  EXPECT_EQ(Tokens(world.Seen()), (Texts{"1"}));
  EXPECT_EQ(world.limiter.questions.size(), 1u);
}

TEST(ExternalAuthorization, SeesTheFirstBytesOfTheMessage) {
  for (const size_t most : {size_t{0}, size_t{40}, size_t{1} << 16}) {
    CheckedWorld world(Checked({}, {.max_body_bytes = most}));
    SimClient& client = world.Connect();
    const std::string request = world.Request(1, std::string(100000, 'b'));
    for (size_t at = 0; at < request.size(); at += 20000) client.Send(request.substr(at, 20000));
    world.RunFor(kSecond);
    EXPECT_EQ(client.Take().size(), 1u);
    ASSERT_EQ(world.limiter.questions.size(), 1u);
    const std::string& asked = world.limiter.questions[0].message;
    if (most == 0) {
      EXPECT_LT(asked.size(), 200u);
      continue;
    }
    EXPECT_NE(asked.find(Text(12, request.substr(0, most))), std::string::npos);
  }
}

TEST(ExternalAuthorization, WhatTheServiceSaysIsWrittenIntoTheRequest) {
  CheckedWorld world;
  world.limiter.says =
      Allows({{"x-user", "ann"}, {":path", "/"}, {"k", "new"}}, {"secret", ":method"});
  const auto passed = world.Passed({{"k", "old"}, {"secret", "s"}, {"other", "o"}});
  EXPECT_EQ(passed, (std::map<std::string, std::string>{
                        {"x-user", "ann"}, {"k", "new"}, {"other", "o"}, {"name", "1"}}));
}

TEST(ExternalAuthorization, ADenialChangesNothing) {
  CheckedWorld world;
  world.limiter.says = Allows({{"x-user", "ann"}}) + Denies("");
  EXPECT_TRUE(world.Passed({}).empty());
}

TEST(ExternalAuthorization, KeysOfTheProxysOwnAreTakenFromClientsHoweverTheyWriteThem) {
  const Settings settings{.match = {Exact("to", "x")}, .proxy_keys = {"x-user", "x-role"}};
  for (const bool asked : {false, true}) {
    CheckedWorld world(Checked({}, settings));
    world.limiter.says = Allows({{"x-user", "ann"}});
    const auto passed = world.Passed({{"X-User", "root"},
                                      {"x-user", "root"},
                                      {"x-USER", "root"},
                                      {"X-ROLE", "root"},
                                      {"x-userx", "stays"},
                                      {"to", asked ? "x" : "y"}});
    std::map<std::string, std::string> want = {
        {"x-userx", "stays"}, {"to", asked ? "x" : "y"}, {"name", "1"}};
    if (asked) want["x-user"] = "ann";
    EXPECT_EQ(passed, want);
  }
}

TEST(ExternalAuthorization, WhereTheServiceFailsOpenTheProxysKeysAreTakenAllTheSame) {
  CheckedWorld world(Checked({}, {.failure_mode_allow = true, .proxy_keys = {"x-user"}}));
  world.limiter.mode = Mode::kFails;
  const auto passed = world.Passed({{"x-user", "root"}, {"k", "v"}});
  EXPECT_EQ(passed, (std::map<std::string, std::string>{{"k", "v"}, {"name", "1"}}));
}

TEST(ExternalAuthorization, AKeyInTooManySpellingsIsDenied) {
  CheckedWorld world(Checked({}, {.proxy_keys = {"x-abcdefgh"}}));
  FakeKv kv;
  for (int i = 1; i < 200; ++i) {
    std::string key = "x-abcdefgh";
    for (int bit = 0; bit < 8; ++bit) {
      if ((i >> bit) % 2 != 0) key[static_cast<size_t>(2 + bit)] -= 'a' - 'A';
    }
    kv.emplace_back(key, "root");
  }
  EXPECT_TRUE(world.Passed(kv).empty());
  EXPECT_TRUE(world.limiter.questions.empty());
  kv.resize(10);
  EXPECT_EQ(world.Passed(kv).size(), 1u) << "its name";
}

TEST(ExternalAuthorization, MirrorsGetTheRequestAsTheServerDoes) {
  SimConfig config = Checked({}, {.proxy_keys = {"x-user"}});
  config.routes[0].mirrors = {{"b", Route::kAlways}};
  CheckedWorld world(config);
  world.SetHosts("b", {"m"});
  world.limiter.says = Allows({{"x-role", "guest"}});
  SimClient& client = world.Connect();
  client.Send(world.Request(1, "", {{"x-user", "root"}}));
  world.RunFor(kSecond);
  const auto seen = world.Seen();
  ASSERT_EQ(seen.size(), 2u);
  for (const WireMessage& message : seen) {
    const std::map<std::string, std::string> kv{message.kv.begin(), message.kv.end()};
    EXPECT_EQ(kv, (std::map<std::string, std::string>{{"x-role", "guest"}, {"name", "1"}}));
  }
}

TEST(ExternalAuthorization, ARetryCarriesWhatTheServiceSaid) {
  SimConfig config = Checked();
  config.routes[0].retry = RetryPolicy{};
  CheckedWorld world(config);
  world.SetHosts("a", {"dead", "h"});
  world.servers["dead"].connect = SimServer::Connect::kRefuse;
  world.limiter.says = Allows({{"x-user", "ann"}});
  for (int i = 0; i < 4; ++i) EXPECT_EQ(world.Passed({})["x-user"], "ann");
  EXPECT_EQ(world.limiter.questions.size(), 4u) << "once for each request";
}

TEST(ExternalAuthorization, RepliesKeepTheirOrder) {
  SimConfig config = Checked(Pipelined(), {.match = {Exact("ask", "yes")}});
  CheckedWorld world(config);
  world.limiter.delay_us = 5 * kMs;
  world.limiter.says = Denies("");
  SimClient& client = world.Connect();
  client.Send(world.Request(1, {}, {{"ask", "yes"}}) + world.Request(2));
  world.RunFor(2 * kMs);
  EXPECT_TRUE(client.Take().empty());
  world.RunFor(10 * kMs);
  const auto replies = client.Take();
  EXPECT_EQ(Tokens(replies), (Texts{"1", "2"}));
  EXPECT_EQ(Kinds(replies), "ER");
}

TEST(ExternalAuthorization, OnlyRequestsThatMeetARuleAreAskedAbout) {
  CheckedWorld world(Checked({}, {.any_of = {Exact("name", "buy"), Exact("user", "eve")}}));
  SimClient& client = world.Connect();
  const auto asked = [&](const FakeKv& kv) {
    const size_t before = world.limiter.questions.size();
    client.Send(world.Request(1, "", kv));
    world.RunFor(kSecond);
    client.Take();
    return world.limiter.questions.size() - before;
  };
  EXPECT_EQ(asked({{"name", "look"}}), 0u);
  EXPECT_EQ(asked({}), 0u);
  EXPECT_EQ(asked({{"name", "buy"}}), 1u);
  EXPECT_EQ(asked({{"name", "look"}, {"user", "eve"}}), 1u);
}

}  // namespace
}  // namespace metaprotocol::test
