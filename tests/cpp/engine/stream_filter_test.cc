// Filters and streams: a filter sees what opens a stream, once, and how it ended, once.
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/cpp/engine/stream_world.h"

namespace metaprotocol::test {
namespace {

class StreamFilter : public Filter {
 public:
  std::function<RequestVerdict(FilterContext&)> on_request;
  std::function<RequestVerdict(FilterContext&)> on_timer;
  mutable int requests = 0;
  mutable std::vector<Outcome> ends;

  std::string_view name() const override { return "test"; }
  FilterNeeds needs() const override { return {.response = true, .outcome = true}; }
  bool WantsWhole(const MatchInput&) const override { return true; }
  RequestVerdict OnRequest(FilterContext& context) const override {
    ++requests;
    EXPECT_EQ(context.request().message.kind, MessageKind::kStreamOpen);
    return on_request ? on_request(context) : RequestVerdict::kContinue;
  }
  RequestVerdict OnTimer(FilterContext& context) const override {
    return on_timer ? on_timer(context) : RequestVerdict::kContinue;
  }
  ResponseVerdict OnResponse(FilterContext&, const ResponseHead&) const override {
    ADD_FAILURE() << "a stream has no response";
    return ResponseVerdict::kContinue;
  }
  void OnEnd(FilterContext&, const Outcome& outcome) const override { ends.push_back(outcome); }
};

class FilteredWorld {
 public:
  explicit FilteredWorld(UpstreamMode mode = UpstreamMode::kShared) {
    SimConfig config = With(FakeStreams(), mode);
    config.filters = {{"test", filter}};
    world_ = std::make_unique<StreamWorld>(config);
  }
  StreamWorld* operator->() { return world_.get(); }
  StreamWorld& operator*() { return *world_; }

  std::shared_ptr<StreamFilter> filter = std::make_shared<StreamFilter>();

