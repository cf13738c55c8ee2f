// Access logs: every request is told of once, after its end, whatever that was.
#include <map>
#include <nlohmann/json.hpp>

#include "src/filter/fault/fault.h"
#include "tests/cpp/engine/fates.h"
#include "tests/cpp/engine/stream_world.h"
#include "tests/cpp/engine/world.h"
#include "tests/cpp/support/sim_spans.h"

namespace metaprotocol::test {
namespace {

SimConfig Logged(std::string format, SimConfig config = {}) {
  config.access_logs = {{"/log", std::move(format)}};
  return config;
}

TEST(AccessLog, OfARequestIsWrittenAfterItsEnd) {
  World world(
      Logged("%PROTOCOL% %REQ(name)% %ROUTE_NAME% %UPSTREAM_CLUSTER% %UPSTREAM_HOST% "
             "%RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %RESPONSE_FLAGS% "
             "%UPSTREAM_REQUEST_ATTEMPT_COUNT% %DOWNSTREAM_REMOTE_ADDRESS%"));
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  ConnectionInfo info;
  info.remote_address = "192.0.2.7";
  info.remote_port = 4711;
  SimClient& client = world.Connect(std::move(info));
  client.Send(world.Request(1, "", {{"name", "x"}}));
  world.RunFor(10 * kMs);
  EXPECT_TRUE(world.Logged().empty());
  SimConnection* server = world.Open("h1").at(0);
  server->Reply(server->requests.at(0));
  world.RunFor(10 * kMs);
  ASSERT_EQ(world.Logged().size(), 1u);
  EXPECT_EQ(world.Logged()[0],
            "fake_multiplexed x main/0 a h1 ok via_upstream - 1 192.0.2.7:4711\n");
  EXPECT_EQ(world.Count(Counter::kAccessLogEntries), 1u);
  EXPECT_EQ(world.Count(Counter::kAccessLogLost), 0u);
}

// As a collector reads them: body, attributes and service of each.
struct SimLogRecord {
  std::string service;
  std::string body;
  std::map<std::string, std::string> attributes;
  std::string trace;
  std::string span;
};

std::vector<SimLogRecord> RecordsOf(const SimCollector& collector) {
  std::vector<SimLogRecord> all;
  for (const SimCollector::Batch& batch : collector.batches) {
    const std::string of_resource = FieldOf(batch.message, 1);
    const std::string service = FieldOf(FieldOf(FieldOf(FieldOf(of_resource, 1), 1), 2), 1);
    const std::string of_scope = FieldOf(of_resource, 2);
    for (const std::string_view text : FieldsOf(of_scope, 2)) {
      SimLogRecord record;
      record.service = service;
      record.body = FieldOf(FieldOf(text, 5), 1);
      for (const std::string_view attribute : FieldsOf(text, 6)) {
        const std::string value = FieldOf(attribute, 2);
        const std::string shown = FieldOf(value, 1);
        record.attributes[FieldOf(attribute, 1)] =
            shown.empty() ? std::to_string(NumberOf(value, 3)) : shown;
      }
      record.trace = HexOf(FieldOf(text, 9));
      record.span = HexOf(FieldOf(text, 10));
      all.push_back(std::move(record));
    }
  }
  return all;
}

SimConfig Collected(std::string format, SimConfig config = {}) {
  config = Logged(std::move(format), std::move(config));
  config.change_log = [](AccessLog& log) {
    log.collector = OtlpTarget{OtlpSignal::kLogs, "logs", "sim"};
  };
  return config;
}

TEST(AccessLog, ACollectorGetsRecordsInPlaceOfLines) {
  SimConfig config = Collected("%REQ(name)% took %DURATION% \"%REQ(none)%\"");
  config.traces = true;
  World world(std::move(config));
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  client.Send(world.Request(1, "",
                            {{"name",
                              "x\x01"
                              "y"}}));
  world.RunFor(3 * kSecond);
  const auto records = RecordsOf(world.log_collector);
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(world.log_collector.batches[0].cluster, "logs");
  EXPECT_EQ(records[0].service, "sim");
  EXPECT_EQ(records[0].body, "x\\x01y took 0 \"-\"");
  const auto spans = SpansOf(world.collector);
  ASSERT_EQ(spans.size(), 1u);
  EXPECT_EQ(records[0].trace, spans[0].trace);
  EXPECT_EQ(records[0].span, spans[0].span);
  EXPECT_TRUE(world.Logged().empty());
  EXPECT_EQ(world.Count(Counter::kAccessLogEntries), 1u);
}

TEST(AccessLog, FieldsOfAnObjectAreAttributesOfARecord) {
  SimConfig config = Collected("");
  config.change_log = [](AccessLog& log) {
    log.collector = OtlpTarget{OtlpSignal::kLogs, "logs", "sim"};
    RecordedKeys recorded;
    MetadataKeys keys;
    std::string error;
    std::vector<std::pair<std::string, LogTemplate>> fields;
    for (const auto& [name, format] :
         std::map<std::string, std::string>{{"attempts", "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"},
                                            {"flags", "%RESPONSE_FLAGS%"},
                                            {"result", "%RESPONSE_CODE% %RESPONSE_FLAGS%"}}) {
      fields.emplace_back(name, LogTemplate::Compile(format, recorded, keys, error));
    }
    log.format = LogFormat::Json(std::move(fields));
  };
  World world(std::move(config));
  world.SetHosts("a", {"h1"});
  world.Connect().Send(world.Request(1));
  world.RunFor(3 * kSecond);
  const auto records = RecordsOf(world.log_collector);
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].body, "");
  EXPECT_EQ(records[0].attributes,
            (std::map<std::string, std::string>{{"attempts", "1"}, {"result", "ok -"}}));
}

