// Filters: what they may do with requests and replies, and that each learns how each request ended.
#include "src/filter/filter.h"

#include <functional>

#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {
namespace {

// Does what a test says, and remembers the ends.
class TestFilter : public Filter {
 public:
  struct Seen {
    Outcome outcome;
    std::string host_address;
  };
  FilterNeeds wants = {.outcome = true};
  bool whole = true;
  std::function<RequestVerdict(FilterContext&)> on_request;
  std::function<RequestVerdict(FilterContext&, std::optional<Bytes>)> on_call_done;
  std::function<RequestVerdict(FilterContext&)> on_timer;
  std::function<ResponseVerdict(FilterContext&, const ResponseHead&)> on_response;
  std::function<ResponseVerdict(FilterContext&, std::optional<Bytes>)> on_response_resumed;
  std::function<void(FilterContext&)> on_end;
  mutable std::vector<Seen> ends;

  std::string_view name() const override { return "test"; }
  FilterNeeds needs() const override { return wants; }
  bool WantsWhole(const MatchInput&) const override { return whole; }
  RequestVerdict OnRequest(FilterContext& context) const override {
    return on_request ? on_request(context) : RequestVerdict::kContinue;
  }
  RequestVerdict OnCallDone(FilterContext& context, std::optional<Bytes> reply) const override {
    return on_call_done(context, reply);
  }
  RequestVerdict OnTimer(FilterContext& context) const override { return on_timer(context); }
  ResponseVerdict OnResponse(FilterContext& context, const ResponseHead& head) const override {
    return on_response ? on_response(context, head) : ResponseVerdict::kContinue;
  }
  ResponseVerdict OnResponseResumed(FilterContext& context, const ResponseHead&,
                                    std::optional<Bytes> reply) const override {
    return on_response_resumed(context, reply);
  }
  void OnEnd(FilterContext& context, const Outcome& outcome) const override {
    ends.push_back({outcome, std::string(outcome.host_address)});
    if (on_end) on_end(context);
  }

  Outcome::Kind only_end() const {
    EXPECT_EQ(ends.size(), 1u);
    return ends.empty() ? Outcome::Kind::kReplied : ends[0].outcome.kind;
  }
};

struct Filtered {
  std::shared_ptr<TestFilter> filter = std::make_shared<TestFilter>();
  SimConfig config;

  explicit Filtered(SimConfig base = {}) : config(std::move(base)) {
    config.filters = {{"test", filter}};
  }
};

TEST(Filter, SeesEachRequestInTheOrderOfTheChain) {
  std::string order;
  SimConfig config;
  for (const char name : {'a', 'b', 'c'}) {
    auto filter = std::make_shared<TestFilter>();
    filter->wants.response = true;
    filter->on_request = [&order, name](FilterContext&) {
      order += name;
      return RequestVerdict::kContinue;
    };
    filter->on_response = [&order, name](FilterContext&, const ResponseHead&) {
      order += static_cast<char>(name - 'a' + 'A');
      return ResponseVerdict::kContinue;
    };
    config.filters.emplace_back(std::string(1, name), filter);
  }
  World world(config);
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(client.Take()), "R");
  EXPECT_EQ(order, "abcCBA");
}

TEST(Filter, AnswersInPlaceOfAServer) {
  Filtered with;
  with.filter->on_request = [](FilterContext& context) {
    context.Answer(LocalReply::kDenied, "no");
    return RequestVerdict::kAnswered;
  };
  World world(with.config);
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  client.Send(world.Request(1) + world.OneWay(2));
  EXPECT_EQ(Kinds(client.Take()), "E");
  ASSERT_EQ(with.filter->ends.size(), 2u);
  EXPECT_EQ(with.filter->ends[0].outcome.kind, Outcome::Kind::kAnswered);
  EXPECT_EQ(with.filter->ends[0].outcome.reply, LocalReply::kDenied);
  EXPECT_EQ(with.filter->ends[1].outcome.kind, Outcome::Kind::kDropped);
  EXPECT_EQ(world.lease_count(), 0u);
  EXPECT_EQ(world.exchanges(), 0u);
  EXPECT_EQ(world.Value(Gauge::kExchangesActive), 0);
}

