// Slow start in the simulated world. The laws: a host that is new gets its share times Envoy's
// factor, never less than the least share nor more than its whole one; hosts that came together are
// alike; when the window is over nothing is left of it.
#include "src/balance/slow_start.h"

#include <algorithm>
#include <memory>
#include <random>

#include "src/balance/outlier_detector.h"
#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {
namespace {

TEST(SlowStart, GrowsByEnvoysRule) {
  const SlowStart even{.window_us = 100, .min_weight_percent = 10};
  EXPECT_DOUBLE_EQ(even.Factor(0), 0.1);
  EXPECT_DOUBLE_EQ(even.Factor(5), 0.1);
  EXPECT_DOUBLE_EQ(even.Factor(50), 0.5);
  EXPECT_DOUBLE_EQ(even.Factor(100), 1);
  EXPECT_DOUBLE_EQ(even.Factor(1000), 1);
  const SlowStart faster{.window_us = 100, .min_weight_percent = 0, .aggression = 2};
  EXPECT_DOUBLE_EQ(faster.Factor(25), 0.5);
  EXPECT_DOUBLE_EQ(faster.Factor(0), 0);
}

class WarmingWorld : public World {
 public:
  explicit WarmingWorld(BalancePolicy::Kind kind) {
    policy.balance.kind = kind;
    policy.slow_start = {.window_us = 100 * kSecond, .min_weight_percent = 10, .aggression = 1};
  }

  // The share of the requests that the next hundred seconds' tenth brings to that host.
  double Share(SimClient& client, const std::string& address, int requests = 500) {
    const size_t before = Requests(address);
    for (int i = 0; i < requests; ++i) {
      client.Send(Request(static_cast<uint64_t>(i + 1)));
      RunFor(10 * kSecond / static_cast<uint64_t>(requests));
    }
    EXPECT_EQ(client.Take().size(), static_cast<size_t>(requests));
    return static_cast<double>(Requests(address) - before) / requests;
  }

 private:
  size_t Requests(const std::string& address) const {
    size_t sum = 0;
    for (const auto& connection : connections) {
      if (connection->address == address) sum += connection->requests.size();
    }
    return sum;
  }
};

// Of a host with that factor beside three others.
double Expected(double factor) { return factor / (3 + factor); }

TEST(SlowStart, ANewHostGetsItsShareLittleByLittle) {
  for (const auto kind : {BalancePolicy::Kind::kRoundRobin, BalancePolicy::Kind::kLeastRequest,
                          BalancePolicy::Kind::kRandom}) {
    WarmingWorld world(kind);
    const double tolerance = kind == BalancePolicy::Kind::kRoundRobin ? 0.02 : 0.05;
    world.SetHosts("a", {"h1", "h2", "h3"});
    SimClient& client = world.Connect();
    EXPECT_NEAR(world.Share(client, "h1"), 1.0 / 3, tolerance) << "those that came first are alike";
    world.SetHosts("a", {"h1", "h2", "h3", "h4"});
    for (const double factor : {0.1, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95}) {
      EXPECT_NEAR(world.Share(client, "h4"), Expected(factor), tolerance) << factor;
    }
    EXPECT_NEAR(world.Share(client, "h4"), 0.25, tolerance) << "and has it then";
  }
}

TEST(SlowStart, WeightsCountAsWell) {
  WarmingWorld world(BalancePolicy::Kind::kRoundRobin);
  const HostInfo old{.address = "h1", .weight = 3};
  world.SetCluster("a", {old});
  SimClient& client = world.Connect();
  EXPECT_EQ(world.Share(client, "h1"), 1);
  world.SetCluster("a", {old, {.address = "h2", .weight = 2'000'000}});
  EXPECT_GT(world.Share(client, "h2"), 0.99) << "a tenth of two millions is more than three";
  world.SetCluster("a", {old, {.address = "h3"}});
  world.RunFor(30 * kSecond);
  EXPECT_NEAR(world.Share(client, "h3"), 0.35 / 3.35, 0.02);
}

TEST(SlowStart, AHostThatIsWellAgainBeginsAnew) {
  WarmingWorld world(BalancePolicy::Kind::kRoundRobin);
  const auto hosts = [](HostHealth health) {
    return std::vector<HostInfo>{{.address = "h1"},
                                 {.address = "h2"},
                                 {.address = "h3"},
                                 {.address = "h4", .health = health}};
  };
  world.SetCluster("a", hosts(HostHealth::kHealthy));
  SimClient& client = world.Connect();
  EXPECT_NEAR(world.Share(client, "h4"), 0.25, 0.02);
  world.SetCluster("a", hosts(HostHealth::kUnhealthy));
  EXPECT_EQ(world.Share(client, "h4"), 0);
  world.SetCluster("a", hosts(HostHealth::kHealthy));
  EXPECT_NEAR(world.Share(client, "h4"), Expected(0.1), 0.02);
  world.SetCluster("a", hosts(HostHealth::kHealthy), 2);
  EXPECT_NEAR(world.Share(client, "h4"), Expected(0.15), 0.02)
      << "a cluster that is made anew goes on";
  world.policy.slow_start.reset();
  world.SetCluster("a", hosts(HostHealth::kHealthy), 3);
  EXPECT_NEAR(world.Share(client, "h4"), 0.25, 0.02);
}

// Whatever comes and goes, every request finds a host, and only one that is there.
TEST(SlowStart, HostsComeAndGoInTheMiddleOfIt) {
  for (const bool detects : {false, true}) {
    WarmingWorld world(BalancePolicy::Kind::kLeastRequest);
    if (detects) {
      world.policy.outliers =
          std::make_shared<OutlierDetector>(OutlierSettings{.max_ejection_percent = 50});
    }
    world.SetHosts("a", {"h0", "h1", "h2"});
    SimClient& client = world.Connect();
    std::mt19937 random(7);
    for (int round = 0; round < 60; ++round) {
      std::vector<std::string> hosts;
      for (int i = 0; i < 6; ++i) {
        if (random() % 2 == 0) hosts.push_back("h" + std::to_string(i));
      }
      if (hosts.empty()) hosts.push_back("h0");
      world.SetHosts("a", hosts);
      const size_t connections = world.connections.size();
      for (uint64_t id = 1; id <= 20; ++id) {
        client.Send(world.Request(id));
        world.RunFor(100 * kMs);
      }
      EXPECT_EQ(Kinds(client.Take()), std::string(20, 'R'));
      for (size_t i = connections; i < world.connections.size(); ++i) {
        const std::string& address = world.connections[i]->address;
        EXPECT_NE(std::find(hosts.begin(), hosts.end(), address), hosts.end());
      }
    }
  }
}

}  // namespace
}  // namespace metaprotocol::test