// The law, as for lines.
TEST(AccessLog, ACollectorHasEachRequestOnceWhateverBecomesOfIt) {
  for (const SimConfig& base : {SimConfig{}, Pipelined(), Exclusive(), PerSession()}) {
    World world(WithFates(Collected("%REQ(name)%", base)), 7);
    const std::map<std::string, size_t> sent = MeetFates(world, "name");
    world.RunFor(3 * kSecond);
    std::map<std::string, size_t> told;
    for (const SimLogRecord& record : RecordsOf(world.log_collector)) ++told[record.body];
    EXPECT_EQ(told, sent);
    EXPECT_EQ(world.Count(Counter::kAccessLogLost), 0u);
  }
}

TEST(AccessLog, NobodyNoticesACollectorThatIsSilentAndLossesAreCounted) {
  World world(Collected("%REQ(name)%"));
  world.SetHosts("a", {"h1"});
  world.log_collector.mode = SimCollector::Mode::kSilent;
  SimClient& client = world.Connect();
  const std::string long_name(1000, 'm');
  uint64_t answered = 0;
  for (uint64_t i = 1; i <= 3000; ++i) {
    client.Send(world.Request(i, "", {{"name", long_name}}));
    world.RunFor(kMs / 2);
    answered += client.Take().size();
  }
  EXPECT_EQ(answered, 3000u);
  world.RunFor(60 * kSecond);
  EXPECT_EQ(world.Count(Counter::kAccessLogEntries), 3000u);
  EXPECT_EQ(world.Count(Counter::kAccessLogLost), 3000u);
  EXPECT_EQ(world.Count(Counter::kSpansLost), 0u);
  for (const auto& batch : world.log_collector.batches) {
    EXPECT_LT(batch.message.size(), 1'100'000u);
  }
}

