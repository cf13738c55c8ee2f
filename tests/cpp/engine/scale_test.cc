// Budgets at the sizes that are promised: 100,000 connections, 1,000 clusters of 50 hosts, 10,000
// routes. In bytes that are allocated and in instructions, which are the same on every run.
#include <gtest/gtest.h>
#include <malloc.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/cpp/engine/forgetful_host.h"
#include "tests/cpp/engine/world.h"
#include "tests/cpp/support/instructions.h"
#include "tests/cpp/support/sanitized.h"

namespace metaprotocol::test {
namespace {

class Scale : public testing::Test {
 protected:
  void SetUp() override {
    if (kSanitized) GTEST_SKIP() << "sanitizers have memory and instructions of their own";
  }
  static size_t Allocated() {
    const auto info = mallinfo2();
    return info.uordblks + info.hblkhd;
  }
};

struct Sessions {
  ForgetfulHost host;
  std::shared_ptr<ConfigSlot> slot = std::make_shared<ConfigSlot>();
  std::unique_ptr<Engine> engine = Engine::Create(host);
  std::vector<Session*> sessions;

  explicit Sessions(size_t count) {
    slot->Publish(BuildSnapshot({}));
    HostInfo upstream;
    upstream.address = "192.0.2.9:80";
    engine->SetCluster("a", 1, std::make_shared<ClusterPolicy>(), {upstream});
    sessions.reserve(count + 1);
    for (size_t i = 0; i < count; ++i) Open();
  }
  void Open() {
    ConnectionInfo info;
    info.remote_address = "192.0.2.1";
    sessions.push_back(engine->OpenSession(slot, std::move(info), &host));
  }
  // With a reply if there is a lease already.
  void Call(Session* session) {
    const std::string request = FakeMessage('Q', 1, {}, "body");
    const Bytes slice = request;
    host.head.clear();
    engine->SessionData(session, {&slice, 1}, false);
    if (host.opened != 0 && host.head.empty()) engine->LeaseReady(host.opened, &host);
    const std::string reply = FakeMessage('R', LoadBe64(host.head.data() + 5), {}, "body");
    const Bytes answer = reply;
    engine->LeaseData(host.opened, {&answer, 1});
  }
};

TEST_F(Scale, AHundredThousandConnectionsTakeTheirMemoryAndNobodysTime) {
  constexpr size_t kMany = 100000;
  Sessions few(100);
  few.Call(few.sessions[50]);
  const size_t before = Allocated();
  Sessions many(kMany);
  for (size_t i = 0; i < kMany; i += 10) many.Call(many.sessions[i]);
  EXPECT_LE(Allocated() - before, kMany * (size_t{2} << 10));
  EXPECT_EQ(many.engine->sessions_open(), kMany);
  EXPECT_EQ(many.host.to_clients, kMany / 10 * FakeMessage('R', 1, {}, "body").size());

  const auto costs = [](const char* what, Sessions& world, auto work) {
    const std::optional<uint64_t> steps = InstructionsOf([&] { work(world); });
    RecordProperty(what, std::to_string(steps.value_or(0)));
    return steps.value_or(0);
  };
  if (!InstructionsOf([] {})) GTEST_SKIP() << "no process may be traced here";
  const auto same = [&](const char* what, auto work) {
    const uint64_t of_few = costs(what, few, work);
    const uint64_t of_many = costs(what, many, work);
    EXPECT_LT(of_many, 2 * of_few + 2000) << what << ": " << of_few << " with 100 connections";
    EXPECT_NE(of_few, 0u) << what;
  };
  same("call", [](Sessions& world) { world.Call(world.sessions[70]); });
  same("connection", [](Sessions& world) { world.Open(); });
  same("close", [](Sessions& world) { world.engine->SessionClosed(world.sessions[70]); });
  same("metrics", [](Sessions& world) { world.engine->FlushMetrics(); });
  const auto newer = BuildSnapshot({});
  same("configuration", [&newer](Sessions& world) {
    world.slot->Publish(newer);
    world.Call(world.sessions[70]);
  });
  // A tick may look at some of those that are silent, but not at all of them.
  EXPECT_LT(costs("tick", many, [](Sessions& world) { world.engine->Tick(); }), 1000000u);
}

std::vector<HostInfo> Hosts(size_t cluster, size_t count, size_t shift) {
  std::vector<HostInfo> hosts(count);
  for (size_t i = 0; i < hosts.size(); ++i) {
    hosts[i].address = "10." + std::to_string(cluster / 250) + "." + std::to_string(cluster % 250) +
                       "." + std::to_string(i + shift) + ":20880";
  }
  return hosts;
}

struct Clusters {
  ForgetfulHost host;
  std::unique_ptr<Engine> engine = Engine::Create(host);
  std::shared_ptr<const ClusterPolicy> policy = std::make_shared<ClusterPolicy>();

