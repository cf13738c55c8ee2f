// Streams whose clients or servers do not read: what is kept for them is bounded, they are paused
// by the protocol's window where it has one, and nobody else on their connections notices.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>

#include "src/exchange/stream.h"
#include "tests/cpp/engine/stream_world.h"

namespace metaprotocol::test {
namespace {

constexpr size_t kPiece = 1000;

std::string Grant(uint64_t stream, uint64_t bytes) {
  return Of(stream, 'W', std::to_string(bytes));
}

// Sends on a stream as much as its window allows, like a sender that keeps to the protocol.
struct WindowedSender {
  uint64_t window = 0;
  size_t sent = 0;
  size_t most = 0;  // it wants to send

  void Granted(const WireMessage& message) { window += std::stoull(message.body); }
  // The next message of stream `id`, or "".
  std::string Next(uint64_t id) {
    if (window < kPiece || sent >= most) return {};
    window -= kPiece;
    sent += kPiece;
    return Of(id, 'D', std::string(kPiece, 'd'));
  }
};

// Clients have a stream to "s" and perhaps calls to "t".
SimConfig TwoClusters(SimConfig config = Streams()) {
  config.routes = {SimRoute{.match = {Exact("to", "t")}, .clusters = {{"t", 1}}}, SimRoute{}};
  return config;
}

size_t DataBytes(const std::vector<WireMessage>& messages) {
  size_t bytes = 0;
  for (const WireMessage& message : messages) bytes += message.kind == 'D' ? kPiece : 0;
  return bytes;
}

TEST(StreamFlow, AClientThatDoesNotReadIsSentNoMoreThanItsWindowsAndNobodyElseNotices) {
  StreamWorld world;
  SimClient& client = world.Connect();
  SimClient& other = world.Connect();
  const uint64_t id = OpenOne(world, client);
  const uint64_t others = OpenOne(world, other);
  WindowedSender sender{.most = 8'000'000};
  world.servers["s"].on_message = [&](SimConnection& connection, const WireMessage& message) {
    if (message.kind == 'Q') connection.Reply(message);
    if (message.kind != 'W') return;
    if (message.id == others) {
      connection.Send(Of(others, 'D', "fresh"));
      return;
    }
    sender.Granted(message);
    for (std::string next; !(next = sender.Next(id)).empty();) connection.Send(next);
  };
  client.SetReading(false);
  // The client promises to take a lot, and takes nothing.
  for (int i = 0; i < 100; ++i) client.Send(Grant(1, 1'000'000));
  world.RunFor(kSecond);
  EXPECT_GT(sender.sent, world.high_watermark);
  EXPECT_LE(sender.sent, world.high_watermark + 2 * StreamWindow::kMostAhead);
  other.Send(Grant(1, 10) + world.Request(5));
  world.RunFor(kMs);
  EXPECT_EQ(Kinds(other.Take()), "DR") << "on the same lease";
  EXPECT_EQ(world.lease_count(), 1u);
  EXPECT_EQ(world.lease_pauses, 0u);

  size_t got = 0;
  client.SetReading(true);
  for (int i = 0; i < 100; ++i) {
    world.RunFor(kMs);
    got += DataBytes(client.Take());
  }
  EXPECT_EQ(sender.sent, sender.most);
  EXPECT_EQ(got, sender.most);
  EXPECT_TRUE(client.alive());
  client.Finish();
  other.Finish();
  ExpectQuietLater(world);
}

TEST(StreamFlow, WithoutWindowsTheStreamEndsBeyondTheBoundAndNobodyElseNotices) {
  SimConfig config = Streams();
  config.limits.max_unread_reply_bytes = 400'000;
  StreamWorld world(config);
  SimClient& client = world.Connect();
  SimClient& other = world.Connect();
  const uint64_t id = OpenOne(world, client);
  const uint64_t others = OpenOne(world, other);
  client.SetReading(false);
  size_t sent = 0;
  for (int i = 0; i < 3000; ++i) {
    world.server().Send(Of(id, 'D', std::string(kPiece, 'd')));
    if (i % 10 == 0) world.RunFor(kMs);
    if (i % 1000 == 0) world.server().Send(Of(others, 'D', "fresh"));
    if (world.exchanges() == 2) sent += kPiece;
  }
  world.RunFor(kMs);
  EXPECT_GE(sent, 200'000u);
  EXPECT_LE(sent, 200'000u + world.high_watermark + 70'000u);
  EXPECT_EQ(Kinds(world.TakeAtServer()), "Z") << "the server is told to stop";
  EXPECT_EQ(world.exchanges(), 1u);
  EXPECT_EQ(Kinds(other.Take()), "DDD");
  EXPECT_TRUE(client.alive());
  client.SetReading(true);
  world.RunFor(kMs);
  const auto got = client.Take();
  ASSERT_FALSE(got.empty());
  EXPECT_EQ(Said({got.back()}), (Texts{"Z:over_limit"}));
  EXPECT_GE(DataBytes(got) + 20'000, sent) << "what came before";
  client.Send(world.Request(3));
  world.RunFor(kMs);
  EXPECT_EQ(Kinds(client.Take()), "R");
  other.Finish();
  ExpectQuietLater(world);
}

TEST(StreamFlow, AServerThatDoesNotReadGrantsNothingToItsClients) {
  StreamWorld world(TwoClusters());
  world.policy.max_lease_bytes_in_flight = 600'000;
  world.SetHosts("a", {"s"});
  world.SetHosts("t", {"t"});
  SimClient& client = world.Connect();
  SimClient& other = world.Connect();
  const uint64_t id = OpenOne(world, client);
  WindowedSender sender{.most = 4'000'000};
  const auto send = [&] {
    for (const WireMessage& message : client.Take()) {
      if (message.kind == 'W') sender.Granted(message);
    }
    for (std::string next; !(next = sender.Next(1)).empty();) client.Send(next);
  };
  world.SetServerReading("s", false);
  for (int i = 0; i < 200; ++i) {
    world.server().Send(Grant(id, 100'000));
    world.RunFor(kMs);
    send();
    EXPECT_LE(world.UnreadBytes(), 600'000u + StreamWindow::kMostAhead);
  }
  EXPECT_LT(sender.sent, 700'000u);
  EXPECT_FALSE(client.paused) << "its window says it all";
  client.Send(world.Request(1, {}, {{"to", "t"}}));
  other.Send(world.Request(2, {}, {{"to", "t"}}));
  world.RunFor(kMs);
  EXPECT_EQ(Kinds(client.Take()), "R");
  EXPECT_EQ(Kinds(other.Take()), "R");

  world.SetServerReading("s", true);
  for (int i = 0; i < 200; ++i) {
    world.RunFor(kMs);
    send();
  }
  EXPECT_EQ(sender.sent, sender.most);
  EXPECT_EQ(DataBytes(world.TakeAtServer()), sender.most);
  client.Finish();
  ExpectQuietLater(world);
}

TEST(StreamFlow, WithoutWindowsTheClientIsNotReadUntilTheServerTakesMore) {
  StreamWorld world(TwoClusters());
  world.policy.max_lease_bytes_in_flight = 200'000;
  world.SetHosts("a", {"s"});
  world.SetHosts("t", {"t"});
  SimClient& client = world.Connect();
  SimClient& other = world.Connect();
  OpenOne(world, client);
  world.SetServerReading("s", false);
  for (int i = 0; i < 2000; ++i) {
    client.Send(Of(1, 'D', std::string(kPiece, 'd')));
    if (i % 10 == 0) world.RunFor(100);
    EXPECT_LE(world.UnreadBytes(), 205'000u);
  }
  EXPECT_TRUE(client.paused);
  other.Send(world.Request(2, {}, {{"to", "t"}}));
  world.RunFor(kMs);
  EXPECT_EQ(Kinds(other.Take()), "R") << "nobody else notices";
  world.SetServerReading("s", true);
  world.RunFor(kSecond);
  EXPECT_EQ(DataBytes(world.TakeAtServer()), 2000 * kPiece) << "and nothing is lost";
  EXPECT_FALSE(client.paused);
  client.Finish();
  ExpectQuietLater(world);
}

TEST(StreamFlow, AStreamThatHoldsUpItsClientForTooLongEndsAndTheClientGoesOn) {
  StreamWorld world(TwoClusters());
  world.policy.max_lease_bytes_in_flight = 200'000;
  world.SetHosts("a", {"s"});
  world.SetHosts("t", {"t"});
  SimClient& client = world.Connect();
  OpenOne(world, client);
  world.SetServerReading("s", false);
  for (int i = 0; i < 300; ++i) client.Send(Of(1, 'D', std::string(kPiece, 'd')));
  client.Send(world.Request(2, {}, {{"to", "t"}}));
  world.RunFor(kSecond);
  EXPECT_TRUE(client.paused);
  EXPECT_EQ(client.Take().size(), 0u);
  world.RunFor(6 * kSecond);
  EXPECT_FALSE(client.paused);
  EXPECT_EQ(Said(client.Take()), (Texts{"Z:timeout", "R:"}));
  EXPECT_TRUE(client.alive());
  client.Finish();
  ExpectQuietLater(world);
}

TEST(StreamFlow, MessagesOfOneReadAreBoundedToo) {
  StreamWorld world;
  world.policy.max_lease_bytes_in_flight = 200'000;
  world.SetHosts("a", {"s"});
  world.servers["s"].connect = SimServer::Connect::kNever;
  SimClient& client = world.Connect();
  std::string all = Of(1, 'S');
  for (int i = 0; i < 2000; ++i) all += Of(1, 'D', std::string(kPiece, 'd'));
  client.Send(all);
  world.RunFor(kMs);
  EXPECT_TRUE(client.paused) << "also while there is no connection yet";
  world.RunFor(20 * kSecond);
  EXPECT_EQ(Kinds(client.Take()), "Z");
  EXPECT_FALSE(client.paused);
  ExpectQuietLater(world);
}

TEST(StreamFlow, WindowsPassUnchangedWhileNobodyStalls) {
  StreamWorld world;
  SimClient& client = world.Connect();
  const uint64_t id = OpenOne(world, client);
  for (int i = 0; i < 50; ++i) {
    client.Send(Grant(1, 70'000));
    world.server().Send(Grant(id, 60'000));
    for (int j = 0; j < 60; ++j) {
      client.Send(Of(1, 'D', std::string(kPiece, 'd')));
      world.server().Send(Of(id, 'D', std::string(kPiece, 'd')));
    }
    for (int j = 0; j < 10; ++j) world.server().Send(Of(id, 'D', std::string(kPiece, 'd')));
    world.RunFor(kMs);
  }
  uint64_t granted = 0;
  for (const WireMessage& message : world.TakeAtServer()) {
    if (message.kind == 'W') granted += std::stoull(message.body);
  }
  EXPECT_EQ(granted, 50 * 70'000u);
  granted = 0;
  for (const WireMessage& message : client.Take()) {
    if (message.kind == 'W') granted += std::stoull(message.body);
  }
  EXPECT_EQ(granted, 50 * 60'000u);
  client.Finish();
  ExpectQuietLater(world);
}

TEST(StreamFlow, ASumOfWindowsBeyondAllNumbersIsPassedOnBitByBit) {
  StreamWorld world;
  SimClient& client = world.Connect();
  OpenOne(world, client);
  for (int i = 0; i < 5; ++i) client.Send(Grant(1, ~uint64_t{0}));
  world.RunFor(kMs);
  uint64_t granted = 0;
  for (const WireMessage& message : world.TakeAtServer()) granted += std::stoull(message.body);
  EXPECT_EQ(granted, StreamWindow::kMostAhead);
  client.Finish();
  ExpectQuietLater(world);
}

TEST(StreamFlow, RandomStallsLoseNothing) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    World world(BuildSnapshot(Streams()), seed);
    world.max_piece = 3000;
    world.policy.max_lease_bytes_in_flight = 20'000;
    world.SetHosts("a", {"s"});
    world.servers["s"].on_message = [](SimConnection& connection, const WireMessage& message) {
      if (message.kind == 'D') connection.Send(Of(message.id, 'D', message.body));
    };
    SimClient& client = world.Connect();
    SimClient& other = world.Connect();
    client.Send(Of(1, 'S'));
    other.Send(Of(1, 'S'));
    size_t sent = 0;
    size_t others_sent = 0;
    for (int step = 0; step < 300; ++step) {
      const std::string data = Of(1, 'D', std::string(kPiece, 'd'));
      if (world.Draw(2) == 0) client.Send(data), sent += kPiece;
      if (world.Draw(4) == 0) other.Send(data), others_sent += kPiece;
      if (world.Draw(10) == 0) client.SetReading(!client.reading);
      if (world.Draw(10) == 0) world.SetServerReading("s", !world.servers["s"].reading);
      world.RunFor(world.Draw(5) * 100);
    }
    client.SetReading(true);
    world.SetServerReading("s", true);
    world.RunFor(kSecond);
    EXPECT_EQ(DataBytes(client.Take()), sent) << "seed " << seed;
    EXPECT_EQ(DataBytes(other.Take()), others_sent) << "seed " << seed;
    client.Finish();
    other.Finish();
    world.RunFor(60 * kSecond);
    world.ExpectQuiet();
  }
}

// --- messages that are no data

size_t GrantedBytes(const std::vector<WireMessage>& messages) {
  size_t bytes = 0;
  for (const WireMessage& message : messages) {
    if (message.kind == 'W') bytes += std::stoull(message.body);
  }
  return bytes;
}

TEST(StreamFlow, GrantsOfNothingArePassedOnAsFarAsTheServerReads) {
  StreamWorld world;
  world.policy.max_lease_bytes_in_flight = 200'000;
  world.SetHosts("a", {"s"});
  SimClient& client = world.Connect();
  OpenOne(world, client);
  world.SetServerReading("s", false);
  for (int i = 0; i < 2000; ++i) {
    client.Send(Of(1, 'W', std::string(kPiece, '0')));
    if (i % 10 == 0) world.RunFor(100);
    ASSERT_LE(world.UnreadBytes(), 230'000u) << "after " << i;
  }
  world.SetServerReading("s", true);
  client.Send(Grant(1, 10) + Of(1, 'D', "still"));
  world.RunFor(kSecond);
  const auto seen = world.TakeAtServer();
  EXPECT_EQ(GrantedBytes(seen), 10u);
  EXPECT_EQ(DataBytes(seen), kPiece);
  client.Finish();
  ExpectQuietLater(world);
}

TEST(StreamFlow, GrantsInCrumbsAreGatheredForAServerThatDoesNotRead) {
  StreamWorld world;
  world.policy.max_lease_bytes_in_flight = 20'000;
  world.SetHosts("a", {"s"});
  SimClient& client = world.Connect();
  OpenOne(world, client);
  world.SetServerReading("s", false);
  constexpr size_t kGrants = 20'000;
  for (size_t i = 0; i < kGrants; ++i) {
    client.Send(Grant(1, 1));
    if (i % 100 == 0) world.RunFor(100);
    ASSERT_LE(world.UnreadBytes(), 30'000u) << "after " << i;
  }
  EXPECT_FALSE(client.paused);
  world.SetServerReading("s", true);
  world.RunFor(kSecond);
  EXPECT_EQ(GrantedBytes(world.TakeAtServer()), kGrants) << "none is lost";
  client.Finish();
  ExpectQuietLater(world);
}

TEST(StreamFlow, LongResetsAreSaidInFewWordsToAServerThatDoesNotRead) {
  StreamWorld world;
  world.policy.max_lease_bytes_in_flight = 200'000;
  world.SetHosts("a", {"s"});
  SimClient& client = world.Connect();
  constexpr uint64_t kStreams = 50;
  for (uint64_t id = 1; id <= kStreams; ++id) OpenOne(world, client, id);
  world.SetServerReading("s", false);
  for (uint64_t id = 1; id <= kStreams; ++id) {
    client.Send(Of(id, 'Z', std::string(100'000, 'z')));
    world.RunFor(kMs);
    ASSERT_LE(world.UnreadBytes(), 330'000u) << "after " << id;
  }
  EXPECT_EQ(world.exchanges(), 0u);
  world.SetServerReading("s", true);
  world.RunFor(kSecond);
  EXPECT_EQ(Kinds(world.TakeAtServer()), std::string(kStreams, 'Z')) << "all are told";
  ExpectQuietLater(world);
}

TEST(StreamFlow, GrantsAndResetsForAClientThatDoesNotReadAreNeitherLostNorHeaped) {
  SimConfig config = Streams();
  config.limits.max_unread_reply_bytes = 400'000;
  StreamWorld world(config);
  SimClient& client = world.Connect();
  SimClient& other = world.Connect();
  const uint64_t id = OpenOne(world, client);
  const uint64_t ended = OpenOne(world, client, 2);
  const uint64_t others = OpenOne(world, other);
  client.SetReading(false);
  // As much as its host keeps of what it does not read, and a bit more.
  for (size_t sent = 0; sent < world.high_watermark + 100'000; sent += kPiece) {
    world.server().Send(Of(id, 'D', std::string(kPiece, 'd')));
  }
  world.RunFor(kMs);
  for (int i = 0; i < 1000; ++i) {
    world.server().Send(Of(id, 'W', std::string(kPiece, '0') + "5"));
    world.server().Send(Of(ended, 'W', std::string(kPiece, '0')));
  }
  world.server().Send(Of(ended, 'Z', std::string(300'000, 'z')));
  world.server().Send(Of(others, 'D', "fresh"));
  world.RunFor(kMs);
  EXPECT_EQ(Kinds(other.Take()), "D");
  ASSERT_TRUE(client.alive());
  client.SetReading(true);
  world.RunFor(kSecond);
  const auto got = client.Take();
  EXPECT_EQ(GrantedBytes(got), 5'000u);
  EXPECT_EQ(std::count_if(got.begin(), got.end(), [](const auto& m) { return m.kind == 'Z'; }), 1);
  client.Finish();
  other.Finish();
  ExpectQuietLater(world);
}

// --- requests that are passed on as they arrive

TEST(UploadFlow, TheClientIsNotReadWhileTheServerTakesNothingAndNobodyElseNotices) {
  for (const SimConfig& kind : {SimConfig{}, Exclusive(), PerSession()}) {
    World world(TwoClusters(kind));
    world.policy.max_lease_bytes_in_flight = 200'000;
    world.SetHosts("a", {"s"});
    world.SetHosts("t", {"t"});
    world.SetServerReading("s", false);
    SimClient& client = world.Connect();
    SimClient& other = world.Connect();
    std::string request = world.Request(1, std::string(5'000'000, 'u'));
    for (size_t i = 0; i < request.size(); i += 10'000) {
      client.Send(request.substr(i, 10'000));
      if (i % 100'000 == 0) world.RunFor(200);
      EXPECT_LE(world.UnreadBytes(), 210'000u);
    }
    EXPECT_TRUE(client.paused);
    other.Send(world.Request(2, {}, {{"to", "t"}}));
    world.RunFor(kMs);
    EXPECT_EQ(Kinds(other.Take()), "R");
    world.SetServerReading("s", true);
    world.RunFor(kSecond);
    EXPECT_EQ(Kinds(client.Take()), "R");
    EXPECT_FALSE(client.paused);
    EXPECT_EQ(world.Seen().at(0).size + world.Seen().at(1).size,
              request.size() + world.Seen().at(1).size);
  }
}

TEST(UploadFlow, AServerThatAnswersWithoutReadingLetsItsClientGoOn) {
  World world;
  world.policy.max_lease_bytes_in_flight = 200'000;
  world.SetHosts("a", {"s"});
  world.SetServerReading("s", false);
  SimClient& client = world.Connect();
  const std::string request = world.Request(1, std::string(1'000'000, 'u'));
  client.Send(request.substr(0, 100'000));
  world.RunFor(kMs);
  const uint64_t id = LoadBe64(world.connections.at(0)->received.data() + 5);
  // The rest comes at once, so that the last of it is there when the client is first held up.
  client.Send(request.substr(100'000));
  world.RunFor(kMs);
  world.connections[0]->Send(FakeMessage('R', id));
  world.RunFor(kMs);
  EXPECT_EQ(Kinds(client.Take()), "R");
  EXPECT_FALSE(client.paused);
}

TEST(UploadFlow, AnUploadThatIsGivenUpIsReadOnAndGoesNowhere) {
  SimConfig config;
  config.default_timeout_us = kSecond;
  World world(config);
  world.policy.max_lease_bytes_in_flight = 200'000;
  world.SetHosts("a", {"s"});
  world.SetServerReading("s", false);
  SimClient& client = world.Connect();
  const std::string request = world.Request(1, std::string(3'000'000, 'u'));
  for (size_t i = 0; i < request.size(); i += 10'000) client.Send(request.substr(i, 10'000));
  world.RunFor(100 * kMs);
  EXPECT_TRUE(client.paused);
  world.RunFor(2 * kSecond);
  EXPECT_FALSE(client.paused);
  world.SetServerReading("s", true);
  client.Send(world.Request(2));
  world.RunFor(kMs);
  EXPECT_EQ(Kinds(client.Take()), "ER");
}

}  // namespace
}  // namespace metaprotocol::test
