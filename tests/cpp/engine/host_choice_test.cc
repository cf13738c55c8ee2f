// Hosts that say, or show, that they take no requests are passed over while another can be had.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {
namespace {

// Which hosts have seen requests since the last time.
class Watch {
 public:
  explicit Watch(World& world) : world_(world) {}
  size_t Since(const std::string& address) {
    size_t now = 0;
    for (const auto& connection : world_.connections) {
      if (connection->address == address) now += connection->requests.size();
    }
    return now - std::exchange(before_[address], now);
  }

 private:
  World& world_;
  std::map<std::string, size_t> before_;
};

void Call(World& world, SimClient& client, int times) {
  for (int i = 0; i < times; ++i) {
    client.Send(world.Request(static_cast<uint64_t>(i)));
    world.RunFor(kMs);
  }
}

std::vector<BalancePolicy::Kind> AllKinds() {
  return {BalancePolicy::Kind::kRoundRobin, BalancePolicy::Kind::kLeastRequest,
          BalancePolicy::Kind::kRandom, BalancePolicy::Kind::kRingHash,
          BalancePolicy::Kind::kMaglev};
}

TEST(HostChoice, HostThatWantsNoMoreRequestsGetsNoneAndNoneFails) {
  for (const auto kind : AllKinds()) {
    World world;
    world.policy.balance.kind = kind;
    world.SetHosts("a", {"h1", "h2"});
    SimClient& client = world.Connect();
    Watch watch(world);
    Call(world, client, 20);
    EXPECT_GT(watch.Since("h1"), 0u);
    watch.Since("h2");
    for (SimConnection* connection : world.Open("h1")) {
      connection->Send(world.wire().Make('G', 0, ""));
    }
    // From now on it accepts connections and closes them at once.
    world.servers["h1"].close_after = 1;
    Call(world, client, 20);
    EXPECT_EQ(watch.Since("h1"), 0u);
    EXPECT_EQ(watch.Since("h2"), 20u);
    EXPECT_EQ(Kinds(client.Take()), std::string(40, 'R'));
  }
}

TEST(HostChoice, RequestsUnderWayAreAnsweredByTheHostThatWantsNoMore) {
  World world;
  world.SetHosts("a", {"h1", "h2"});
  Manual(world, "h1");
  Manual(world, "h2");
  SimClient& client = world.Connect();
  for (uint64_t i = 0; i < 6; ++i) client.Send(world.Request(i));
  world.RunFor(kMs);
  for (SimConnection* connection : world.Open("h1")) {
    connection->Send(world.wire().Make('G', 0, ""));
  }
  for (SimConnection* connection : world.Open()) {
    for (const WireMessage& request : connection->requests) connection->Reply(request);
  }
  EXPECT_EQ(Kinds(client.Take()), "RRRRRR");
}

TEST(HostChoice, HostIsTriedAgainAfterSomeSeconds) {
  World world;
  world.SetHosts("a", {"h1", "h2"});
  SimClient& client = world.Connect();
  Watch watch(world);
  Call(world, client, 4);
  for (SimConnection* connection : world.Open("h1")) {
    connection->Send(world.wire().Make('G', 0, ""));
  }
  world.RunFor(11 * kSecond);
  watch.Since("h1");
  Call(world, client, 10);
  EXPECT_EQ(watch.Since("h1"), 5u);
}

TEST(HostChoice, OnlyHostIsUsedWhateverItSays) {
  World world;
  world.SetHosts("a", {"h1"});
  SimClient& client = world.Connect();
  Call(world, client, 1);
  world.Open("h1").at(0)->Send(world.wire().Make('G', 0, ""));
  Call(world, client, 5);
  EXPECT_EQ(Kinds(client.Take()), "RRRRRR");
}

TEST(HostChoice, HostThatAnswersOnANewConnectionIsNotPassedOverAnyMore) {
  World world;
  world.SetHosts("a", {"h1", "h2"});
  SimClient& client = world.Connect();
  Watch watch(world);
  Call(world, client, 4);
  for (SimConnection* connection : world.Open()) {
    connection->Send(world.wire().Make('G', 0, ""));
  }
  watch.Since("h1");
  watch.Since("h2");
  // One of them is used nevertheless, since there is no other, and answers.
  Call(world, client, 20);
  EXPECT_EQ(Kinds(client.Take()), std::string(24, 'R'));
  EXPECT_EQ(watch.Since("h1") + watch.Since("h2"), 20u);
}

TEST(HostChoice, HostThatRefusesConnectionsIsPassedOverForAMoment) {
  World world;
  world.SetHosts("a", {"h1", "h2"});
  world.servers["h1"].connect = SimServer::Connect::kRefuse;
  SimClient& client = world.Connect();
  Call(world, client, 20);
  EXPECT_LE(world.Count(LocalReply::kUpstreamLost), 1u);
  world.servers["h1"].connect = SimServer::Connect::kLater;
  world.RunFor(kSecond);
  Watch watch(world);
  Call(world, client, 10);
  EXPECT_EQ(watch.Since("h1"), 5u);
}

TEST(HostChoice, KeysOfOtherHostsStayWhereTheyAre) {
  for (const auto kind : {BalancePolicy::Kind::kRingHash, BalancePolicy::Kind::kMaglev}) {
    SimConfig config;
    config.routes = {SimRoute{.hash_keys = {"name"}}};
    World world(config);
    world.policy.balance.kind = kind;
    world.SetHosts("a", {"h1", "h2", "h3"});
    SimClient& client = world.Connect();
    Call(world, client, 60);
    const auto places = [&] {
      std::map<std::string, std::string> all;
      for (const auto& connection : world.connections) {
        for (const WireMessage& request : connection->requests) {
          all[request.token] = connection->address;
        }
        connection->requests.clear();
      }
      return all;
    };
    const auto before = places();
    for (SimConnection* connection : world.Open("h1")) {
      connection->Send(world.wire().Make('G', 0, ""));
    }
    Call(world, client, 60);
    const auto after = places();
    Call(world, client, 60);
    EXPECT_EQ(places(), after) << "those that move stay together";
    for (const auto& [token, host] : before) {
      if (host == "h1") continue;
      EXPECT_EQ(after.at(token), host);
    }
  }
}

}  // namespace
}  // namespace metaprotocol::test