TEST(AccessLog, ARequestWithoutAnIdGetsOneAndALogShowsIt) {
  SimConfig config = Logged("%REQUEST_ID% %REQ(x-request-id)%");
  config.request_ids = true;
  World world(std::move(config));
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  const auto passed = [&](const FakeKv& kv) {
    client.Send(world.Request(1, "", kv));
    world.RunFor(10 * kMs);
    const WireMessage& seen = world.connections.back()->requests.back();
    return std::map<std::string, std::string>(seen.kv.begin(), seen.kv.end())["x-request-id"];
  };
  const std::string made = passed({});
  ASSERT_EQ(made.size(), 36u);
  EXPECT_EQ(made[14], '4');
  EXPECT_TRUE(made[19] == '8' || made[19] == '9' || made[19] == 'a' || made[19] == 'b') << made;
  EXPECT_EQ(passed({{"x-request-id", "mine"}}), "mine");
  const std::string other = passed({{"x-request-id", ""}});
  EXPECT_EQ(other.size(), 36u);
  EXPECT_NE(other, made);
  EXPECT_EQ(world.Logged(),
            (Texts{made + " " + made + "\n", "mine mine\n", other + " " + other + "\n"}));
}

TEST(AccessLog, IdsAreMadeWithoutAnybodyWhoIsToldOfRequests) {
  SimConfig config;
  config.request_ids = true;
  World world(std::move(config));
  world.SetHosts("a", {"h1"});
  world.Connect().Send(world.Request(1));
  world.RunFor(10 * kMs);
  const WireMessage& seen = world.connections.back()->requests.back();
  const std::map<std::string, std::string> kv(seen.kv.begin(), seen.kv.end());
  EXPECT_EQ(kv.at("x-request-id").size(), 36u);
}

// The law, with everything that can become of a request: as many lines as requests, each once.
TEST(AccessLog, HasEachRequestOnceWhateverBecomesOfIt) {
  for (const SimConfig& base : {SimConfig{}, Pipelined(), Exclusive(), PerSession()}) {
    World world(WithFates(Logged("%REQ(name)% %RESPONSE_FLAGS%", base)), 7);
    const std::map<std::string, size_t> sent = MeetFates(world, "name");
    std::map<std::string, size_t> logged;
    for (const std::string& line : world.Logged()) ++logged[line.substr(0, line.find(' '))];
    EXPECT_EQ(logged, sent);
  }
}

TEST(AccessLog, SaysWhyThereWasNoReply) {
  SimConfig config = Logged("%REQ(to)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%");
  config.routes = {
      SimRoute{.match = {Exact("to", "gone")}, .clusters = {{"gone", 1}}},
      SimRoute{.match = {Exact("to", "slow")}, .clusters = {{"slow", 1}}, .timeout_us = 50 * kMs},
      SimRoute{.match = {Exact("to", "dead")}, .clusters = {{"dead", 1}}},
      SimRoute{.match = {Exact("to", "empty")}, .clusters = {{"empty", 1}}},
      SimRoute{.match = {Exact("to", "lost")}, .clusters = {{"lost", 1}}}};
  World world(std::move(config));
  world.SetHosts("slow", {"s1"});
  world.SetHosts("dead", {"d1"});
  world.SetHosts("lost", {"l1"});
  world.SetHosts("empty", {});
  Manual(world, "s1");
  Manual(world, "l1");
  world.servers["d1"].connect = SimServer::Connect::kRefuse;
  SimClient& client = world.Connect();
  const auto line = [&](const std::string& to) {
    const size_t before = world.Logged().size();
    client.Send(world.Request(before + 1, "", {{"to", to}}));
    world.RunFor(10 * kMs);
    if (to == "lost") world.Open("l1").at(0)->Close();
    world.RunFor(kSecond);
    return world.Logged().size() == before + 1 ? world.Logged().back() : std::string();
  };
  EXPECT_EQ(line("nowhere"), "nowhere error NR no_route\n");
  EXPECT_EQ(line("gone"), "gone error NC cluster_not_found\n");
  EXPECT_EQ(line("empty"), "empty error UH no_healthy_upstream\n");
  EXPECT_EQ(line("dead"), "dead error UF upstream_lost\n");
  EXPECT_EQ(line("lost"), "lost error UC upstream_lost\n");
  EXPECT_EQ(line("slow"), "slow error UT timeout\n");
  client.Send(world.Request(100, "", {{"to", "slow"}}));
  client.Reset();
  world.RunFor(kSecond);
  EXPECT_EQ(world.Logged().back(), "slow - DC -\n");
}

