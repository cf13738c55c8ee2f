// A host may call back from within the calls that the engine makes, and bytes may come in any
// pieces.
#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {
namespace {

TEST(Reentrancy, LeaseIsReadyBeforeOpenLeaseReturns) {
  for (const SimConfig& config : {SimConfig{}, Pipelined(), Exclusive(), PerSession()}) {
    World world(config);
    world.SetHosts("a", {"h1"});
    world.servers["h1"].connect = SimServer::Connect::kNow;
    SimClient& client = world.Connect();
    client.Send(world.Request(1) + world.OneWay(2) + world.Request(3));
    world.RunFor(kSecond);
    EXPECT_EQ(client.Take().size(), 2u);
    client.Reset();
    world.RunFor(10 * kSecond);
    world.ExpectQuiet();
  }
}

TEST(Reentrancy, LeaseIsClosedBeforeOpenLeaseReturns) {
  for (const SimConfig& config : {SimConfig{}, Pipelined(), Exclusive(), PerSession()}) {
    World world(config);
    world.SetHosts("a", {"h1"});
    world.servers["h1"].connect = SimServer::Connect::kRefuseNow;
    SimClient& client = world.Connect();
    client.Send(world.Request(1) + world.OneWay(2) + world.Request(3));
    EXPECT_EQ(Kinds(client.Take()), "EE") << "within the same call";
    EXPECT_EQ(world.exchanges(), 0u);
    client.Reset();
    world.RunFor(10 * kSecond);
    EXPECT_EQ(world.lease_count(), 0u);
    EXPECT_EQ(world.Value(Gauge::kLeasesActive), 0);
  }
}

TEST(Reentrancy, ManyWaitingRequestsWhoseConnectionsAreAllRefusedAtOnce) {
  World world(Exclusive());
  world.policy.max_leases_per_host = 2;
  world.SetHosts("a", {"h1"});
  world.servers["h1"].connect = SimServer::Connect::kRefuseNow;
  SimClient& client = world.Connect();
  std::string all;
  for (uint64_t i = 0; i < 100; ++i) all += world.Request(i);
  client.Send(all);
  EXPECT_EQ(client.Take().size(), 100u);
}

TEST(Reentrancy, WriteBufferFullFromWithinAWrite) {
  for (const SimConfig& config : {SimConfig{}, Pipelined(), Exclusive()}) {
    World world(config);
    world.high_watermark = 100;
    world.SetHosts("a", {"h1"});
    world.servers["h1"].reply_body_bytes = 20000;
    SimClient& client = world.Connect();
    client.SetReading(false);
    std::string all;
    for (uint64_t i = 0; i < 20; ++i) all += world.Request(i);
    client.Send(all);
    world.RunFor(10 * kMs);
    EXPECT_TRUE(client.full);
    EXPECT_TRUE(client.paused);
    client.SetReading(true);
    world.RunFor(kSecond);
    EXPECT_EQ(client.Take().size(), 20u);
    EXPECT_FALSE(client.paused);
  }
}

TEST(Reentrancy, LocalRepliesFillTheBufferWhileRequestsAreRead) {
  World world({.routes = {SimRoute{.direct_reply = LocalReply::kDenied}}});
  world.high_watermark = 1000;
  SimClient& client = world.Connect();
  client.SetReading(false);
  for (uint64_t i = 0; i < 1000; ++i) client.Send(world.Request(i));
  EXPECT_TRUE(client.paused);
  EXPECT_LT(client.unread.size(), 2000u);
  for (int i = 0; i < 1000; ++i) {
    client.SetReading(true);
    client.SetReading(false);
    world.RunFor(kMs);
  }
  client.SetReading(true);
  world.RunFor(kMs);
  EXPECT_EQ(client.Take().size(), 1000u);
}

// A host in which a write finds that the client is gone.
class FailingWrites : public World {
 public:
  using World::World;
  bool failing = false;
  void WriteSession(SessionHandle handle, Bytes bytes) override {
    World::WriteSession(handle, bytes);
    if (failing) static_cast<SimClient*>(handle)->Reset();
  }
  void PauseSession(SessionHandle handle, bool paused) override {
    World::PauseSession(handle, paused);
    if (failing) static_cast<SimClient*>(handle)->Reset();
  }
};

TEST(Reentrancy, SessionMayBeClosedFromWithinAWrite) {
  for (const SimConfig& base : {SimConfig{}, Pipelined(), Exclusive(), PerSession()}) {
    for (const size_t body : {size_t{10}, size_t{20000}, size_t{300000}}) {
      SimConfig config = base;
      config.limits.max_requests_in_flight = 3;  // and from within a pause
      FailingWrites world(config);
      world.SetHosts("a", {"h1"});
      world.servers["h1"].reply_body_bytes = body;
      SimClient& client = world.Connect();
      SimClient& other = world.Connect();
      client.Send(world.Request(1) + world.Request(2));
      world.RunFor(30);
      world.failing = true;
      client.Send(world.Request(3) + world.Request(4));
      world.RunFor(kSecond);
      EXPECT_FALSE(client.alive());
      world.failing = false;
      other.Send(world.Request(5));
      world.RunFor(kSecond);
      EXPECT_EQ(Kinds(other.Take()), "R");
      other.Reset();
      world.RunFor(20 * kSecond);
      world.ExpectQuiet();
    }
  }
}

// In which clusters change whenever the engine asks for something.
class RestlessClusters final : public World {
 public:
  using World::World;
  bool restless = false;
  int changes = 0;

