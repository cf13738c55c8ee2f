// Faults on purpose: as many as were asked for, and no other request notices.
#include "src/filter/fault/fault.h"

#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {
namespace {

SimConfig Faulty(std::optional<FaultDelay> delay, std::optional<FaultAbort> abort,
                 SimConfig config = {}) {
  auto fault = std::make_shared<Fault>();
  fault->delay = delay;
  fault->abort = std::move(abort);
  config.filters = {{"fault", fault}};
  return config;
}

TEST(Fault, EveryRequestIsDelayedThenAborted) {
  for (const SimConfig& base : {SimConfig{}, Pipelined(), Exclusive(), PerSession()}) {
    World world(Faulty(FaultDelay{.duration_us = 100 * kMs},
                       FaultAbort{.reply = LocalReply::kOverLimit, .text = "on purpose"}, base));
    world.SetHosts("a", {"h1"});
    SimClient& client = world.Connect();
    client.Send(world.Request(1));
    world.RunFor(90 * kMs);
    EXPECT_EQ(Kinds(client.Take()), "");
    world.RunFor(kSecond);
    EXPECT_EQ(Kinds(client.Take()), "E");
    EXPECT_EQ(world.Count(Counter::kFaultDelays), 1u);
    EXPECT_EQ(world.Count(Counter::kFaultAborts), 1u);
    EXPECT_EQ(world.Count(LocalReply::kOverLimit), 1u);
    EXPECT_TRUE(world.Seen().empty());
    client.Reset();
    world.RunFor(20 * kSecond);
    world.ExpectQuiet();
  }
}

TEST(Fault, SharesAreWhatWasAskedForAndIndependent) {
  World world(Faulty(FaultDelay{.chance = Route::ChanceOf(20), .duration_us = 100 * kMs},
                     FaultAbort{.chance = Route::ChanceOf(10)}));
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  size_t errors = 0;
  size_t late = 0;
  size_t late_errors = 0;
  constexpr size_t kCalls = 5000;
  for (uint64_t i = 0; i < kCalls; ++i) {
    client.Send(world.Request(i));
    world.RunFor(5 * kMs);
    std::string kinds = Kinds(client.Take());
    const bool delayed = kinds.empty();
    if (delayed) {
      world.RunFor(200 * kMs);
      kinds = Kinds(client.Take());
    }
    late += delayed ? 1 : 0;
    errors += kinds == "E" ? 1 : 0;
    late_errors += delayed && kinds == "E" ? 1 : 0;
  }
  // Six standard deviations.
  EXPECT_NEAR(static_cast<double>(late), 1000, 170);
  EXPECT_NEAR(static_cast<double>(errors), 500, 130);
  EXPECT_NEAR(static_cast<double>(late_errors), 100, 60);
  EXPECT_EQ(world.Count(Counter::kFaultDelays), late);
  EXPECT_EQ(world.Count(Counter::kFaultAborts), errors);
}

TEST(Fault, NobodyWaitsForADelayedRequestOfAnother) {
  World world(Faulty(FaultDelay{.chance = Route::ChanceOf(50), .duration_us = kSecond}, {}));
  world.SetHosts("a", {"h1"});
  SimClient& one = world.Connect();
  SimClient& other = world.Connect();
  for (uint64_t i = 0; i < 100; ++i) {
    one.Send(world.Request(i));
    other.Send(world.Request(i));
  }
  world.RunFor(100 * kMs);
  EXPECT_GT(one.Take().size(), 20u);
  EXPECT_GT(other.Take().size(), 20u);
  one.Reset();
  world.RunFor(10 * kSecond);
  other.Reset();
  world.RunFor(10 * kSecond);
  world.ExpectQuiet();
}

TEST(Fault, ThatDoesNothingIsNotInTheChain) {
  FilterChain chain;
  Fault none;
  none.delay = FaultDelay{.chance = 0, .duration_us = kSecond};
  chain.Add(none);
  EXPECT_TRUE(chain.empty());
  Fault some;
  some.abort.emplace();
  chain.Add(some);
  EXPECT_EQ(chain.size(), 1u);
}

TEST(Fault, ClientThatLeavesEndsItsDelay) {
  World world(Faulty(FaultDelay{.duration_us = kSecond}, {}));
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  client.Reset();
  world.RunFor(20 * kSecond);
  EXPECT_TRUE(world.Seen().empty());
  world.ExpectQuiet();
}

// --- faults that requests ask for. Nobody can ask for more than is allowed, what is no wish is no
// fault, and requests that ask for nothing have those of the configuration

SimConfig Asked(uint64_t max_chance = Route::kAlways, bool aborts = false) {
  SimConfig config;
  config.make_filters.emplace_back("fault", [=](MetadataKeys& keys) {
    auto fault = std::make_shared<Fault>();
    if (aborts) fault->abort = FaultAbort{.reply = LocalReply::kDenied};
    fault->requested.emplace(RequestedFaults{.delay = KeyRef("wait", keys),
                                             .delay_percent = KeyRef("wait-percentage", keys),
                                             .abort = KeyRef("fail", keys),
                                             .abort_percent = KeyRef("fail-percentage", keys),
                                             .max_delay_us = 200 * kMs,
                                             .max_chance = max_chance});
    return fault;
  });
  return config;
}

TEST(Fault, RequestsAskForDelaysUpToTheBound) {
  World world(Asked());
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  const auto waits_ms = [&](const char* asked_for) {
    client.Send(world.Request(1, "", {{"wait", asked_for}}));
    for (uint64_t ms = 0; ms < 1000; ++ms) {
      world.RunFor(kMs);
      if (!client.Take().empty()) return ms;
    }
    return uint64_t{1000};
  };
  EXPECT_NEAR(static_cast<double>(waits_ms("50")), 50, 2);
  EXPECT_NEAR(static_cast<double>(waits_ms("300")), 200, 2);
  EXPECT_NEAR(static_cast<double>(waits_ms("18446744073709551615")), 200, 2);
  for (const char* none : {"0", "", "-5", "+5", "5ms", "1e3", " 5", "18446744073709551616"}) {
    EXPECT_LE(waits_ms(none), 2u) << none;
  }
}

TEST(Fault, RequestsAskForErrorsByName) {
  World world(Asked(Route::kAlways, true));
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  const auto sent = [&](const FakeKv& kv) {
    client.Send(world.Request(1, "", kv));
    world.RunFor(kSecond);
    client.Take();
  };
  sent({{"fail", "timeout"}});
  EXPECT_EQ(world.Count(LocalReply::kTimeout), 1u);
  EXPECT_EQ(world.Count(LocalReply::kDenied), 0u) << "in place of the configuration's own";
  for (const char* none : {"", "503", "Timeout", "timeouts"}) sent({{"fail", none}});
  sent({});
  EXPECT_EQ(world.Count(LocalReply::kDenied), 5u);
  sent({{"fail", "timeout"}, {"fail-percentage", "0"}});
  EXPECT_EQ(world.Count(LocalReply::kTimeout), 1u);
  EXPECT_EQ(world.Count(LocalReply::kDenied), 5u) << "who asks for no chance has none";
}

TEST(Fault, NobodyCanAskForAGreaterChanceThanTheBound) {
  for (const char* percent : {"100", "1e9", "inf", "25"}) {
    World world(Asked(Route::ChanceOf(25)));
    world.SetHosts("a", {"h1"});
    SimClient& client = world.Connect();
    constexpr size_t kCalls = 2000;
    for (uint64_t i = 0; i < kCalls; ++i) {
      client.Send(world.Request(i, "", {{"fail", "fault"}, {"fail-percentage", percent}}));
      world.RunFor(kMs);
    }
    const auto failed = static_cast<double>(world.Count(Counter::kFaultAborts));
    EXPECT_NEAR(failed, kCalls * 0.25, 120) << percent;  // six standard deviations
  }
  for (const char* percent : {"nan", "-1", "many", ""}) {
    World world(Asked());
    world.SetHosts("a", {"h1"});
    SimClient& client = world.Connect();
    client.Send(world.Request(1, "", {{"fail", "fault"}, {"fail-percentage", percent}}));
    world.RunFor(kMs);
    EXPECT_EQ(world.Count(Counter::kFaultAborts), 0u) << percent;
  }
}

}  // namespace
}  // namespace metaprotocol::test
