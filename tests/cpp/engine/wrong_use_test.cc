// Who uses the engine, or is used by it, in a way that the interfaces do not allow is stopped where
// that happens, in builds with assertions.
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "tests/cpp/engine/world.h"

#ifndef NDEBUG

namespace metaprotocol::test {
namespace {

// A codec that breaks its promises as a test says.
class BadCodec final : public FakeCodec {
 public:
  std::function<void(DecodeResult&, Message&)> after_decode;
  std::function<void(Encoded&)> after_encode;

  DecodeResult Decode(DecodeState* state, Direction direction, Bytes bytes,
                      const DecodeOptions& options, Message& message) const override {
    DecodeResult result = FakeCodec::Decode(state, direction, bytes, options, message);
    if (after_decode) after_decode(result, message);
    return result;
  }
  Encoded Encode(const Message& message, Bytes bytes, const EncodeOptions& options,
                 std::string& out) const override {
    Encoded encoded = FakeCodec::Encode(message, bytes, options, out);
    if (after_encode) after_encode(encoded);
    return encoded;
  }
};

void CallWith(const std::shared_ptr<BadCodec>& codec, size_t cut = 0) {
  SimConfig config;
  config.codec = codec;
  World world(config);
  world.SetHosts("a", {"s"});
  SimClient& client = world.Connect();
  const std::string request = world.Request(1, "body");
  client.Send(request.substr(0, request.size() - cut));
  world.RunFor(kMs);
}

TEST(WrongUse, OfDecodeByACodec) {
  const auto codec = std::make_shared<BadCodec>();
  codec->after_decode = [](DecodeResult& result, Message&) { result.need = 0; };
  EXPECT_DEATH(CallWith(codec, 5), "says how much more");
  codec->after_decode = [](DecodeResult&, Message& message) { message.length = 0; };
  EXPECT_DEATH(CallWith(codec), "a message has a length");
  codec->after_decode = [](DecodeResult& result, Message&) { result = DecodeResult::Error(""); };
  EXPECT_DEATH(CallWith(codec), "an error says what was wrong");
  codec->after_decode = [](DecodeResult& result, Message& message) {
    result = DecodeResult::Undecodable("why");
    message.length = 0;
  };
  EXPECT_DEATH(CallWith(codec), "where an undecodable message ends is known");
}

TEST(WrongUse, OfEncodeByACodec) {
  const auto codec = std::make_shared<BadCodec>();
  codec->after_encode = [](Encoded& encoded) { encoded.head = 1000; };
  EXPECT_DEATH(CallWith(codec), "what is replaced of a message is part of it");
  codec->after_encode = [](Encoded& encoded) { encoded.tail_bytes = 8; };
  EXPECT_DEATH(CallWith(codec), "what is replaced of a message is part of it");
}

// A host that calls what it may not call while it is being called.
class RashHost final : public World {
 public:
  using World::World;
  std::function<void(RashHost&)> during_write;