TEST(AccessLog, OfWhatAFilterAnswersSaysWhich) {
  auto fault = std::make_shared<Fault>();
  fault->abort = FaultAbort{.reply = LocalReply::kFault, .text = "on purpose"};
  SimConfig config = Logged("%RESPONSE_FLAGS% %LOCAL_REPLY_BODY% %UPSTREAM_HOST%");
  config.filters = {{"fault", fault}};
  World world(std::move(config));
  world.SetHosts("a", {"h1"});
  world.Connect().Send(world.Request(1));
  world.RunFor(kMs);
  ASSERT_EQ(world.Logged().size(), 1u);
  EXPECT_EQ(world.Logged()[0], "FI on purpose -\n");

  fault = std::make_shared<Fault>();
  fault->delay = FaultDelay{.duration_us = 10 * kMs};
  SimConfig late = Logged("%RESPONSE_FLAGS% %RESPONSE_CODE%");
  late.filters = {{"fault", fault}};
  World delayed(std::move(late));
  delayed.SetHosts("a", {"h1"});
  delayed.Connect().Send(delayed.Request(1));
  delayed.RunFor(kSecond);
  ASSERT_EQ(delayed.Logged().size(), 1u);
  EXPECT_EQ(delayed.Logged()[0], "DI ok\n");

  SimConfig limited = Logged("%RESPONSE_FLAGS%");
  limited.bucket = TokenBucketSettings{.max_tokens = 0, .tokens_per_fill = 0};
  World other(std::move(limited));
  other.SetHosts("a", {"h1"});
  other.Connect().Send(other.Request(1));
  other.RunFor(kMs);
  ASSERT_EQ(other.Logged().size(), 1u);
  EXPECT_EQ(other.Logged()[0], "RL\n");
}

TEST(AccessLog, TimesAreThoseOfTheRequest) {
  World world(
      Logged("%START_TIME% %DURATION% %RESPONSE_DURATION% %UPSTREAM_DURATION% "
             "%RESPONSE_TX_DURATION%"));
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& client = world.Connect();
  const uint64_t since_epoch = world.UnixTimeUs();
  client.Send(world.Request(1));
  world.RunFor(120 * kMs);
  SimConnection* server = world.Open("h1").at(0);
  server->Reply(server->requests.at(0));
  world.RunFor(kMs);
  ASSERT_EQ(world.Logged().size(), 1u);
  EXPECT_EQ(world.Logged()[0].substr(0, 11), "2026-01-01T");
  EXPECT_EQ(world.Logged()[0].substr(24), " 120 120 120 0\n") << since_epoch;
}

TEST(AccessLog, OnlyWhatIsWantedIsWritten) {
  SimConfig config = Logged("%REQ(name)%");
  config.change_log = [](AccessLog& log) { log.failures_only = true; };
  config.routes = {SimRoute{.match = {Exact("name", "fine")}}};
  World world(std::move(config));
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  client.Send(world.Request(1, "", {{"name", "fine"}}));
  client.Send(world.Request(2, "", {{"name", "unknown"}}));
  world.RunFor(kSecond);
  EXPECT_EQ(world.Logged(), Texts{"unknown\n"});
}