  void WriteSession(SessionHandle handle, Bytes bytes) override {
    World::WriteSession(handle, bytes);
    Change();
  }
  void OpenLease(LeaseId lease, std::string_view cluster, std::string_view address) override {
    Change();
    World::OpenLease(lease, cluster, address);
    Change();
  }
  void WriteLease(LeaseHandle handle, Bytes bytes) override {
    Change();
    World::WriteLease(handle, bytes);
    Change();
  }
  void ReleaseLease(LeaseId lease) override {
    World::ReleaseLease(lease);
    Change();
  }
  void ResetLease(LeaseId lease) override {
    World::ResetLease(lease);
    Change();
  }
  void StartCall(CallId call, SessionHandle session, std::string_view cluster,
                 std::string_view path, Bytes message, uint64_t timeout_us) override {
    Change();
    World::StartCall(call, session, cluster, path, message, timeout_us);
  }

 private:
  void Change() {
    if (!restless || busy_) return;
    busy_ = true;
    switch (++changes % 5) {
      case 0:
        SetHosts("a", {"h1", "h2"}, generation_);
        break;
      case 1:
        SetHosts("a", {"h2", "h3"}, generation_);
        break;
      case 2:
        SetHosts("a", {"h" + std::to_string(changes % 7)}, ++generation_);
        break;
      case 3:
        WithEngine([&](Engine& engine) { engine.RemoveCluster("a", generation_); });
        break;
      default:
        SetHosts("a", {}, generation_);
        SetHosts("other" + std::to_string(changes), {"h1"});
    }
    busy_ = false;
  }