  void WriteLease(LeaseHandle handle, Bytes bytes) override {
    if (during_write) std::exchange(during_write, nullptr)(*this);
    World::WriteLease(handle, bytes);
  }
};

void CallWhile(std::function<void(RashHost&)> rash) {
  RashHost world;
  world.SetHosts("a", {"s"});
  SimClient& client = world.Connect();
  world.during_write = std::move(rash);
  client.Send(world.Request(1));
  world.RunFor(kMs);
}

TEST(WrongUse, OfEventsWithinEventsByAHost) {
  const auto data = [](RashHost& world) {
    const std::string bytes = world.Request(2);
    const Bytes slice = bytes;
    world.WithEngine([&](Engine& engine) {
      engine.SessionData(world.clients[0]->session, std::span(&slice, 1), false);
    });
  };
  EXPECT_DEATH(CallWhile(data), "not within another event");
  EXPECT_DEATH(
      CallWhile([](RashHost& world) { world.WithEngine([](Engine& engine) { engine.Tick(); }); }),
      "not within another event");
  EXPECT_DEATH(CallWhile([](RashHost& world) { world.Connect(); }), "not within another event");
  EXPECT_DEATH(
      CallWhile([](RashHost& world) { world.WithEngine([](Engine& engine) { engine.Drain(); }); }),
      "not within another event");
  EXPECT_DEATH(
      CallWhile([](RashHost& world) {
        world.WithEngine([&](Engine& engine) { engine.DrainSession(world.clients[0]->session); });
      }),
      "not within another event");
  EXPECT_DEATH(CallWhile([](RashHost& world) {
                 world.WithEngine([](Engine& engine) { engine.WriteGathered(); });
               }),
               "not within another event");
  EXPECT_DEATH(CallWhile([](RashHost& world) {
                 world.WithEngine([](Engine& engine) { engine.CallDone(1, std::nullopt); });
               }),
               "not within another event");
  EXPECT_DEATH(CallWhile([](RashHost& world) {
                 world.WithEngine(
                     [&](Engine& engine) { engine.LeaseData(world.connections[0]->lease, {}); });
               }),
               "not within another event");
}

TEST(WrongUse, OfALeaseByAHost) {
  const auto twice = [] {
    World world;
    world.SetHosts("a", {"s"});
    world.Connect().Send(world.Request(1));
    world.RunFor(kMs);
    world.WithEngine(
        [&](Engine& engine) { engine.LeaseReady(world.connections[0]->lease, nullptr); });
  };
  EXPECT_DEATH(twice(), "a lease becomes ready once");
  const auto early = [] {
    class Hasty final : public World {
     public:
      void OpenLease(LeaseId lease, std::string_view, std::string_view) override { id = lease; }
      LeaseId id = 0;
    } world;
    world.SetHosts("a", {"s"});
    world.Connect().Send(world.Request(1));
    const Bytes slice = "x";
    world.WithEngine([&](Engine& engine) { engine.LeaseData(world.id, std::span(&slice, 1)); });
  };
  EXPECT_DEATH(early(), "no data before the lease is ready");
}

// A filter that breaks its promises as a test says.
class BadFilter final : public Filter {
 public:
  FilterNeeds wants;
  bool whole = true;
  std::function<RequestVerdict(FilterContext&)> on_request;
  std::function<ResponseVerdict(FilterContext&)> on_response;

  std::string_view name() const override { return "bad"; }
  FilterNeeds needs() const override { return wants; }
  bool WantsWhole(const MatchInput&) const override { return whole; }
  RequestVerdict OnRequest(FilterContext& context) const override {
    return on_request ? on_request(context) : RequestVerdict::kContinue;
  }
  ResponseVerdict OnResponse(FilterContext& context, const ResponseHead&) const override {
    return on_response(context);
  }
};

void CallThrough(const std::shared_ptr<const BadFilter>& filter, size_t body_bytes = 4) {
  SimConfig config;
  config.filters = {{"bad", filter}};
  World world(config);
  world.SetHosts("a", {"s"});
  SimClient& client = world.Connect();
  const std::string request = world.Request(1, std::string(body_bytes, 'x'));
  client.Send(request.substr(0, request.size() - 1));
  client.Send(request.substr(request.size() - 1));
  world.RunFor(kSecond);
}

TEST(WrongUse, OfRequestsByAFilter) {
  const auto filter = std::make_shared<BadFilter>();
  filter->on_request = [](FilterContext&) { return RequestVerdict::kStop; };
  EXPECT_DEATH(CallThrough(filter), "a filter stops for something");
  filter->on_request = [](FilterContext& context) {
    context.StartTimer(kMs);
    context.StartTimer(kMs);
    return RequestVerdict::kStop;
  };
  EXPECT_DEATH(CallThrough(filter), "waits for one thing at a time");
  filter->on_request = [](FilterContext& context) {
    context.StartTimer(kMs);
    context.StartCall("a", "/p", "", kMs);
    return RequestVerdict::kStop;
  };
  EXPECT_DEATH(CallThrough(filter), "waits for one thing at a time");
  filter->on_request = [](FilterContext& context) {
    context.own_state();
    return RequestVerdict::kContinue;
  };
  EXPECT_DEATH(CallThrough(filter), "a filter with state says so in its needs");
  filter->whole = false;
  filter->on_request = [](FilterContext& context) {
    context.StartTimer(kMs);
    return RequestVerdict::kStop;
  };
  EXPECT_DEATH(CallThrough(filter, 100000), "a filter that may stop wants requests whole");
}

TEST(WrongUse, OfRepliesByAFilter) {
  const auto filter = std::make_shared<BadFilter>();
  filter->wants.response = true;
  filter->on_response = [](FilterContext& context) {
    context.StartTimer(kMs);
    return ResponseVerdict::kStop;
  };
  EXPECT_DEATH(CallThrough(filter), "a filter that stops replies says so in its needs");
  filter->wants.whole_response = true;
  filter->on_response = [](FilterContext&) { return ResponseVerdict::kStop; };
  EXPECT_DEATH(CallThrough(filter), "a filter stops for something");
}

}  // namespace
}  // namespace metaprotocol::test

#endif