TEST(Filter, HoldsARequestUntilItsTimer) {
  for (const SimConfig& base : {SimConfig{}, Pipelined(), Exclusive(), PerSession()}) {
    Filtered with(base);
    with.filter->on_request = [](FilterContext& context) {
      context.StartTimer(100 * kMs);
      return RequestVerdict::kStop;
    };
    int fired = 0;
    with.filter->on_timer = [&fired](FilterContext& context) {
      EXPECT_EQ(context.request().message.kind, MessageKind::kRequest);
      if (++fired == 2) return RequestVerdict::kContinue;
      context.StartTimer(100 * kMs);
      return RequestVerdict::kStop;
    };
    World world(with.config);
    world.SetHosts("a", {"h1"});
    SimClient& client = world.Connect();
    client.Send(world.Request(1, "body"));
    world.RunFor(190 * kMs);
    EXPECT_EQ(fired, 1);
    EXPECT_EQ(world.Count(Counter::kRequests), 0u);
    EXPECT_EQ(world.Value(Gauge::kExchangesActive), 1);
    world.RunFor(kSecond);
    EXPECT_EQ(Kinds(client.Take()), "R");
    EXPECT_EQ(with.filter->only_end(), Outcome::Kind::kReplied);
  }
}

TEST(Filter, HoldsARequestUntilItsCallIsAnswered) {
  Filtered with;
  with.filter->on_request = [](FilterContext& context) {
    context.StartCall("auth", "/a.B/C", "who", 50 * kMs);
    return RequestVerdict::kStop;
  };
  std::vector<bool> answers;
  with.filter->on_call_done = [&](FilterContext& context, std::optional<Bytes> reply) {
    answers.push_back(reply.has_value());
    if (reply) return RequestVerdict::kContinue;
    context.Answer(LocalReply::kDenied, "nobody knows");
    return RequestVerdict::kAnswered;
  };
  World world(with.config);
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(client.Take()), "R");
  world.limiter.mode = SimLimiter::Mode::kSilent;
  client.Send(world.Request(2));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(client.Take()), "E") << "without an answer in time";
  EXPECT_EQ(answers, (std::vector<bool>{true, false}));
  ASSERT_EQ(world.limiter.questions.size(), 2u);
  EXPECT_EQ(world.limiter.questions[0].path, "/a.B/C");
}

TEST(Filter, ClientThatLeavesEndsWhatIsHeld) {
  Filtered with;
  with.filter->on_request = [](FilterContext& context) {
    context.StartTimer(kSecond);
    return RequestVerdict::kStop;
  };
  World world(with.config);
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  client.Reset();
  EXPECT_EQ(with.filter->only_end(), Outcome::Kind::kClientGone);
  world.RunFor(10 * kSecond);
  world.ExpectQuiet();
}

TEST(Filter, ChangesTheRequest) {
  Filtered with({.routes = {SimRoute{.request_mutation = {{MutationOp::Kind::kSet, "a", "1"}}}}});
  with.filter->on_request = [](FilterContext& context) {
    context.Change({MutationOp::Kind::kSet, "b", "2"});
    return RequestVerdict::kContinue;
  };
  World world(with.config);
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(client.Take()), "R");
  const std::string& seen = world.Open("h1").at(0)->received;
  EXPECT_NE(seen.find("a=1"), std::string::npos);
  EXPECT_NE(seen.find("b=2"), std::string::npos);
}

TEST(Filter, ReplacesAReply) {
  for (const SimConfig& base : {SimConfig{}, Pipelined(), Exclusive()}) {
    for (const size_t body : {size_t{10}, size_t{100000}}) {
      Filtered with(base);
      with.filter->wants.response = true;
      with.filter->on_response = [](FilterContext& context, const ResponseHead& head) {
        EXPECT_EQ(head.status, ReplyStatus::kOk);
        context.Answer(LocalReply::kFault, "not today");
        return ResponseVerdict::kReplace;
      };
      World world(with.config);
      world.SetHosts("a", {"h1"});
      world.servers["h1"].reply_body_bytes = body;
      SimClient& client = world.Connect();
      client.Send(world.Request(1) + world.Request(2));
      world.RunFor(kSecond);
      EXPECT_EQ(Kinds(client.Take()), "EE");
      client.Reset();
      world.RunFor(20 * kSecond);
      world.ExpectQuiet();
    }
  }
}

