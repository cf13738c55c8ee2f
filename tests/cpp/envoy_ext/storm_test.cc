// The whole module under an Envoy that exists only in memory: every order of events that a real one
// could produce, and then some.
#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "envoy_ext/worker/worker.h"
#include "src/codec/bytes.h"
#include "tests/cpp/envoy_ext/fake_envoy.h"

namespace metaprotocol::envoy {
namespace {

using test::FakeConnection;
using test::FakeEnvoy;
using test::FakeRequest;
using test::FakeUpstream;

void AppendText(std::string& out, std::string_view text) {
  out += static_cast<char>(text.size());
  out += text;
}

std::string DubboRequest(uint64_t id) {
  std::string body;
  for (const std::string_view text : {"2.0.2", "demo.Service", "1.0", "call", ""}) {
    AppendText(body, text);
  }
  body += "HZ";
  std::string out("\xda\xbb\xc2\0", 4);
  AppendBe64(out, id);
  AppendBe32(out, static_cast<uint32_t>(body.size()));
  return out + body;
}

std::string DubboResponse(uint64_t id) {
  std::string out("\xda\xbb\x02\x14", 4);
  AppendBe64(out, id);
  AppendBe32(out, 2);
  return out + "\x91N";
}

// Ids of the messages in `bytes`, which must be whole ones.
std::vector<uint64_t> Ids(std::string_view bytes) {
  std::vector<uint64_t> ids;
  while (bytes.size() >= 16) {
    ids.push_back(LoadBe64(bytes.data() + 4));
    bytes.remove_prefix(std::min(bytes.size(), 16 + size_t{LoadBe32(bytes.data() + 12)}));
  }
  return ids;
}

// The server answers everything it has got.
void Answer(FakeEnvoy& envoy, FakeRequest& request) {
  std::string replies;
  for (const uint64_t id : Ids(std::exchange(request.upstream->received, {}))) {
    replies += DubboResponse(id);
  }
  if (!replies.empty()) envoy.ServerSends(request, replies);
}

TEST(FakeEnvoyTest, ARequestGoesUpstreamAndItsReplyComesBack) {
  FakeEnvoy envoy;
  envoy.hosts = {"10.0.0.1:1"};
  envoy.AddCluster();
  ASSERT_NE(envoy.AcceptCarrier(), nullptr);
  FakeConnection* client = envoy.Connect();
  envoy.Receive(*client, DubboRequest(7));
  envoy.Settle();
  ASSERT_EQ(envoy.connected().size(), 1u);
  Answer(envoy, *envoy.connected()[0]);
  envoy.Settle();
  EXPECT_EQ(Ids(client->written), std::vector<uint64_t>{7});
  EXPECT_EQ(envoy.violations, std::vector<std::string>());
}

TEST(FakeEnvoyTest, RequestsWaitForTheFirstCarrier) {
  FakeEnvoy envoy;
  envoy.hosts = {"10.0.0.1:1"};
  envoy.AddCluster();
  FakeConnection* client = envoy.Connect();
  envoy.Receive(*client, DubboRequest(7));
  ASSERT_NE(envoy.AcceptCarrier(), nullptr);
  envoy.Settle();
  ASSERT_EQ(envoy.connected().size(), 1u);
  Answer(envoy, *envoy.connected()[0]);
  EXPECT_EQ(Ids(client->written), std::vector<uint64_t>{7});
  EXPECT_EQ(envoy.violations, std::vector<std::string>());
}

TEST(FakeEnvoyTest, AnIdleLeaseGoesBackToThePoolOpen) {
  FakeEnvoy envoy;
  envoy.hosts = {"10.0.0.1:1"};
  envoy.AddCluster();
  ASSERT_NE(envoy.AcceptCarrier(), nullptr);
  FakeConnection* client = envoy.Connect();
  envoy.Receive(*client, DubboRequest(7));
  envoy.Settle();
  Answer(envoy, *envoy.connected().at(0));
  for (int i = 0; i < 5000 && envoy.given_back == 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // until the timer thread has spoken
    envoy.Settle();
  }
  EXPECT_EQ(envoy.given_back, 1u);
  EXPECT_EQ(envoy.cut, 0u);
  EXPECT_EQ(envoy.connected().size(), 0u);
  EXPECT_EQ(envoy.violations, std::vector<std::string>());
}

TEST(FakeEnvoyTest, AClientThatLeavesWhileItsRequestIsOutCostsThatConnectionOnly) {
  FakeEnvoy envoy;
  envoy.hosts = {"10.0.0.1:1"};
  envoy.AddCluster();
  ASSERT_NE(envoy.AcceptCarrier(), nullptr);
  FakeConnection* leaving = envoy.Connect();
  FakeConnection* staying = envoy.Connect();
  envoy.Receive(*leaving, DubboRequest(1));
  envoy.Receive(*staying, DubboRequest(2));
  envoy.Settle();
  ASSERT_EQ(envoy.connected().size(), 2u);
  envoy.Close(*leaving);
  envoy.Settle();
  EXPECT_EQ(envoy.cut, 1u);
  ASSERT_EQ(envoy.connected().size(), 1u);
  Answer(envoy, *envoy.connected()[0]);
  EXPECT_EQ(Ids(staying->written), std::vector<uint64_t>{2});
  EXPECT_EQ(envoy.violations, std::vector<std::string>());
}

TEST(FakeEnvoyTest, AConnectionThatFailsIsToldWithoutATimer) {
  FakeEnvoy envoy;
  envoy.hosts = {"10.0.0.1:1"};
  envoy.AddCluster();
  ASSERT_NE(envoy.AcceptCarrier(), nullptr);
  FakeConnection* client = envoy.Connect();
  envoy.next_outcome = FakeEnvoy::Outcome::kPending;
  envoy.Receive(*client, DubboRequest(7));
  envoy.Settle();
  ASSERT_EQ(envoy.pending().size(), 1u);
  envoy.ConnectFailed(*envoy.pending()[0]);
  envoy.Settle();
  EXPECT_EQ(Ids(client->written), std::vector<uint64_t>{7});
}

TEST(FakeEnvoyTest, ACallThatNoSessionOwnsGoesThroughTheCarrier) {
  FakeEnvoy envoy;
  FakeConnection* client = envoy.Connect();
  FakeConnection* carrier = envoy.AcceptCarrier();
  ASSERT_NE(carrier, nullptr);
  envoy.Close(*client);
  envoy.Settle();
  Worker::Get().StartCall(1, nullptr, "logs", "/log.Service/Write", "message", 1000);
  EXPECT_EQ(envoy.callouts, std::vector<const FakeConnection*>{carrier});
}

// Sees to it that a tick comes: the engine has a deadline for the request.
bool TimesOut(FakeEnvoy& envoy, const FakeConnection& client) {
  for (int i = 0; i < 5000 && client.written.empty(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // until the timer thread has spoken
    envoy.Settle();
  }
  return !client.written.empty();
}

TEST(FakeEnvoyTest, TimersGoOnWithoutACarrierWhenTheirClientConnectionGoes) {
  FakeEnvoy envoy(R"("default_timeout": "0.05s",)");
  envoy.hosts = {"10.0.0.1:1"};
  envoy.AddCluster();
  FakeConnection* first = envoy.Connect();
  FakeConnection* second = envoy.Connect();
  envoy.Receive(*second, DubboRequest(7));
  envoy.Close(*first);
  envoy.Settle();
  EXPECT_TRUE(TimesOut(envoy, *second));
}

// What the engine does not know of: it ignores what happens to it.
constexpr LeaseId kForeignLease = uint64_t{1} << 60;

FakeRequest* OpenForeignLease(FakeEnvoy& envoy) {
  Worker::Get().OpenLease(kForeignLease, "c", "10.0.0.1:1");
  Worker::Get().RunPending();
  return envoy.connected().empty() ? nullptr : envoy.connected()[0];
}

TEST(FakeEnvoyTest, AProbeIsAnsweredOnceTheServerHasRead) {
  FakeEnvoy envoy;
  envoy.hosts = {"10.0.0.1:1"};
  envoy.AddCluster();
  ASSERT_NE(envoy.AcceptCarrier(), nullptr);
  FakeRequest* request = OpenForeignLease(envoy);
  ASSERT_NE(request, nullptr);
  LeaseTable& leases = Worker::Get().leases();

  leases.Probe(kForeignLease);
  Worker::Get().RunPending();
  EXPECT_EQ(leases.probes_open(), 0u);

  envoy.ServerStalls(*request);
  leases.Probe(kForeignLease);
  Worker::Get().RunPending();
  envoy.Settle();
  EXPECT_EQ(leases.probes_open(), 1u);
  envoy.ServerReadsAgain(*request);
  envoy.Settle();
  EXPECT_EQ(leases.probes_open(), 0u);

  Worker::Get().ReleaseLease(kForeignLease);
  Worker::Get().RunPending();
  EXPECT_EQ(envoy.given_back, 1u);
  EXPECT_EQ(envoy.violations, std::vector<std::string>());
}

TEST(FakeEnvoyTest, APausedServerIsNotReadUntilItIsResumed) {
  for (const bool release : {true, false}) {
    FakeEnvoy envoy;
    envoy.hosts = {"10.0.0.1:1"};
    envoy.AddCluster();
    FakeConnection* carrier = envoy.AcceptCarrier();
    ASSERT_NE(carrier, nullptr);
    FakeRequest* request = OpenForeignLease(envoy);
    ASSERT_NE(request, nullptr);
    FakeUpstream* upstream = request->upstream;
    LeaseTable& leases = Worker::Get().leases();
    for (int i = 0; i < 3; ++i) {
      leases.Pause(kForeignLease, true);
      Worker::Get().RunPending();
      EXPECT_TRUE(upstream->paused);
      leases.Pause(kForeignLease, false);
      Worker::Get().RunPending();
      EXPECT_FALSE(upstream->paused);
    }
    leases.Pause(kForeignLease, true);
    if (release) {
      Worker::Get().ReleaseLease(kForeignLease);
    } else {
      Worker::Get().ResetLease(kForeignLease);
    }
    Worker::Get().RunPending();
    EXPECT_EQ(envoy.given_back, release ? 1u : 0u);
    EXPECT_EQ(envoy.cut, release ? 0u : 1u);
    EXPECT_TRUE(carrier->bodies.empty()) << "a stream is left in the connection manager";
    EXPECT_EQ(envoy.violations, std::vector<std::string>());
  }
}

TEST(FakeEnvoyTest, NoOrderOfEventsDisturbsEnvoyOrAnswersARequestTwice) {
  size_t answered = 0;
  for (uint32_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const auto chance = [&](uint32_t percent) { return random() % 100 < percent; };
    FakeEnvoy envoy;
    envoy.hosts = {"10.0.0.1:1", "10.0.0.2:1"};
    envoy.AddCluster();
    ASSERT_NE(envoy.AcceptCarrier(), nullptr);
    std::vector<FakeConnection*> clients;
    std::map<FakeConnection*, uint64_t> sent;
    for (int step = 0; step < 300; ++step) {
      const auto pick = [&](const auto& list) { return list[random() % list.size()]; };
      envoy.next_outcome = static_cast<FakeEnvoy::Outcome>(random() % 3);
      switch (random() % 12) {
        case 0:
          clients.push_back(envoy.Connect());
          break;
        case 1:
        case 2:
        case 3:
          if (clients.empty()) break;
          if (FakeConnection* client = pick(clients); !client->closed && !client->read_disabled) {
            std::string bytes;
            for (uint32_t i = random() % 4; i > 0; --i) bytes += DubboRequest(++sent[client]);
            envoy.Receive(*client, bytes);
          }
          break;
        case 4:
          if (!clients.empty() && chance(30)) envoy.Close(*pick(clients));
          break;
        case 5:
          if (!envoy.pending().empty()) envoy.Connected(*pick(envoy.pending()));
          break;
        case 6:
          if (!envoy.pending().empty()) envoy.ConnectFailed(*pick(envoy.pending()));
          break;
        case 7:
        case 8:
          if (!envoy.connected().empty()) Answer(envoy, *pick(envoy.connected()));
          break;
        case 9:
          if (!envoy.connected().empty()) envoy.ServerCloses(*pick(envoy.connected()));
          break;
        case 10:
          if (chance(30)) {
            envoy.hosts = chance(50) ? std::vector<std::string>{"10.0.0.1:1"}
                                     : std::vector<std::string>{"10.0.0.1:1", "10.0.0.2:1"};
            envoy.UpdateHosts();
          } else if (chance(20)) {
            envoy.RemoveCluster();
            if (chance(50)) envoy.Settle();
            envoy.AddCluster();
          }
          break;
        case 11:
          if (chance(10)) {
            // The one in use is the newest; older ones only live on with their leases.
            for (size_t i = envoy.connections().size(); i-- > 0;) {
              FakeConnection& connection = *envoy.connections()[i];
              if (!connection.carrier) continue;
              chance(50) ? envoy.GoAway(connection) : envoy.Close(connection);
              if (chance(50)) envoy.Settle();
              ASSERT_NE(envoy.AcceptCarrier(), nullptr);
              break;
            }
          }
          break;
      }
      if (chance(60)) envoy.Settle();
    }
    envoy.Settle();
    for (FakeConnection* client : clients) {
      const std::vector<uint64_t> ids = Ids(client->written);
      const std::set<uint64_t> once(ids.begin(), ids.end());
      EXPECT_EQ(once.size(), ids.size()) << "answered twice";
      answered += once.size();
      for (const uint64_t id : once) EXPECT_LE(id, sent[client]) << "answered what was not asked";
    }
    envoy.Shutdown();
    EXPECT_EQ(envoy.connected().size() + envoy.pending().size(), 0u);
    EXPECT_EQ(envoy.violations, std::vector<std::string>());
    ASSERT_FALSE(testing::Test::HasFailure());
  }
  EXPECT_GT(answered, 1000u);
}

}  // namespace
}  // namespace metaprotocol::envoy