 private:
  std::unique_ptr<StreamWorld> world_;
};

TEST(StreamFilter, SeesTheOpeningAndTheEndOnce) {
  FilteredWorld world;
  SimClient& client = world->Connect();
  const uint64_t id = OpenOne(*world, client);
  client.Send(Of(1, 'D', "12345"));
  world->server().Send(Of(id, 'D', "1234567890") + Of(id, 'F'));
  EXPECT_EQ(world.filter->ends.size(), 0u);
  world->RunFor(kSecond);
  client.Send(Of(1, 'F'));
  world->RunFor(kMs);
  EXPECT_EQ(world.filter->requests, 1);
  ASSERT_EQ(world.filter->ends.size(), 1u);
  const Outcome& end = world.filter->ends[0];
  EXPECT_EQ(end.kind, Outcome::Kind::kReplied);
  EXPECT_EQ(end.status, ReplyStatus::kOk);
  EXPECT_EQ(end.request_bytes, Of(1, 'S').size() + Of(1, 'D', "12345").size() + Of(1, 'F').size());
  EXPECT_EQ(end.response_bytes, Of(1, 'D', "1234567890").size() + Of(1, 'F').size());
  EXPECT_EQ(end.attempts, 1u);
  EXPECT_GE(end.ended_us - end.started_us, kSecond);
  ExpectQuietLater(*world);
}

TEST(StreamFilter, LearnsOfEachKindOfEndOnce) {
  struct Case {
    Outcome::Kind kind;
    std::function<void(StreamWorld&, SimClient&, uint64_t)> end;
  };
  const std::vector<Case> cases = {
      {Outcome::Kind::kClientGone,
       [](StreamWorld&, SimClient& client, uint64_t) { client.Reset(); }},
      {Outcome::Kind::kClientGone,
       [](StreamWorld&, SimClient& client, uint64_t) { client.Send(Of(1, 'Z')); }},
      {Outcome::Kind::kReplied,
       [](StreamWorld& world, SimClient&, uint64_t id) { world.server().Send(Of(id, 'Z')); }},
      {Outcome::Kind::kAnswered,
       [](StreamWorld& world, SimClient&, uint64_t) { world.server().Close(); }},
      {Outcome::Kind::kAnswered,
       [](StreamWorld& world, SimClient&, uint64_t) { world.RunFor(400 * kSecond); }},
      {Outcome::Kind::kAnswered,
       [](StreamWorld&, SimClient& client, uint64_t) { client.Send(Of(1, 'S')); }},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    FilteredWorld world;
    SimClient& client = world->Connect();
    const uint64_t id = OpenOne(*world, client);
    cases[i].end(*world, client, id);
    world->RunFor(kMs);
    ASSERT_EQ(world.filter->ends.size(), 1u) << i;
    EXPECT_EQ(world.filter->ends[0].kind, cases[i].kind) << i;
    EXPECT_EQ(world->exchanges(), 0u);
    ExpectQuietLater(*world);
    EXPECT_EQ(world.filter->ends.size(), 1u) << i;
  }
}

TEST(StreamFilter, OneThatWaitsHoldsBackWhatFollowsInItsOrder) {
  for (const UpstreamMode mode :
       {UpstreamMode::kShared, UpstreamMode::kExclusive, UpstreamMode::kPerSession}) {
    FilteredWorld world(mode);
    world.filter->on_request = [](FilterContext& context) {
      context.StartTimer(10 * kMs);
      return RequestVerdict::kStop;
    };
    SimClient& client = world->Connect();
    client.Send(Of(1, 'S', "o") + Of(1, 'D', "one"));
    client.Send(Of(1, 'D', "two"));
    client.Send(Of(1, 'L', "three"));
    world->RunFor(5 * kMs);
    EXPECT_TRUE(client.paused);
    EXPECT_EQ(world->TakeAtServer().size(), 0u);
    world->RunFor(20 * kMs);
    EXPECT_FALSE(client.paused);
    EXPECT_EQ(Said(world->TakeAtServer()), (Texts{"S:o", "D:one", "D:two", "L:three"}));
    client.Reset();
    ExpectQuietLater(*world);
    EXPECT_EQ(world.filter->ends.size(), 1u);
  }
}

TEST(StreamFilter, MayAnswerInPlaceOfAServerAtOnceOrLater) {
  for (const bool later : {false, true}) {
    FilteredWorld world;
    const auto answer = [](FilterContext& context) {
      context.Answer(LocalReply::kDenied, "no");
      return RequestVerdict::kAnswered;
    };
    world.filter->on_timer = answer;
    world.filter->on_request = [&](FilterContext& context) {
      if (!later) return answer(context);
      context.StartTimer(kMs);
      return RequestVerdict::kStop;
    };
    SimClient& client = world->Connect();
    client.Send(Of(1, 'S') + Of(1, 'D', "x"));
    world->RunFor(50 * kMs);
    EXPECT_EQ(Said(client.Take()), (Texts{"Z:denied"}));
    EXPECT_EQ(world->TakeAtServer().size(), 0u);
    ASSERT_EQ(world.filter->ends.size(), 1u);
    EXPECT_EQ(world.filter->ends[0].kind, Outcome::Kind::kAnswered);
    EXPECT_FALSE(client.paused);
    ExpectQuietLater(*world);
  }
}

TEST(StreamFilter, AClientMayLeaveWhileOneWaits) {
  FilteredWorld world;
  world.filter->on_request = [](FilterContext& context) {
    context.StartTimer(10 * kMs);
    return RequestVerdict::kStop;
  };
  SimClient& client = world->Connect();
  client.Send(Of(1, 'S') + Of(1, 'D', "x"));
  world->RunFor(kMs);
  client.Reset();
  world->RunFor(kSecond);
  EXPECT_EQ(world->TakeAtServer().size(), 0u);
  ASSERT_EQ(world.filter->ends.size(), 1u);
  EXPECT_EQ(world.filter->ends[0].kind, Outcome::Kind::kClientGone);
  ExpectQuietLater(*world);
}

}  // namespace
}  // namespace metaprotocol::test