TEST(Filter, SeesWhatItLooksAtInRepliesAndNothingElse) {
  Filtered with;
  with.filter->wants.response = true;
  with.config.response_keys = {"load"};
  std::vector<std::pair<std::string, std::string>> seen;
  with.filter->on_response = [&](FilterContext&, const ResponseHead& head) {
    for (const auto& [key, value] : head.metadata.Entries()) seen.emplace_back(key, value);
    return ResponseVerdict::kContinue;
  };
  World world(with.config);
  world.SetHosts("a", {"h1"});
  world.servers["h1"].on_message = [](SimConnection& connection, const WireMessage& request) {
    connection.Send(FakeMessage('R', request.id, {{"other", "x"}, {"load", "7"}}, "body"));
  };
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(client.Take()), "R");
  EXPECT_EQ(seen, (std::vector<std::pair<std::string, std::string>>{{"load", "7"}}));
}

TEST(Filter, RetriesWithTheSameRequestAndGivesUpInTheEnd) {
  for (const SimConfig& base : {SimConfig{}, Pipelined(), Exclusive()}) {
    Filtered with(base);
    with.filter->wants = {.response = true, .outcome = true, .replay = true};
    int retries = 1;
    with.filter->on_response = [&retries](FilterContext&, const ResponseHead&) {
      return retries-- > 0 ? ResponseVerdict::kRetry : ResponseVerdict::kContinue;
    };
    World world(with.config);
    world.SetHosts("a", {"h1"});
    SimClient& client = world.Connect();
    client.Send(world.Request(1, "body"));
    world.RunFor(kSecond);
    EXPECT_EQ(Kinds(client.Take()), "R");
    EXPECT_EQ(world.Seen().size(), 2u) << "the server has seen it twice";
    EXPECT_EQ(with.filter->ends.at(0).outcome.attempts, 2u);
    EXPECT_EQ(world.Count(Counter::kRequests), 1u);

    retries = 1000;
    client.Send(world.Request(2, "body"));
    world.RunFor(kSecond);
    EXPECT_EQ(Kinds(client.Take()), "R") << "the last reply is the client's";
    EXPECT_EQ(world.Seen().size(), 5u);
    client.Reset();
    world.RunFor(20 * kSecond);
    world.ExpectQuiet();
  }
}

// A filter that stops each reply for a call.
Filtered StoppingReplies(SimConfig base, ResponseVerdict then) {
  Filtered with(std::move(base));
  with.filter->wants = {.response = true, .whole_response = true, .outcome = true, .replay = true};
  with.filter->on_response = [](FilterContext& context, const ResponseHead&) {
    context.StartCall("judge", "/a.B/C", "what", 50 * kMs);
    return ResponseVerdict::kStop;
  };
  with.filter->on_response_resumed = [then](FilterContext& context, std::optional<Bytes>) {
    if (then == ResponseVerdict::kReplace) context.Answer(LocalReply::kFault, "not today");
    return then;
  };
  return with;
}

TEST(Filter, HoldsAReplyUntilItsCallIsAnswered) {
  for (const SimConfig& base : {SimConfig{}, Pipelined(), Exclusive(), PerSession()}) {
    for (const size_t body : {size_t{10}, size_t{100000}}) {
      Filtered with = StoppingReplies(base, ResponseVerdict::kContinue);
      World world(with.config);
      world.SetHosts("a", {"h1"});
      world.servers["h1"].reply_body_bytes = body;
      world.limiter.mode = SimLimiter::Mode::kSilent;
      SimClient& client = world.Connect();
      client.Send(world.Request(1) + world.Request(2));
      world.RunFor(30 * kMs);
      EXPECT_EQ(Kinds(client.Take()), "");
      world.RunFor(kSecond);
      EXPECT_EQ(Kinds(client.Take()), "RR") << "once the call has had its time";
      client.Reset();
      world.RunFor(20 * kSecond);
      world.ExpectQuiet();
    }
  }
}

TEST(Filter, ReplacesAReplyThatItHasHeld) {
  for (const SimConfig& base : {SimConfig{}, Pipelined(), Exclusive()}) {
    Filtered with = StoppingReplies(base, ResponseVerdict::kReplace);
    World world(with.config);
    world.SetHosts("a", {"h1"});
    SimClient& client = world.Connect();
    client.Send(world.Request(1) + world.Request(2));
    world.RunFor(kSecond);
    EXPECT_EQ(Kinds(client.Take()), "EE");
    client.Reset();
    world.RunFor(20 * kSecond);
    world.ExpectQuiet();
  }
}