  explicit Clusters(size_t count) {
    Set(0, 2, 0);
    for (size_t i = 1; i <= count; ++i) Set(i, 50, 0);
  }
  void Set(size_t cluster, size_t hosts, size_t shift) {
    engine->SetCluster("outbound|20880||service-" + std::to_string(cluster), 1, policy,
                       Hosts(cluster, hosts, shift));
  }
};

TEST_F(Scale, AThousandClustersOfFiftyHostsTakeTheirMemoryAndNobodysTime) {
  constexpr size_t kMany = 1000;
  Clusters few(10);
  const size_t before = Allocated();
  Clusters many(kMany);
  EXPECT_LE(Allocated() - before, kMany * 50 * size_t{1024});
  if (!InstructionsOf([] {})) GTEST_SKIP() << "no process may be traced here";
  const auto change = [](Clusters& world) {
    return InstructionsOf([&] { world.Set(0, 2, 1); }).value_or(0);
  };
  const uint64_t of_few = change(few);
  const uint64_t of_many = change(many);
  RecordProperty("host_change", std::to_string(of_many));
  EXPECT_LT(of_many, of_few + of_few / 2) << of_few << " beside 10";
  // A turn may take 5 ms, which are ten million instructions at least.
  EXPECT_LT(of_many, 200000u);
}

std::shared_ptr<const Snapshot> Routes(size_t count) {
  SimConfig config;
  config.routes.clear();
  for (size_t i = 0; i < count; ++i) {
    SimRoute& route = config.routes.emplace_back();
    route.match = {Exact("service", "org.example.shop.Service" + std::to_string(i / 10)),
                   Exact("method", "method" + std::to_string(i % 10))};
    route.clusters = {{"outbound|20880||service-" + std::to_string(i / 10), 1}};
  }
  return BuildSnapshot(std::move(config));
}

TEST_F(Scale, TenThousandRoutesTakeTheirMemoryAndNobodysTime) {
  constexpr size_t kMany = 10000;
  const auto few = Routes(10);
  const size_t before = Allocated();
  const auto many = Routes(kMany);
  EXPECT_LE(Allocated() - before, kMany * (size_t{2} << 10));
  if (!InstructionsOf([] {})) GTEST_SKIP() << "no process may be traced here";
  const ConnectionMetadata connection;
  const auto lookup = [&](const Snapshot& snapshot, size_t route) {
    Metadata message;
    message.Clear(&snapshot.request_keys);
    const std::string service = "org.example.shop.Service" + std::to_string(route / 10);
    const std::string method = "method" + std::to_string(route % 10);
    message.SetNamed("service", service);
    message.SetNamed("method", method);
    const MatchInput input{message, connection};
    EXPECT_NE(snapshot.tables[0].routes->Match(input).route, nullptr);
    return InstructionsOf([&] { snapshot.tables[0].routes->Match(input); }).value_or(0);
  };
  const uint64_t of_few = lookup(*few, 7);
  uint64_t of_many = 0;
  for (const size_t route : {size_t{0}, kMany / 2, kMany - 1}) {
    of_many = std::max(of_many, lookup(*many, route));
  }
  RecordProperty("lookup", std::to_string(of_many));
  EXPECT_LT(of_many, 2 * of_few) << of_few << " among 10";
}

}  // namespace
}  // namespace metaprotocol::test
