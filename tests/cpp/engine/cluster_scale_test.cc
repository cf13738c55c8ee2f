// What happens in one cluster costs nothing for others, however many there are.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/cpp/engine/world.h"
#include "tests/cpp/support/cpu_time.h"

namespace metaprotocol::test {
namespace {

std::string ClusterName(size_t i) { return i == 0 ? "a" : "c" + std::to_string(i); }

std::vector<HostInfo> HostsOf(size_t cluster, size_t count, size_t shift = 0) {
  std::vector<HostInfo> hosts(count);
  for (size_t i = 0; i < count; ++i) {
    hosts[i].address = "h" + std::to_string(cluster) + "." + std::to_string(i + shift);
  }
  return hosts;
}

struct Costs {
  double announce = 0;      // all clusters
  double lease_end = 0;     // a connection is lost
  double host_change = 0;   // one host of one cluster is replaced
  double cluster_gone = 0;  // a cluster is removed and added again
};

Costs Measure(size_t clusters, size_t hosts) {
  World world;
  const auto policy = std::make_shared<const ClusterPolicy>();
  const auto set = [&](size_t cluster, size_t shift, uint64_t generation) {
    world.WithEngine([&](Engine& engine) {
      engine.SetCluster(ClusterName(cluster), generation, policy, HostsOf(cluster, hosts, shift));
    });
  };
  Costs costs;
  const double start = ThreadCpuNs();
  for (size_t cluster = 0; cluster < clusters; ++cluster) set(cluster, 0, 1);
  costs.announce = ThreadCpuNs() - start;

  SimClient& client = world.Connect();
  costs.lease_end = LeastCpuNs(30, [&] {
    client.Send(world.Request(1));
    world.RunFor(kMs);
    for (SimConnection* connection : world.Open()) connection->Close();
    world.RunFor(kMs);
    client.received.clear();
  });
  size_t shift = 0;
  costs.host_change = LeastCpuNs(30, [&] { set(clusters / 2, ++shift, 1); });
  uint64_t generation = 1;
  costs.cluster_gone = LeastCpuNs(30, [&] {
    world.WithEngine(
        [&](Engine& engine) { engine.RemoveCluster(ClusterName(clusters / 2), generation); });
    set(clusters / 2, 0, ++generation);
  });
  return costs;
}

TEST(ClusterScale, OtherClustersCostNothing) {
  const Costs few = Measure(10, 50);
  const Costs many = Measure(1000, 50);
  EXPECT_LT(many.lease_end, 10 * few.lease_end);
  EXPECT_LT(many.host_change, 10 * few.host_change);
  EXPECT_LT(many.cluster_gone, 10 * few.cluster_gone);
  EXPECT_LT(many.announce, 10 * 100 * few.announce);
  // A worker must not stand still: 5 ms would be noticed. The time on a quiet machine is far below.
  EXPECT_LT(many.lease_end, 5e6);
  EXPECT_LT(many.host_change, 5e6);
}

TEST(ClusterScale, HostsThatComeAndGoAreForgotten) {
  World world;
  for (size_t round = 0; round < 200; ++round) {
    world.SetHosts("a", {"h" + std::to_string(round)});
    world.SetHosts("b" + std::to_string(round % 3), {"x"}, round + 1);
    SimClient& client = world.Connect();
    client.Send(world.Request(1));
    world.RunFor(kMs);
    client.Reset();
  }
  world.RunFor(20 * kSecond);
  world.ExpectQuiet();
  const std::string dump = world.Dump();
  EXPECT_EQ(dump.find("h198"), std::string::npos);
  EXPECT_NE(dump.find("h199"), std::string::npos);
}

}  // namespace
}  // namespace metaprotocol::test