TEST(Filter, RetriesAfterAReplyThatItHasHeldAndGivesUpInTheEnd) {
  for (const SimConfig& base : {SimConfig{}, Pipelined(), Exclusive()}) {
    Filtered with = StoppingReplies(base, ResponseVerdict::kRetry);
    World world(with.config);
    world.SetHosts("a", {"h1"});
    SimClient& client = world.Connect();
    client.Send(world.Request(1, "body"));
    world.RunFor(kSecond);
    EXPECT_EQ(Kinds(client.Take()), "R");
    EXPECT_EQ(world.Seen().size(), 3u);
    EXPECT_EQ(with.filter->ends.at(0).outcome.attempts, 3u);
    client.Reset();
    world.RunFor(20 * kSecond);
    world.ExpectQuiet();
  }
}

TEST(Filter, TheTimeOfARequestRunsOnWhileItsReplyIsHeld) {
  Filtered with = StoppingReplies({.default_timeout_us = 20 * kMs}, ResponseVerdict::kContinue);
  World world(with.config);
  world.SetHosts("a", {"h1"});
  world.limiter.mode = SimLimiter::Mode::kSilent;
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(client.Take()), "E");
  EXPECT_EQ(with.filter->ends.at(0).outcome.reply, LocalReply::kTimeout);
  client.Reset();
  world.RunFor(20 * kSecond);
  world.ExpectQuiet();
}

TEST(Filter, ClientThatLeavesEndsAReplyThatIsHeld) {
  Filtered with = StoppingReplies({}, ResponseVerdict::kContinue);
  World world(with.config);
  world.SetHosts("a", {"h1"});
  world.limiter.mode = SimLimiter::Mode::kSilent;
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(30 * kMs);
  client.Reset();
  EXPECT_EQ(with.filter->only_end(), Outcome::Kind::kClientGone);
  world.RunFor(20 * kSecond);
  world.ExpectQuiet();
}

TEST(Filter, RestOfARequestGoesNowhereWhileTheReplyToItsBeginningIsHeld) {
  Filtered with = StoppingReplies({}, ResponseVerdict::kContinue);
  with.config.limits.stream_message_bytes = 1024;
  with.filter->whole = false;
  World world(with.config);
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  world.limiter.mode = SimLimiter::Mode::kSilent;
  SimClient& client = world.Connect();
  const std::string request = world.Request(1, std::string(5000, 'x'));
  client.Send(request.substr(0, 2000));
  world.RunFor(kMs);
  SimConnection& server = *world.Open("h1").at(0);
  uint64_t id = 0;
  ByteReader(Bytes(server.received).substr(5)).ReadBe64(id);
  server.Send(FakeMessage('R', id, {}, "early"));
  world.RunFor(kMs);
  client.Send(request.substr(2000));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(client.Take()), "R");
  client.Reset();
  world.RunFor(20 * kSecond);
  world.ExpectQuiet();
}

TEST(Filter, KeepsAStateOfItsOwnForEachRequest) {
  struct Note : FilterState {
    explicit Note(std::string text) : text(std::move(text)) {}
    std::string text;
  };
  SimConfig config;
  std::vector<std::string> ends;
  for (const char name : {'a', 'b'}) {
    auto filter = std::make_shared<TestFilter>();
    filter->wants = {.response = true, .outcome = true, .state = true};
    filter->on_request = [name](FilterContext& context) {
      EXPECT_EQ(context.own_state(), nullptr);
      const auto id = context.request().message.id;
      context.own_state() = std::make_unique<Note>(name + std::to_string(id));
      return RequestVerdict::kContinue;
    };
    filter->on_response = [](FilterContext& context, const ResponseHead&) {
      static_cast<Note&>(*context.own_state()).text += 'R';
      return ResponseVerdict::kContinue;
    };
    filter->on_end = [&ends](FilterContext& context) {
      ends.push_back(static_cast<Note&>(*context.own_state()).text);
    };
    config.filters.emplace_back(std::string(1, name), filter);
  }
  World world(config);
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kSecond);
  client.Send(world.Request(2));
  world.RunFor(kSecond);
  EXPECT_EQ(ends, (std::vector<std::string>{"a1R", "b1R", "a2R", "b2R"}));
}