  bool busy_ = false;
  uint64_t generation_ = 1;
};

TEST(Reentrancy, ClustersMayChangeFromWithinAnyCall) {
  SimConfig asking;
  asking.global_limit.emplace();
  for (const SimConfig& config : {SimConfig{}, Pipelined(), Exclusive(), PerSession(), asking}) {
    RestlessClusters world(config);
    world.policy.max_leases_per_host = 2;
    world.SetHosts("a", {"h1", "h2"});
    world.restless = true;
    for (uint64_t round = 0; round < 20; ++round) {
      SimClient& client = world.Connect();
      std::string all;
      for (uint64_t i = 0; i < 8; ++i) all += world.Request(i, "body") + world.OneWay(100 + i);
      client.Send(all);
      world.RunFor(kSecond);
      EXPECT_EQ(client.Take().size(), 8u) << "of round " << round;
      if (round % 2 == 0) client.Reset();
    }
    EXPECT_GT(world.changes, 100);
    world.restless = false;
    for (const auto& client : world.clients) client->Reset();
    world.RunFor(60 * kSecond);
    EXPECT_EQ(world.exchanges(), 0u);
    EXPECT_EQ(world.lease_count(), 0u) << world.Dump();
    EXPECT_EQ(world.Value(Gauge::kExchangesActive), 0);
    EXPECT_EQ(world.Value(Gauge::kLeasesActive), 0);
    EXPECT_EQ(world.Count(Counter::kRequests), 20u * 8);
  }
}

TEST(Reentrancy, EveryCutOfTheBytesGivesTheSameResult) {
  for (const SimConfig& base : {SimConfig{}, Pipelined(), Exclusive(), PerSession()}) {
    SimConfig config = base;
    config.limits.stream_message_bytes = 1024;
    for (uint64_t seed = 1; seed <= 12; ++seed) {
      World world(BuildSnapshot(config), seed);
      world.max_piece = 1 + seed * seed * 3;
      world.SetHosts("a", {"h1", "h2"});
      world.servers["h1"].reply_body_bytes = 3000;
      std::vector<SimClient*> clients;
      for (int i = 0; i < 4; ++i) clients.push_back(&world.Connect());
      for (uint64_t i = 0; i < 40; ++i) {
        const std::string body(world.Draw(3) == 0 ? 2500 : world.Draw(50), 'x');
        clients[i % 4]->Send(i % 5 == 4 ? world.OneWay(i, body) : world.Request(i, body));
      }
      for (SimClient* client : clients) client->Finish();
      world.RunFor(60 * kSecond);
      for (size_t i = 0; i < clients.size(); ++i) {
        const auto replies = clients[i]->Take();
        EXPECT_EQ(replies.size(), 8u) << "seed " << seed;
        for (const auto& reply : replies) {
          EXPECT_EQ(std::stoul(reply.token) % 4, i);
          EXPECT_EQ(reply.kind, 'R');
        }
        EXPECT_EQ(clients[i]->closed, CloseMode::kFlush);
      }
      EXPECT_EQ(world.Seen().size(), 40u);
      world.ExpectQuiet();
    }
  }
}

TEST(Reentrancy, EngineMayBeDestroyedWithEverythingOpen) {
  for (const SimConfig& base : {SimConfig{}, Pipelined(), Exclusive(), PerSession()}) {
    SimConfig config = base;
    config.limits.stream_message_bytes = 1024;
    World world(config);
    world.policy.max_leases_per_host = 3;
    world.SetHosts("a", {"h1"});
    Manual(world, "h1");
    for (int i = 0; i < 6; ++i) world.Connect().Send(world.Request(1));
    world.Connect().Send(world.Request(1, std::string(5000, 'x')).substr(0, 2000));
    world.RunFor(kMs);
    EXPECT_GT(world.exchanges(), 0u);
  }
}

TEST(Reentrancy, DumpIsValidJsonAtAnyTime) {
  World world(Exclusive());
  EXPECT_NE(world.Dump().find("\"sessions\":0"), std::string::npos);
  world.SetHosts("a", {"h1"});
  Manual(world, "h1");
  world.Connect().Send(world.Request(1));
  EXPECT_NE(world.Dump().find("\"opening\""), std::string::npos);
  world.RunFor(kMs);
  EXPECT_NE(world.Dump().find("\"ready\""), std::string::npos);
  world.SetHosts("a", {"h2"});
  EXPECT_NE(world.Dump().find("\"draining\""), std::string::npos);
}

}  // namespace
}  // namespace metaprotocol::test
