// What sessions hold in memory: little when they are idle, bounded all together, and not all of a
// large reply at once in the host's hands.
#include <malloc.h>

#include "tests/cpp/engine/forgetful_host.h"
#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {
namespace {

// Bytes that are allocated; 0 where the allocator does not say (sanitizers).
size_t Allocated() { return mallinfo2().uordblks + mallinfo2().hblkhd; }

TEST(Memory, IdleSessionKeepsLittleWhateverItHasCarried) {
  constexpr size_t kSessions = 200;
  constexpr size_t kBytes = 200000;
  SimConfig config;
  config.limits.stream_message_bytes = size_t{1} << 20;  // messages are gathered
  auto slot = std::make_shared<ConfigSlot>();
  slot->Publish(BuildSnapshot(config));
  ForgetfulHost host;
  const auto engine = Engine::Create(host);
  HostInfo upstream;
  upstream.address = "192.0.2.9:80";
  engine->SetCluster("a", 1, std::make_shared<ClusterPolicy>(), {upstream});
  std::vector<Session*> sessions;
  for (size_t i = 0; i < kSessions; ++i) {
    sessions.push_back(engine->OpenSession(slot, ConnectionInfo(), &host));
  }
  const std::string request = FakeMessage('Q', 1, {}, std::string(kBytes, 'x'));
  size_t before = 0;
  for (size_t i = 0; i < kSessions; ++i) {
    host.head.clear();
    if (i == 1) before = Allocated();  // what is there once only is there now
    for (const Bytes piece :
         {Bytes(request).substr(0, kBytes / 2), Bytes(request).substr(kBytes / 2)}) {
      engine->SessionData(sessions[i], {&piece, 1}, false);
    }
    if (i == 0) engine->LeaseReady(host.opened, &host);
    const std::string reply =
        FakeMessage('R', LoadBe64(host.head.data() + 5), {}, std::string(kBytes, 'y'));
    // The last piece is one that is gathered before it is written.
    constexpr size_t kGathered = 4000;
    const Bytes all = reply;
    for (const Bytes piece :
         {all.substr(0, all.size() - kGathered), all.substr(all.size() - kGathered)}) {
      engine->LeaseData(host.opened, {&piece, 1});
    }
    if (std::exchange(host.probed, false)) engine->LeaseDrained(host.opened);
    EXPECT_EQ(host.to_clients, (i + 1) * reply.size());
  }
  EXPECT_LE(Allocated(), before + kSessions * (size_t{3} << 10));
}

TEST(Memory, UnfinishedMessagesAreBoundedAllTogetherAndNobodyElseNotices) {
  SimConfig config;
  config.limits.stream_message_bytes = size_t{1} << 20;
  config.limits.max_buffered_bytes_per_worker = 1000000;
  World world(config);
  world.SetHosts("a", {"h1"});
  std::vector<SimClient*> greedy;
  SimClient& modest = world.Connect();
  const std::string half = world.Request(1, "body");
  modest.Send(half.substr(0, 10));
  for (uint64_t i = 0; i < 20; ++i) {
    SimClient& client = *greedy.emplace_back(&world.Connect());
    client.Send(world.Request(i, std::string(200000, 'x')).substr(0, 100000 + 1000 * i));
    world.RunFor(kMs);
  }
  size_t alive = 0;
  for (const SimClient* client : greedy) alive += client->alive() ? 1 : 0;
  EXPECT_GE(alive, 7u);
  EXPECT_LE(alive, 9u);
  EXPECT_EQ(world.Count(Counter::kSlowClientsClosed), 20u - alive);
  modest.Send(half.substr(10));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(modest.Take()), "R");
}

TEST(Memory, TheBoundIsTheWorkersHoweverManyFiltersItHas) {
  SimConfig config;
  config.limits.stream_message_bytes = size_t{1} << 20;
  config.limits.max_buffered_bytes_per_worker = 1000000;
  ForgetfulHost host;
  const auto engine = Engine::Create(host);
  HostInfo upstream;
  upstream.address = "192.0.2.9:80";
  engine->SetCluster("a", 1, std::make_shared<ClusterPolicy>(), {upstream});
  std::vector<std::shared_ptr<ConfigSlot>> slots;  // the engine knows filters by their slots
  const std::string half = FakeMessage('Q', 1, {}, std::string(200000, 'x')).substr(0, 100000);
  for (int i = 0; i < 20; ++i) {
    slots.push_back(std::make_shared<ConfigSlot>());
    slots.back()->Publish(BuildSnapshot(config));
    Session* const session = engine->OpenSession(slots.back(), ConnectionInfo(), &host);
    const Bytes slice = half;
    engine->SessionData(session, {&slice, 1}, false);
  }
  EXPECT_EQ(engine->sessions_open(), 10u);
}

TEST(Memory, RepliesThatAreNotTakenAreBoundedAllTogether) {
  SimConfig config;
  config.limits.max_buffered_bytes_per_worker = 1000000;
  World world(config);
  world.SetHosts("a", {"h1"});
  world.servers["h1"].reply_body_bytes = 300000;
  for (uint64_t i = 0; i < 10; ++i) {
    SimClient& client = world.Connect();
    client.SetReading(false);
    client.Send(world.Request(i));
  }
  SimClient& other = world.Connect();
  other.Send(world.Request(99));
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(other.Take()), "R");
  size_t alive = 0;
  for (const auto& client : world.clients) alive += client->alive() ? 1 : 0;
  EXPECT_LT(alive, 11u);
  EXPECT_GE(alive, 5u);
}

TEST(Memory, LargeReplyIsGivenToASlowReaderPieceByPiece) {
  for (const SimConfig& base : {SimConfig{}, Pipelined()}) {
    SimConfig config = base;
    config.limits.slow_client_timeout_us = 30 * kSecond;
    World world(config);
    world.high_watermark = size_t{64} << 10;
    world.SetHosts("a", {"h1"});
    world.servers["h1"].reply_body_bytes = size_t{8} << 20;
    SimClient& client = world.Connect();
    client.SetReading(false);
    client.Send(world.Request(1) + world.Request(2));
    size_t most = 0;
    // It takes what is there every 20 s, which goes on for much longer than the timeout.
    for (int i = 0; i < 300 && client.received.size() < size_t{16} << 20; ++i) {
      world.RunFor(20 * kSecond);
      most = std::max(most, client.unread.size());
      ASSERT_TRUE(client.alive());
      client.SetReading(true);
      client.SetReading(false);
    }
    client.SetReading(true);
    world.RunFor(kSecond);
    EXPECT_EQ(Kinds(client.Take()), "RR");
    EXPECT_LE(most, world.high_watermark + (size_t{64} << 10));
    EXPECT_TRUE(client.alive());
  }
}

TEST(Memory, ReplyOfAClientThatHasHalfClosedIsGivenPieceByPieceToo) {
  World world;
  world.high_watermark = size_t{64} << 10;
  world.SetHosts("a", {"h1"});
  world.servers["h1"].reply_body_bytes = size_t{1} << 20;
  SimClient& client = world.Connect();
  client.SetReading(false);
  client.Send(world.Request(1));
  client.Finish();
  for (int i = 0; i < 100 && client.alive(); ++i) {
    world.RunFor(20 * kSecond);
    EXPECT_LE(client.unread.size(), world.high_watermark + (size_t{64} << 10));
    client.SetReading(true);
    client.SetReading(false);
  }
  EXPECT_EQ(client.closed, CloseMode::kFlush);
  client.SetReading(true);
  EXPECT_EQ(Kinds(client.Take()), "R");
}

}  // namespace
}  // namespace metaprotocol::test