TEST(Filter, IsNotCalledForWhatItDoesNotNeed) {
  Filtered with;
  with.filter->wants = {.request = false, .outcome = true};
  int requests = 0;
  with.filter->on_request = [&requests](FilterContext&) {
    ++requests;
    return RequestVerdict::kContinue;
  };
  World world(with.config);
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(client.Take()), "R");
  EXPECT_EQ(requests, 0);
  EXPECT_EQ(with.filter->ends.size(), 1u);
}

TEST(Filter, RequestIsTriedOnAnotherHostIfItsOwnCannotBeHad) {
  World world;
  world.SetHosts("a", {"h1", "h2"});
  world.servers["h1"].connect = SimServer::Connect::kRefuse;
  SimClient& client = world.Connect();
  for (uint64_t i = 0; i < 20; ++i) {
    client.Send(world.Request(i));
    world.RunFor(kSecond);
  }
  EXPECT_EQ(Kinds(client.Take()), std::string(20, 'R'));
}

TEST(Filter, LearnsOfEachWayARequestMayEnd) {
  const auto end_of = [](auto&& script) {
    Filtered with({.default_timeout_us = kSecond});
    World world(with.config);
    world.SetHosts("a", {"h1"});
    script(world, world.Connect());
    world.RunFor(10 * kSecond);
    EXPECT_EQ(with.filter->ends.size(), 1u);
    return with.filter->ends.at(0);
  };
  auto end = end_of([](World& world, SimClient& client) { client.Send(world.Request(1)); });
  EXPECT_EQ(end.outcome.kind, Outcome::Kind::kReplied);
  EXPECT_EQ(end.host_address, "h1");
  EXPECT_GT(end.outcome.request_bytes, 0u);
  EXPECT_GT(end.outcome.response_bytes, 0u);
  EXPECT_GT(end.outcome.ended_us, end.outcome.started_us);

  end = end_of([](World& world, SimClient& client) { client.Send(world.OneWay(1)); });
  EXPECT_EQ(end.outcome.kind, Outcome::Kind::kSent);

  end = end_of([](World& world, SimClient& client) {
    Manual(world, "h1");
    client.Send(world.Request(1));
  });
  EXPECT_EQ(end.outcome.kind, Outcome::Kind::kAnswered);
  EXPECT_EQ(end.outcome.reply, LocalReply::kTimeout);
  EXPECT_EQ(end.host_address, "h1");

  end = end_of([](World& world, SimClient& client) {
    world.servers["h1"].connect = SimServer::Connect::kRefuse;
    client.Send(world.Request(1));
  });
  EXPECT_EQ(end.outcome.reply, LocalReply::kUpstreamLost);

  end = end_of([](World& world, SimClient& client) {
    Manual(world, "h1");
    client.Send(world.Request(1));
    world.RunFor(10 * kMs);
    client.Reset();
  });
  EXPECT_EQ(end.outcome.kind, Outcome::Kind::kClientGone);
}

TEST(Filter, SendsWhatNobodyWaitsForAfterTheClientHasLeft) {
  Filtered with;
  with.filter->on_end = [](FilterContext& context) {
    context.Send("logs", "/a.B/Log", "entry", kSecond);
  };
  World world(with.config);
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  client.Reset();
  world.RunFor(kSecond);
  ASSERT_EQ(world.limiter.questions.size(), 1u);
  EXPECT_EQ(world.limiter.questions[0].cluster, "logs");
}

TEST(Filter, LargeRequestIsPassedOnAsItArrivesUnlessAFilterWantsItWhole) {
  for (const bool whole : {false, true}) {
    Filtered with;
    with.config.limits.stream_message_bytes = 1024;
    with.filter->whole = whole;
    size_t seen = 0;
    with.filter->on_request = [&](FilterContext& context) {
      seen = context.request().bytes.size();
      return RequestVerdict::kContinue;
    };
    World world(with.config);
    world.SetHosts("a", {"h1"});
    SimClient& client = world.Connect();
    const std::string request = world.Request(1, std::string(5000, 'x'));
    client.Send(request.substr(0, 2000));
    world.RunFor(kMs);
    EXPECT_EQ(seen, whole ? 0u : 2000u);
    client.Send(request.substr(2000));
    world.RunFor(kSecond);
    EXPECT_EQ(seen, whole ? request.size() : 2000u);
    EXPECT_EQ(Kinds(client.Take()), "R");
  }
}

}  // namespace
}  // namespace metaprotocol::test
