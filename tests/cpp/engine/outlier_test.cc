// Outlier detection in the simulated world. The laws: what a client can have by asking for it puts
// no host out; a host that is out gets nothing while another may be used, and comes back by itself;
// the share that is out is bounded; what is off costs and does nothing.
#include <memory>

#include "src/balance/outlier_detector.h"
#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {
namespace {

SimConfig WithTimeout(uint64_t timeout_us, SimConfig config = {}) {
  config.routes = {SimRoute{.timeout_us = timeout_us}};
  return config;
}

void Detect(World& world, OutlierSettings settings = {.max_ejection_percent = 50}) {
  world.policy.balance.panic_threshold_percent = 0;
  world.policy.outliers = std::make_shared<OutlierDetector>(std::move(settings));
}

// How many requests each of the calls brings to that host.
size_t Calls(World& world, SimClient& client, int times, const std::string& address) {
  const auto seen = [&] {
    size_t sum = 0;
    for (const auto& connection : world.connections) {
      if (connection->address == address) sum += connection->requests.size();
    }
    return sum;
  };
  const size_t before = seen();
  for (int i = 0; i < times; ++i) {
    client.Send(world.Request(static_cast<uint64_t>(i)));
    world.RunFor(20 * kMs);
  }
  return seen() - before;
}

std::vector<SimConfig> ModesWithHosts() { return {SimConfig{}, Pipelined(), Exclusive()}; }

TEST(Outliers, HostWhoseServerFailsIsLeftOutAndComesBack) {
  for (const SimConfig& base : ModesWithHosts()) {
    for (const auto kind : {BalancePolicy::Kind::kRoundRobin, BalancePolicy::Kind::kLeastRequest,
                            BalancePolicy::Kind::kMaglev}) {
      World world(base);
      world.policy.balance.kind = kind;
      Detect(world);
      world.SetHosts("a", {"h1", "h2"});
      world.servers["h1"].reply_kind = 'E';
      SimClient& client = world.Connect();
      EXPECT_EQ(Calls(world, client, 100, "h1"), 5u) << "and then no more";
      EXPECT_EQ(world.Count(Counter::kOutlierEjections), 1u);
      world.servers["h1"].reply_kind = 'R';
      world.RunFor(30 * kSecond);
      EXPECT_GT(Calls(world, client, 40, "h1"), 5u);
      EXPECT_EQ(world.Count(Counter::kOutlierReturns), 1u);
    }
  }
}

TEST(Outliers, ExceptionsOfTheApplicationAndRepliesThatBlameTheRequestPutNobodyOut) {
  World world;
  Detect(world, {.consecutive_errors = 1, .max_ejection_percent = 100});
  world.SetHosts("a", {"h1", "h2"});
  world.servers["h1"].reply_kind = 'X';
  SimClient& client = world.Connect();
  EXPECT_EQ(Calls(world, client, 40, "h1"), 20u);
  EXPECT_EQ(world.Count(Counter::kOutlierEjections), 0u);
}

TEST(Outliers, OnlyListedStatusesCountIfThereIsAList) {
  World world;
  Detect(world, {.consecutive_errors = 1, .max_ejection_percent = 50, .statuses = {-7, 3}});
  world.SetHosts("a", {"h1", "h2"});
  world.servers["h1"].reply_kind = 'E';  // with status 0
  SimClient& client = world.Connect();
  EXPECT_EQ(Calls(world, client, 40, "h1"), 20u);
}

TEST(Outliers, RefusedAndLostConnectionsCount) {
  for (const SimConfig& base : ModesWithHosts()) {
    for (const bool refused : {true, false}) {
      World world(base);
      Detect(world);
      world.SetHosts("a", {"h1", "h2"});
      if (refused) {
        world.servers["h1"].connect = SimServer::Connect::kRefuse;
      } else {
        world.servers["h1"].close_after = 1;
      }
      SimClient& client = world.Connect();
      for (uint64_t i = 0; i < 40 && world.Count(Counter::kOutlierEjections) == 0; ++i) {
        Calls(world, client, 2, "h1");
        world.RunFor(2 * kSecond);  // it is not passed over any more
      }
      EXPECT_EQ(world.Count(Counter::kOutlierEjections), 1u);
      EXPECT_EQ(Calls(world, client, 20, "h1"), 0u);
    }
  }
}

TEST(Outliers, IdleConnectionsThatAServerClosesCountNothing) {
  World world;
  Detect(world, {.consecutive_errors = 1, .max_ejection_percent = 100});
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  for (int i = 0; i < 10; ++i) {
    Calls(world, client, 1, "h1");
    for (SimConnection* connection : world.Open("h1")) connection->Close();
    world.RunFor(kMs);
  }
  EXPECT_EQ(Kinds(client.Take()), std::string(10, 'R'));
  EXPECT_EQ(world.Count(Counter::kOutlierEjections), 0u);
}

TEST(Outliers, TimeoutsOfTheRouteCountAndHastyClientsDoNot) {
  for (const SimConfig& base : ModesWithHosts()) {
    World world(WithTimeout(5 * kMs, base));
    Detect(world);
    world.SetHosts("a", {"h1", "h2"});
    world.servers["h1"].mode = SimServer::Mode::kSilent;
    SimClient& client = world.Connect();
    EXPECT_EQ(Calls(world, client, 60, "h1"), 5u);
    EXPECT_EQ(world.Count(Counter::kOutlierEjections), 1u);
  }
  World world(WithTimeout(0));
  Detect(world);
  world.SetHosts("a", {"h1", "h2"});
  world.servers["h1"].mode = SimServer::Mode::kSilent;
  SimClient& client = world.Connect();
  const auto hasty = [&](uint64_t id, const char* ms) {
    client.Send(world.wire().Make('Q', id, "t", "", {{"timeout", ms}}));
    world.RunFor(3 * kSecond);
  };
  for (uint64_t i = 0; i < 20; ++i) hasty(i, "5");
  EXPECT_EQ(world.Count(LocalReply::kTimeout), 10u);
  EXPECT_EQ(world.Count(Counter::kOutlierEjections), 0u);
  for (uint64_t i = 0; i < 20; ++i) hasty(i, "1000");
  EXPECT_EQ(world.Count(Counter::kOutlierEjections), 1u) << "a second is fair";
}

TEST(Outliers, NeverMoreThanTheShareIsOutAndAllAreUsedInPanic) {
  World world;
  Detect(world, {.consecutive_errors = 1, .max_ejection_percent = 50});
  world.SetHosts("a", {"h1", "h2", "h3", "h4"});
  for (const char* host : {"h1", "h2", "h3", "h4"}) world.servers[host].reply_kind = 'E';
  SimClient& client = world.Connect();
  Calls(world, client, 100, "h1");
  EXPECT_EQ(world.Count(Counter::kOutlierEjections), 2u);

  World panic;
  Detect(panic, {.consecutive_errors = 1, .max_ejection_percent = 100});
  panic.policy.balance.panic_threshold_percent = 50;
  panic.SetHosts("a", {"h1", "h2", "h3", "h4"});
  for (const char* host : {"h1", "h2", "h3", "h4"}) panic.servers[host].reply_kind = 'E';
  SimClient& other = panic.Connect();
  EXPECT_EQ(Kinds([&] {
              Calls(panic, other, 100, "h1");
              return other.Take();
            }()),
            std::string(100, 'E'))
      << "each is answered by a server";
  EXPECT_GE(panic.Count(Counter::kOutlierEjections), 3u);
}

TEST(Outliers, HostsThatComeAndGoAreJudgedAnew) {
  World world;
  Detect(world);
  world.SetHosts("a", {"h1", "h2"});
  world.servers["h1"].reply_kind = 'E';
  SimClient& client = world.Connect();
  Calls(world, client, 20, "h1");
  EXPECT_EQ(Calls(world, client, 10, "h1"), 0u);
  world.SetHosts("a", {"h1", "h2", "h3"});
  EXPECT_EQ(Calls(world, client, 10, "h1"), 0u) << "it is the same host";
  world.SetHosts("a", {"h2", "h3"});
  world.servers["h1"].reply_kind = 'R';
  world.SetHosts("a", {"h1", "h2", "h3"});
  EXPECT_GT(Calls(world, client, 30, "h1"), 0u) << "and now another one";
}

}  // namespace
}  // namespace metaprotocol::test
