// Tracing: each sampled request leaves one span, servers find it, and nobody waits for a collector.
#include "tests/cpp/engine/fates.h"
#include "tests/cpp/engine/stream_world.h"
#include "tests/cpp/engine/world.h"
#include "tests/cpp/support/sim_spans.h"

namespace metaprotocol::test {
namespace {

const std::string kTrace = "4bf92f3577b34da6a3ce929d0e0e4736";
const std::string kSpan = "00f067aa0ba902b7";

std::string Parent(std::string_view flags) {
  return "00-" + kTrace + "-" + kSpan + "-" + std::string(flags);
}

SimConfig Traced(SimConfig config = {}) {
  config.traces = true;
  return config;
}
SimConfig Traced(std::function<void(Tracing&)> change) {
  SimConfig config = Traced();
  config.change_tracing = std::move(change);
  return config;
}

class TracingWorld : public World {
 public:
  explicit TracingWorld(SimConfig config = Traced(), uint64_t seed = 1)
      : World(std::move(config), seed) {
    SetHosts("a", {"h1"});
  }
  // What a request with these entries is when it comes to the server.
  std::map<std::string, std::string> Passed(const FakeKv& kv) {
    SimClient& client = Connect();
    client.Send(Request(1, "", kv));
    RunFor(10 * kMs);
    const WireMessage& seen = connections.back()->requests.back();
    return {seen.kv.begin(), seen.kv.end()};
  }
  std::vector<SimSpan> Spans() {
    RunFor(3 * kSecond);
    return SpansOf(collector);
  }
};

TEST(Tracing, ASpanSaysWhatIsKnownOfItsRequest) {
  TracingWorld world(Traced([](Tracing& tracing) {
    tracing.attributes.push_back({.name = "zone", .place = {}, .value = "east"});
  }));
  ConnectionInfo info;
  info.remote_address = "192.0.2.7";
  SimClient& client = world.Connect(std::move(info));
  client.Send(world.Request(1, "", {{"service", "shop"}, {"method", "buy"}, {"name", "x"}}));
  const auto spans = world.Spans();
  ASSERT_EQ(spans.size(), 1u);
  const SimSpan& span = spans[0];
  EXPECT_EQ(world.collector.batches[0].cluster, "spans");
  EXPECT_EQ(span.service, "sim");
  EXPECT_EQ(span.trace.size(), 32u);
  EXPECT_EQ(span.span.size(), 16u);
  EXPECT_EQ(span.parent, "");
  EXPECT_EQ(span.name, "shop/buy");
  EXPECT_EQ(span.kind, 3u);
  EXPECT_FALSE(span.failed);
  const std::map<std::string, std::string> want = {{"rpc.system", "fake_multiplexed"},
                                                   {"rpc.service", "shop"},
                                                   {"rpc.method", "buy"},
                                                   {"client.address", "192.0.2.7"},
                                                   {"server.address", "h1"},
                                                   {"upstream_cluster", "a"},
                                                   {"route_name", "main/0"},
                                                   {"response_code", "ok"},
                                                   {"attempts", "1"},
                                                   {"zone", "east"}};
  for (const auto& [key, value] : want) EXPECT_EQ(span.attributes.at(key), value) << key;
  EXPECT_EQ(world.Count(Counter::kSpans), 1u);
  EXPECT_EQ(world.Count(Counter::kSpansLost), 0u);
}

TEST(Tracing, TheServersParentIsTheProxysSpanAndItsParentTheClients) {
  TracingWorld world;
  auto passed = world.Passed({{"traceparent", Parent("01")}, {"tracestate", "vendor=1"}});
  const auto spans = world.Spans();
  ASSERT_EQ(spans.size(), 1u);
  EXPECT_EQ(spans[0].trace, kTrace);
  EXPECT_EQ(spans[0].parent, kSpan);
  EXPECT_EQ(spans[0].state, "vendor=1");
  EXPECT_NE(spans[0].span, kSpan);
  EXPECT_EQ(passed["traceparent"], "00-" + kTrace + "-" + spans[0].span + "-01");
  EXPECT_EQ(passed["tracestate"], "vendor=1");
}

TEST(Tracing, AClientOfB3IsAnsweredInB3AsWell) {
  TracingWorld world;
  auto passed = world.Passed({{"b3", kTrace + "-" + kSpan + "-1"},
                              {"x-b3-traceid", kTrace},
                              {"x-b3-spanid", kSpan},
                              {"x-b3-sampled", "1"}});
  const auto spans = world.Spans();
  ASSERT_EQ(spans.size(), 1u);
  EXPECT_EQ(spans[0].parent, kSpan);
  EXPECT_EQ(passed["b3"], kTrace + "-" + spans[0].span + "-1-" + kSpan);
  EXPECT_EQ(passed["x-b3-spanid"], spans[0].span);
  EXPECT_EQ(passed["x-b3-parentspanid"], kSpan);
  EXPECT_EQ(passed["traceparent"], "00-" + kTrace + "-" + spans[0].span + "-01");
}

TEST(Tracing, WhatAClientDoesNotWantSampledIsPassedOnAsItIs) {
  for (const FakeKv& kv :
       {FakeKv{{"traceparent", Parent("00")}, {"tracestate", "a=b"}},
        FakeKv{{"b3", kTrace + "-" + kSpan + "-0"}}, FakeKv{{"b3", "0"}},
        FakeKv{{"x-b3-traceid", kTrace}, {"x-b3-spanid", kSpan}, {"x-b3-sampled", "0"}}}) {
    TracingWorld world;
    auto passed = world.Passed(kv);
    passed.erase("name");  // every request has one
    EXPECT_EQ(passed, (std::map<std::string, std::string>(kv.begin(), kv.end())));
    EXPECT_TRUE(world.Spans().empty());
    EXPECT_EQ(world.Count(Counter::kSpans), 0u);
  }
}

TEST(Tracing, AClientsDecisionHoldsAndOthersAreDrawn) {
  TracingWorld world(Traced([](Tracing& tracing) { tracing.chance = Route::ChanceOf(20); }));
  SimClient& client = world.Connect();
  for (uint64_t i = 1; i <= 5000; ++i) {
    client.Send(world.Request(i));
    world.RunFor(kMs);
  }
  // Six standard deviations.
  const size_t drawn = world.Spans().size();
  EXPECT_NEAR(static_cast<double>(drawn), 1000, 170);
  // Servers are told of each decision, so that none takes one of its own.
  size_t sampled = 0;
  for (const auto& connection : world.connections) {
    for (const WireMessage& request : connection->requests) {
      for (const auto& [key, value] : request.kv) {
        if (key == "traceparent") sampled += value.ends_with("-01") ? 1 : 0;
      }
    }
  }
  EXPECT_EQ(sampled, drawn);
  for (uint64_t i = 1; i <= 100; ++i) {
    client.Send(world.Request(i, "", {{"traceparent", Parent("01")}}));
    world.RunFor(kMs);
  }
  EXPECT_EQ(world.Spans().size(), drawn + 100);
}

TEST(Tracing, ABoundHoldsForClientsThatWantAllSampled) {
  TracingWorld world(Traced([](Tracing& tracing) { tracing.overall = 0; }));
  auto passed = world.Passed({{"traceparent", Parent("01")}});
  EXPECT_EQ(passed["traceparent"], Parent("01")) << "the client's own trace is not torn";
  auto undecided = world.Passed({});
  EXPECT_TRUE(undecided["traceparent"].ends_with("-00"));
  EXPECT_TRUE(world.Spans().empty());
}

TEST(Tracing, AStateWithoutItsParentIsTakenAway) {
  TracingWorld world;
  auto passed = world.Passed({{"traceparent", "nonsense"}, {"tracestate", "a=b"}});
  EXPECT_EQ(passed["traceparent"].size(), 55u);
  EXPECT_FALSE(passed.contains("tracestate"));
  EXPECT_EQ(world.Spans().at(0).parent, "");
}

TEST(Tracing, SkyWalkingsTraceIsTakenAndItsHeaderPassedOnAsItIs) {
  // "a.b.7", "segment", span 3, ...
  const std::string sw8 = "1-YS5iLjc=-c2VnbWVudA==-3-d2Vi-b25l-L2J1eQ==-c2hvcDo4MA==";
  TracingWorld world;
  auto passed = world.Passed({{"sw8", sw8}});
  auto again = world.Passed({{"sw8", sw8}});
  const auto spans = world.Spans();
  ASSERT_EQ(spans.size(), 2u);
  EXPECT_EQ(passed["sw8"], sw8);
  EXPECT_EQ(passed["traceparent"], "00-" + spans[0].trace + "-" + spans[0].span + "-01");
  EXPECT_EQ(spans[0].trace, spans[1].trace) << "of one trace";
  EXPECT_EQ(spans[0].parent, "");
  EXPECT_EQ(spans[0].attributes.at("skywalking.trace_id"), "a.b.7");
  // What is an id already stays it: 4bf92f3577b34da6a3ce929d0e0e4736.
  world.Passed({{"sw8",
                 "1-NGJmOTJmMzU3N2IzNGRhNmEzY2U5MjlkMGUwZTQ3MzY=-c2VnbWVudA==-3-d2Vi-b25l-L2J1eQ==-"
                 "c2hvcDo4MA=="}});
  EXPECT_EQ(world.Spans().at(2).trace, kTrace);
  // Who names a span is believed first.
  world.Passed({{"sw8", sw8}, {"traceparent", Parent("01")}});
  EXPECT_EQ(world.Spans().at(3).trace, kTrace);
}

TEST(Tracing, WhatSkyWalkingDoesNotWantSampledLeavesNoSpanAndWhatIsNoneIsNothing) {
  TracingWorld world;
  auto passed =
      world.Passed({{"sw8", "0-YS5iLjc=-c2VnbWVudA==-3-d2Vi-b25l-L2J1eQ==-c2hvcDo4MA=="}});
  EXPECT_FALSE(passed.contains("traceparent"));
  EXPECT_TRUE(world.Spans().empty());
  for (const std::string& odd :
       {std::string("1-YS5iLjc-c-3-d-b-L-c"), std::string("1-YS5iLjc=-c"), std::string("-------"),
        std::string("2-YS5iLjc=-c2VnbWVudA==-3-d2Vi-b25l-L2J1eQ==-c2hvcDo4MA=="),
        "1-" + std::string(4000, 'Y') + "-c-3-d-b-L-c", std::string(4000, '-'), std::string()}) {
    const size_t before = world.Spans().size();
    world.Passed({{"sw8", odd}});
    const auto spans = world.Spans();
    ASSERT_EQ(spans.size(), before + 1) << odd;
    EXPECT_FALSE(spans.back().attributes.contains("skywalking.trace_id")) << odd;
  }
}

TEST(Tracing, OnlyTheConfiguredFormatsAreAdded) {
  TracingWorld world(
      Traced([](Tracing& tracing) { tracing.formats = TraceFormatBit(TraceFormat::kB3Multi); }));
  auto passed = world.Passed({});
  EXPECT_FALSE(passed.contains("traceparent"));
  EXPECT_FALSE(passed.contains("b3"));
  EXPECT_EQ(passed["x-b3-sampled"], "1");
  EXPECT_EQ(passed["x-b3-traceid"], world.Spans().at(0).trace);
}

// The law, with everything that can become of a request: as many spans as requests, each once.
TEST(Tracing, EachRequestLeavesOneSpanWhateverBecomesOfIt) {
  for (const SimConfig& base : {SimConfig{}, Pipelined(), Exclusive(), PerSession()}) {
    TracingWorld world(WithFates(Traced(base)), 7);
    const std::map<std::string, size_t> sent = MeetFates(world, "method");
    std::map<std::string, size_t> told;
    for (const SimSpan& span : world.Spans()) {
      ++told[span.name];
      EXPECT_EQ(span.failed, span.attributes.contains("error.type")) << span.name;
    }
    EXPECT_EQ(told, sent);
    EXPECT_EQ(world.Count(Counter::kSpansLost), 0u);
  }
}

// The span of a request and those of its attempts, in their order; fails the test unless the latter
// are children of the former, within its time, and one after the other.
struct Tried {
  SimSpan request;
  std::vector<SimSpan> attempts;
};
std::vector<Tried> TriedIn(const std::vector<SimSpan>& spans) {
  std::vector<Tried> all;
  for (const SimSpan& span : spans) {
    if (span.attributes.contains("attempts")) {
      all.push_back({span, {}});
      continue;
    }
    const bool is_child = !all.empty() && span.parent == all.back().request.span;
    EXPECT_TRUE(is_child) << span.name;
    if (!is_child) continue;
    Tried& tried = all.back();
    const uint64_t from =
        tried.attempts.empty() ? tried.request.began_ns : tried.attempts.back().ended_ns;
    EXPECT_LE(from, span.began_ns);
    EXPECT_LE(span.began_ns, span.ended_ns);
    EXPECT_LE(span.ended_ns, tried.request.ended_ns);
    EXPECT_EQ(span.trace, tried.request.trace);
    EXPECT_NE(span.span, tried.request.span);
    EXPECT_EQ(span.name, tried.request.name);
    tried.attempts.push_back(span);
    EXPECT_EQ(span.attributes.at("attempt"), std::to_string(tried.attempts.size()));
  }
  return all;
}

TEST(Tracing, EachAttemptOfARequestThatIsTriedAgainIsASpan) {
  SimConfig config = Traced();
  config.routes = {
      SimRoute{.retry = RetryPolicy{.backoff_us = 20 * kMs, .max_backoff_us = kSecond}}};
  TracingWorld world(std::move(config));
  world.SetHosts("a", {"h1", "h2"});
  world.servers["h1"].connect = SimServer::Connect::kRefuse;
  SimClient& client = world.Connect();
  for (uint64_t i = 0; i < 2; ++i) client.Send(world.Request(i, "", {{"method", "buy"}}));
  const std::vector<Tried> all = TriedIn(world.Spans());
  ASSERT_EQ(all.size(), 2u);
  size_t again = 0;
  for (const Tried& tried : all) {
    EXPECT_FALSE(tried.request.failed);
    EXPECT_EQ(tried.request.attributes.at("server.address"), "h2");
    if (tried.attempts.empty()) {
      EXPECT_EQ(tried.request.attributes.at("attempts"), "1");
      continue;
    }
    ++again;
    ASSERT_EQ(tried.attempts.size(), 2u);
    EXPECT_EQ(tried.request.attributes.at("attempts"), "2");
    EXPECT_TRUE(tried.attempts[0].failed);
    EXPECT_EQ(tried.attempts[0].attributes.at("error.type"), "connect_failure");
    EXPECT_EQ(tried.attempts[0].attributes.at("server.address"), "h1");
    EXPECT_FALSE(tried.attempts[1].failed);
    EXPECT_FALSE(tried.attempts[1].attributes.contains("error.type"));
    EXPECT_EQ(tried.attempts[1].attributes.at("server.address"), "h2");
    EXPECT_EQ(tried.attempts[1].attributes.at("rpc.method"), "buy");
    EXPECT_EQ(tried.attempts[1].kind, 3u);
  }
  EXPECT_EQ(again, 1u);
  EXPECT_EQ(world.Count(Counter::kSpans), 4u);
}

TEST(Tracing, AttemptsSayWhyTheyWereNotTheLast) {
  struct Case {
    RetryPolicy policy;
    std::string why;
    std::function<void(SimServer&)> breaks;
  };
  const Case cases[] = {
      {.policy = {.retries = 1, .causes = RetryPolicy::kException},
       .why = "exception",
       .breaks = [](SimServer& server) { server.reply_kind = 'X'; }},
      {.policy = {.retries = 1, .causes = RetryPolicy::kTimeout, .per_try_timeout_us = 10 * kMs},
       .why = "timeout",
       .breaks = [](SimServer& server) { server.mode = SimServer::Mode::kSilent; }},
  };
  for (const Case& one : cases) {
    SimConfig config = Traced();
    config.routes = {SimRoute{.retry = one.policy}};
    TracingWorld world(std::move(config));
    one.breaks(world.servers["h1"]);
    SimClient& client = world.Connect();
    client.Send(world.Request(1));
    const std::vector<Tried> all = TriedIn(world.Spans());
    ASSERT_EQ(all.size(), 1u);
    EXPECT_TRUE(all[0].request.failed);
    ASSERT_EQ(all[0].attempts.size(), 2u);
    for (const SimSpan& attempt : all[0].attempts) {
      EXPECT_TRUE(attempt.failed);
      EXPECT_EQ(attempt.attributes.at("error.type"), one.why);
    }
  }
}

TEST(Tracing, AsManySpansOfAttemptsAsThereWereWhateverBecomesOfARequest) {
  for (const SimConfig& base : {SimConfig{}, Pipelined(), Exclusive()}) {
    SimConfig config = WithFates(Traced(base));
    for (SimRoute& route : config.routes) {
      if (route.direct_reply) continue;
      route.retry = RetryPolicy{.causes = RetryPolicy::kUnseen | RetryPolicy::kTimeout,
                                .per_try_timeout_us = 15 * kMs,
                                .backoff_us = 10 * kMs,
                                .max_backoff_us = 40 * kMs};
    }
    TracingWorld world(std::move(config), 7);
    const std::map<std::string, size_t> sent = MeetFates(world, "method");
    const std::vector<Tried> all = TriedIn(world.Spans());
    EXPECT_EQ(all.size(), sent.size());
    size_t again = 0;
    for (const Tried& tried : all) {
      const std::string attempts = tried.request.attributes.at("attempts");
      if (tried.attempts.empty()) {
        EXPECT_TRUE(attempts == "0" || attempts == "1") << tried.request.name;
        continue;
      }
      ++again;
      EXPECT_EQ(std::to_string(tried.attempts.size()), attempts) << tried.request.name;
      EXPECT_TRUE(tried.attempts.front().failed);
      EXPECT_EQ(tried.attempts.back().failed, tried.request.failed);
    }
    EXPECT_GT(again, 10u);
  }
}

TEST(Tracing, ARequestThatWasTriedOnceIsOneSpanAndWhatFailedSaysWhy) {
  SimConfig config = Traced();
  config.routes = {SimRoute{.clusters = {{"slow", 1}}, .timeout_us = 50 * kMs}};
  TracingWorld world(std::move(config));
  world.SetHosts("slow", {"s1"});
  Manual(world, "s1");
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  const auto spans = world.Spans();
  ASSERT_EQ(spans.size(), 1u);
  EXPECT_TRUE(spans[0].failed);
  EXPECT_EQ(spans[0].attributes.at("error.type"), "timeout");
  EXPECT_EQ(spans[0].attributes.at("response_flags"), "UT");
  EXPECT_NE(spans[0].why, "");
}

TEST(Tracing, AStreamIsOneSpan) {
  StreamWorld world(Traced(Streams()));
  SimClient& client = world.Connect();
  client.Send(Of(1, 'S'));
  world.RunFor(kMs);
  EXPECT_TRUE(SpansOf(world.collector).empty());
  client.Reset();
  world.RunFor(3 * kSecond);
  EXPECT_EQ(SpansOf(world.collector).size(), 1u);
}

TEST(Tracing, ALogShowsTheTraceThatBeganHere) {
  SimConfig config = Traced();
  config.access_logs = {{"/log", "%TRACE_ID%"}};
  TracingWorld world(std::move(config));
  world.Connect().Send(world.Request(1));
  const auto spans = world.Spans();
  ASSERT_EQ(spans.size(), 1u);
  EXPECT_EQ(world.Logged(), Texts{spans[0].trace + "\n"});
}

TEST(Tracing, WhatPeersSayIsCutAndMadeReadable) {
  TracingWorld world;
  SimClient& client = world.Connect();
  const std::string value = std::string(100'000, 'x');
  client.Send(world.Request(1, "", {{"method", "\xff" + value}, {"tracestate", value}}));
  const auto spans = world.Spans();
  ASSERT_EQ(spans.size(), 1u);
  EXPECT_EQ(spans[0].name, "?" + std::string(Tracing::kMostValueBytes - 1, 'x'));
  EXPECT_EQ(spans[0].state, "");
  EXPECT_LT(world.collector.batches[0].message.size(), 2000u);
}

TEST(Tracing, SpansThatACollectorDoesNotTakeAreCounted) {
  TracingWorld world;
  SimClient& client = world.Connect();
  const auto send = [&](uint64_t count) {
    for (uint64_t i = 1; i <= count; ++i) client.Send(world.Request(i));
    world.RunFor(3 * kSecond);
    EXPECT_EQ(client.Take().size(), count);
  };
  world.collector.mode = SimCollector::Mode::kRejectsTwo;
  send(5);
  EXPECT_EQ(world.Count(Counter::kSpansLost), 2u);
  world.collector.mode = SimCollector::Mode::kFails;
  send(5);
  EXPECT_EQ(world.Count(Counter::kSpansLost), 7u);
  world.collector.mode = SimCollector::Mode::kTakes;
  send(5);
  EXPECT_EQ(world.Count(Counter::kSpansLost), 7u);
  EXPECT_EQ(world.Count(Counter::kSpans), 15u);
}

TEST(Tracing, NobodyNoticesACollectorThatIsSilentAndWhatWaitsForItIsBounded) {
  TracingWorld world;
  world.collector.mode = SimCollector::Mode::kSilent;
  SimClient& client = world.Connect();
  const std::string long_name(250, 'm');
  uint64_t answered = 0;
  for (uint64_t i = 1; i <= 6000; ++i) {
    client.Send(world.Request(i, "", {{"method", long_name}}));
    world.RunFor(kMs / 2);
    answered += client.Take().size();
  }
  EXPECT_EQ(answered, 6000u);
  world.RunFor(60 * kSecond);
  EXPECT_EQ(world.Count(Counter::kSpans), 6000u);
  EXPECT_EQ(world.Count(Counter::kSpansLost), 6000u);
  // One under way at a time, none larger than the bound.
  EXPECT_LE(world.collector.batches.size(), 8u);
  for (const auto& batch : world.collector.batches) EXPECT_LT(batch.message.size(), 1'100'000u);
  client.Reset();
  world.RunFor(kSecond * 5);
  world.ExpectQuiet();
}

TEST(Tracing, SpansOfTheLastClientArriveThoughItHasGone) {
  TracingWorld world;
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(10 * kMs);
  client.Reset();
  EXPECT_EQ(world.Spans().size(), 1u);
}

TEST(Tracing, ManyCollectorsTogetherAreBoundedToo) {
  // What one filter's configuration names may change as often as somebody likes.
  TracingWorld world;
  world.collector.mode = SimCollector::Mode::kSilent;
  SimClient& client = world.Connect();
  uint64_t id = 0;
  const std::string long_name(250, 'm');
  for (size_t round = 0; round < 12; ++round) {
    world.Publish(Traced(
        [round](Tracing& tracing) { tracing.target.cluster = "spans-" + std::to_string(round); }));
    for (size_t i = 0; i < 1500; ++i) {
      client.Send(world.Request(++id, "", {{"method", long_name}}));
      world.RunFor(10);
    }
  }
  world.RunFor(60 * kSecond);
  EXPECT_EQ(world.Count(Counter::kSpans), id);
  EXPECT_EQ(world.Count(Counter::kSpansLost), id);
  size_t bytes = 0;
  for (const auto& batch : world.collector.batches) bytes += batch.message.size();
  EXPECT_LT(bytes, size_t{8} << 20);
}

}  // namespace
}  // namespace metaprotocol::test