TEST(AccessLog, ResponseCodesAreThoseOfIstiosMetrics) {
  SimConfig config = Logged("%REQ(name)%");
  config.change_log = [](AccessLog& log) { log.response_codes = {{0, 1}, {404, 405}, {500, 501}}; };
  config.routes = {SimRoute{.match = {Exact("name", "fine")}},
                   SimRoute{.match = {Exact("name", "error")}, .clusters = {{"b", 1}}},
                   SimRoute{.match = {Exact("name", "gone")}, .clusters = {{"c", 1}}},
                   SimRoute{.match = {Exact("name", "nobody")}, .clusters = {{"d", 1}}}};
  World world(std::move(config));
  world.SetHosts("a", {"h1"});
  world.SetHosts("b", {"h2"});
  world.SetHosts("c", {"h3"});
  world.servers["h2"].reply_kind = 'E';
  world.servers["h3"].mode = SimServer::Mode::kSilent;
  SimClient& client = world.Connect();
  for (const char* name : {"fine", "error", "unknown", "nobody", "gone"}) {
    client.Send(world.Request(1, "", {{"name", name}}));
    world.RunFor(kSecond);
  }
  EXPECT_EQ(world.Logged(), (Texts{"error\n", "unknown\n"}));
  client.Reset();
  world.RunFor(kSecond);
  EXPECT_EQ(world.Logged(), (Texts{"error\n", "unknown\n", "gone\n"}));
}

TEST(AccessLog, DurationsAreFromTheLeastToBelowTheMost) {
  SimConfig config = Logged("%REQ(name)%");
  config.change_log = [](AccessLog& log) {
    log.min_duration_us = 10 * kMs;
    log.max_duration_us = 30 * kMs;
  };
  World world(std::move(config));
  world.SetHosts("a", {"h1"});
  for (const uint64_t delay : {1, 20, 40}) {
    world.servers["h1"].delay_us = delay * kMs;
    world.Connect().Send(world.Request(1, "", {{"name", std::to_string(delay)}}));
    world.RunFor(kSecond);
  }
  EXPECT_EQ(world.Logged(), Texts{"20\n"});
}

TEST(AccessLog, AShareIsDrawnForEachRequest) {
  SimConfig config = Logged("x");
  config.change_log = [](AccessLog& log) { log.chance = Route::ChanceOf(20); };
  World world(std::move(config));
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  for (uint64_t i = 1; i <= 5000; ++i) {
    client.Send(world.Request(i));
    world.RunFor(kMs);
  }
  // Six standard deviations.
  EXPECT_NEAR(static_cast<double>(world.Logged().size()), 1000, 170);
}

TEST(AccessLog, LinesThatAreLostAreCountedAndNobodyWaits) {
  World world(Logged("x"));
  world.SetHosts("a", {"h1"});
  world.OpenSimLog("/log")->full = true;
  SimClient& client = world.Connect();
  for (uint64_t i = 1; i <= 10; ++i) client.Send(world.Request(i));
  world.RunFor(kMs);
  EXPECT_EQ(client.Take().size(), 10u);
  EXPECT_EQ(world.Count(Counter::kAccessLogEntries), 10u);
  EXPECT_EQ(world.Count(Counter::kAccessLogLost), 10u);
}

TEST(AccessLog, WhatAPeerSaysStaysWithinItsLine) {
  World world(Logged("\"%REQ(name)%\""));
  world.SetHosts("a", {"h1"});
  world.Connect().Send(world.Request(1, "", {{"name", "a\r2026 \"forged\\"}}));
  world.RunFor(kMs);
  ASSERT_EQ(world.Logged().size(), 1u);
  EXPECT_EQ(world.Logged()[0], "\"a\\x0d2026 \\\"forged\\\\\"\n");
}

TEST(AccessLog, ValuesAreKeptUpToABoundForEachRequest) {
  World world(Logged("%REQ(name)%%REQ(b)%%REQ(c)%%REQ(d)%%REQ(e)%"));
  world.SetHosts("a", {"h1"});
  FakeKv kv;
  for (const char* key : {"name", "b", "c", "d", "e"}) kv.emplace_back(key, std::string(5000, 'v'));
  world.Connect().Send(world.Request(1, "", kv));
  world.RunFor(kMs);
  ASSERT_EQ(world.Logged().size(), 1u);
  EXPECT_EQ(world.Logged()[0].size(), RequestRecord::kMostBytes + 1);
}

}  // namespace
}  // namespace metaprotocol::test
