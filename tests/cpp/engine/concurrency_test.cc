// The concurrency limit in the simulated world. The law: never more than N under way, whatever
// becomes of requests; each gives its place back exactly once.
#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "src/filter/concurrency_limit/concurrency_filter.h"
#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {
namespace {

// The filter, and what it counts by.
struct Limited {
  std::shared_ptr<ConcurrencyLimit> limit;
  std::shared_ptr<ConcurrencyTable> table;
  SimConfig config;
};

Limited Limit(uint32_t most, SimConfig config = {}, const char* per_value_of = nullptr) {
  Limited made{.limit = nullptr, .table = nullptr, .config = std::move(config)};
  if (per_value_of == nullptr) {
    made.limit = std::make_shared<ConcurrencyLimit>(
        ConcurrencyLimit::Settings{.max_requests = most, .gradient = {}});
  } else {
    made.table = std::make_shared<ConcurrencyTable>(most);
  }
  made.config.make_filters.emplace_back(
      "concurrency_limit", [limit = made.limit, table = made.table, per_value_of](auto& keys) {
        std::vector<RouteTable::BuildError> errors;
        ConcurrencyFilter::Source source{.limit = limit, .table = table, .keys = {}};
        if (per_value_of != nullptr) source.keys.emplace_back(per_value_of, keys);
        return std::make_shared<ConcurrencyFilter>(
            RouteTable::Build("", std::vector<RouteTable::Rule>{}, keys, errors),
            std::vector<ConcurrencyFilter::Source>{}, std::move(source));
      });
  return made;
}

TEST(Concurrency, OneMoreIsRefusedAndAPlaceThatIsFreeIsTaken) {
  for (const SimConfig& base : {SimConfig{}, Pipelined(), Exclusive(), PerSession()}) {
    const Limited limited = Limit(2, base);
    World world(limited.config);
    world.SetHosts("a", {"h1"});
    world.servers["h1"].delay_us = 100 * kMs;
    std::string kinds;
    std::vector<SimClient*> clients;
    for (uint64_t i = 0; i < 4; ++i) clients.push_back(&world.Connect());
    for (uint64_t i = 0; i < 4; ++i) clients[i]->Send(world.Request(i));
    EXPECT_EQ(limited.limit->under_way(), 2u);
    world.RunFor(kSecond);
    for (SimClient* client : clients) kinds += Kinds(client->Take());
    EXPECT_EQ(kinds, "RREE");
    EXPECT_EQ(world.Count(Counter::kConcurrencyLimited), 2u);
    EXPECT_EQ(limited.limit->under_way(), 0u);
    clients[3]->Send(world.Request(5));
    world.RunFor(kSecond);
    EXPECT_EQ(Kinds(clients[3]->Take()), "R");
  }
}

TEST(Concurrency, EachValueHasItsOwnNumber) {
  const Limited limited = Limit(1, {}, "user");
  World world(limited.config);
  world.SetHosts("a", {"h1"});
  world.servers["h1"].delay_us = 100 * kMs;
  SimClient& client = world.Connect();
  uint64_t id = 0;
  for (const char* user : {"ann", "ann", "bob", "", "bob"}) {
    client.Send(world.Request(++id, "", {{"user", user}}));
  }
  EXPECT_EQ(limited.table->size(), 3u);
  world.RunFor(kSecond);
  EXPECT_EQ(world.Count(Counter::kConcurrencyLimited), 2u);
  EXPECT_EQ(limited.table->size(), 0u);
}

TEST(Concurrency, EveryEndGivesThePlaceBack) {
  const Limited limited = Limit(3);
  SimConfig config = limited.config;
  config.routes = {SimRoute{.timeout_us = 50 * kMs}};
  World world(config);
  world.SetHosts("a", {"h1"});
  SimServer& server = world.servers["h1"];
  server.mode = SimServer::Mode::kSilent;
  SimClient& slow = world.Connect();
  for (uint64_t i = 0; i < 3; ++i) slow.Send(world.Request(i));
  EXPECT_EQ(limited.limit->under_way(), 3u);
  world.RunFor(kSecond);  // all time out
  EXPECT_EQ(limited.limit->under_way(), 0u);
  SimClient& gone = world.Connect();
  for (uint64_t i = 0; i < 3; ++i) gone.Send(world.Request(i));
  EXPECT_EQ(limited.limit->under_way(), 3u);
  gone.Reset();
  EXPECT_EQ(limited.limit->under_way(), 0u);
  server.mode = SimServer::Mode::kEcho;
  for (uint64_t i = 0; i < 3; ++i) slow.Send(world.OneWay(i));
  world.RunFor(kSecond);
  EXPECT_EQ(limited.limit->under_way(), 0u);
  world.SetHosts("a", {});
  slow.Send(world.Request(9));
  world.RunFor(kSecond);
  EXPECT_EQ(limited.limit->under_way(), 0u);
}

TEST(Concurrency, ANewConfigurationGoesOnWithWhoIsUnderWay) {
  const Limited before = Limit(2);
  const Limited same = Limit(2);
  const Limited other = Limit(3);
  World world(before.config);
  world.SetHosts("a", {"h1"});
  world.servers["h1"].delay_us = 500 * kMs;
  SimClient& client = world.Connect();
  client.Send(world.Request(1));
  client.Send(world.Request(2));
  world.Publish(same.config);
  world.RunFor(10 * kMs);
  client.Send(world.Request(3));
  EXPECT_EQ(world.Count(Counter::kConcurrencyLimited), 1u);
  world.Publish(other.config);
  world.RunFor(10 * kMs);
  client.Send(world.Request(4));
  EXPECT_EQ(world.Count(Counter::kConcurrencyLimited), 1u) << "another number is another count";
  world.RunFor(2 * kSecond);
  EXPECT_EQ(before.limit->under_way(), 0u);
}

}  // namespace
}  // namespace metaprotocol::test
