#include "envoy_ext/carrier/h2_client.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "src/codec/bytes.h"

namespace metaprotocol::envoy {
namespace {

constexpr size_t kPreface = 24;
constexpr uint8_t kData = 0, kHeaders = 1, kRstStream = 3, kSettings = 4, kPing = 6, kGoAway = 7,
                  kWindowUpdate = 8, kContinuation = 9;

std::string Frame(uint8_t type, uint8_t flags, uint32_t stream, std::string payload) {
  std::string out;
  AppendBe32(out, static_cast<uint32_t>(payload.size() << 8 | type));
  out += static_cast<char>(flags);
  AppendBe32(out, stream);
  return out + payload;
}

std::string Be32(uint32_t value) {
  std::string out;
  AppendBe32(out, value);
  return out;
}

// A client whose preface has been taken.
H2Client Connected() {
  H2Client client;
  client.TakeOutput();
  return client;
}

TEST(H2Client, BeginsWithThePrefaceAndSettingsThatForbidPushAndHeaderState) {
  H2Client client;
  const std::string output = client.TakeOutput();
  EXPECT_EQ(output.substr(0, kPreface), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
  EXPECT_EQ(output.substr(kPreface),
            Frame(kSettings, 0, 0, std::string("\0\1\0\0\0\0\0\2\0\0\0\0\0\4\0\0\x10\0", 18)));
}

TEST(H2Client, OpensStreamsWithOddIdsAndLiteralHeaders) {
  H2Client client = Connected();
  EXPECT_EQ(client.Open({{"x-a", "1"}}), 1u);
  std::string block = "\x82\x86\x84";
  block += std::string("\0\x0a:authority\x0cmetaprotocol", 25);
  block += std::string(
      "\0\3x-a\1"
      "1",
      7);
  EXPECT_EQ(client.TakeOutput(), Frame(kHeaders, 0x4, 1, block));
  EXPECT_EQ(client.Open({}), 3u);
  EXPECT_EQ(client.open_streams(), 2u);
}

TEST(H2Client, EncodesLengthsOfMoreThanOneByte) {
  H2Client client = Connected();
  const std::string value(1000, 'v');
  ASSERT_NE(client.Open({{"x-a", value}}), 0u);
  // RFC 7541, appendix C.1: 1000 with a 7-bit prefix is 127, then 873 in base 128.
  EXPECT_NE(client.TakeOutput().find(std::string("\3x-a\x7f\xe9\x06") + value), std::string::npos);
}

TEST(H2Client, RefusesHeadersThatDoNotFitAFrame) {
  H2Client client = Connected();
  const std::string value(20000, 'v');
  EXPECT_EQ(client.Open({{"x-a", value}}), 0u);
  EXPECT_FALSE(client.has_output());
  EXPECT_EQ(client.Open({{"x-a", "short"}}), 1u);
}

TEST(H2Client, EndsARequestOnlyWhileItsStreamIsOpen) {
  H2Client client = Connected();
  const uint32_t stream = client.Open({});
  client.TakeOutput();
  client.EndRequest(stream);
  EXPECT_EQ(client.TakeOutput(), Frame(kData, 0x1, stream, ""));
  ASSERT_TRUE(client.Receive(Frame(kHeaders, 0x5, stream, "\x88")));
  client.EndRequest(stream);
  EXPECT_FALSE(client.has_output());
}

TEST(H2Client, TellsOfAnEndedStreamWithTheBodyWhateverThePieces) {
  const std::string input = Frame(kSettings, 0, 0, "") + Frame(kHeaders, 0x4, 1, "\x88") +
                            Frame(kData, 0, 1, "UH no_") +
                            Frame(kData, 0x9, 1, std::string("\2healthy_upstream..", 19));
  for (size_t step = 1; step <= input.size(); ++step) {
    H2Client client = Connected();
    client.Open({});
    for (size_t at = 0; at < input.size(); at += step) {
      ASSERT_TRUE(client.Receive(Bytes(input).substr(at, step)));
    }
    const auto ended = client.TakeEnded();
    ASSERT_EQ(ended.size(), 1u) << step;
    EXPECT_EQ(ended[0].stream, 1u);
    EXPECT_FALSE(ended[0].reset);
    EXPECT_EQ(ended[0].body, "UH no_healthy_upstream");
    EXPECT_EQ(client.open_streams(), 0u);
  }
}

TEST(H2Client, KeepsNoMoreOfABodyThanItsBound) {
  H2Client client = Connected();
  client.Open({});
  for (int i = 0; i < 10; ++i)
    ASSERT_TRUE(client.Receive(Frame(kData, 0, 1, std::string(500, 'x'))));
  ASSERT_TRUE(client.Receive(Frame(kData, 0x1, 1, "")));
  EXPECT_EQ(client.TakeEnded().at(0).body.size(), H2Client::kMaxBody);
}

TEST(H2Client, GivesTheConnectionWindowBackBeforeItIsUsedUp) {
  H2Client client = Connected();
  size_t returned = 0;
  for (uint32_t i = 0; i < 100; ++i) {
    const uint32_t stream = client.Open({});
    client.TakeOutput();
    ASSERT_TRUE(client.Receive(Frame(kData, 0x1, stream, std::string(1000, 'x'))));
    const std::string output = client.TakeOutput();
    if (!output.empty()) returned += LoadBe32(output.data() + 9);
    ASSERT_LT((i + 1) * 1000 - returned, 65535u);
  }
}

TEST(H2Client, ABodyGoesOnWithinItsWindowUnlessItIsHeld) {
  H2Client client = Connected();
  client.Open({});
  client.Open({});
  client.TakeOutput();
  ASSERT_TRUE(client.Receive(Frame(kData, 0, 1, std::string(100, 'x'))));
  EXPECT_EQ(client.TakeOutput(), Frame(kWindowUpdate, 0, 1, Be32(100)));
  client.HoldBody(3);
  ASSERT_TRUE(client.Receive(Frame(kData, 0, 3, std::string(100, 'x'))));
  EXPECT_FALSE(client.has_output());
  client.GrantWindow(3, 7);
  client.GrantWindow(5, 7);  // which is not open
  EXPECT_EQ(client.TakeOutput(), Frame(kWindowUpdate, 0, 3, Be32(7)));
}

TEST(H2Client, KnowsThePeersWindow) {
  H2Client client = Connected();
  EXPECT_EQ(client.peer_window(), 65535u);
  ASSERT_TRUE(client.Receive(Frame(kSettings, 0, 0, std::string("\0\3\0\0\0\1\0\4\0\1\0\2", 12))));
  EXPECT_EQ(client.peer_window(), 65538u);
}

TEST(H2Client, AnswersSettingsAndPingsOnce) {
  H2Client client = Connected();
  ASSERT_TRUE(client.Receive(Frame(kSettings, 0, 0, "") + Frame(kPing, 0, 0, "12345678")));
  EXPECT_EQ(client.TakeOutput(), Frame(kSettings, 1, 0, "") + Frame(kPing, 1, 0, "12345678"));
  ASSERT_TRUE(client.Receive(Frame(kSettings, 1, 0, "") + Frame(kPing, 1, 0, "12345678")));
  EXPECT_FALSE(client.has_output());
}

TEST(H2Client, TellsOfResetStreams) {
  H2Client client = Connected();
  client.Open({});
  client.Open({});
  ASSERT_TRUE(client.Receive(Frame(kRstStream, 0, 3, Be32(0))));
  const auto ended = client.TakeEnded();
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].stream, 3u);
  EXPECT_TRUE(ended[0].reset);
  // For the stream that is gone already: nothing.
  ASSERT_TRUE(client.Receive(Frame(kRstStream, 0, 3, Be32(0))));
  EXPECT_FALSE(client.has_ended());
}

TEST(H2Client, OpensNothingAfterAGoAwayAndEndsWhatItDoesNotCover) {
  H2Client client = Connected();
  client.Open({});
  client.Open({});
  ASSERT_TRUE(client.Receive(Frame(kGoAway, 0, 0, Be32(1) + Be32(0))));
  EXPECT_TRUE(client.going_away());
  EXPECT_EQ(client.Open({}), 0u);
  ASSERT_EQ(client.TakeEnded().size(), 1u);
  EXPECT_EQ(client.open_streams(), 1u);
}

TEST(H2Client, RefusesWhatIsNotHttp2) {
  const std::string bad[] = {
      "HTTP/1.1 400 Bad Request\r\n\r\n",
      Frame(kHeaders, 0, 1, "\x88") + Frame(kData, 0, 1, ""),          // block interrupted
      Frame(kHeaders, 0, 1, "\x88") + Frame(kContinuation, 4, 3, ""),  // by another stream
      Frame(kContinuation, 4, 1, ""),
      Frame(kData, 0, 0, ""),
      Frame(kData, 0, 7, "never opened"),
      Frame(kData, 8, 1,
            "\x05"
            "abc"),  // more padding than there is
      Frame(kRstStream, 0, 1, "abc"),
      Frame(kGoAway, 0, 0, "abc"),
      Frame(kPing, 0, 0, "abc"),
      Frame(kSettings, 0, 0, "abc"),
      Frame(5, 4, 1, "push"),
  };
  for (const std::string& input : bad) {
    H2Client client = Connected();
    client.Open({});
    EXPECT_FALSE(client.Receive(input)) << input;
  }
}

TEST(H2Client, SurvivesRandomFrames) {
  std::mt19937 random(7);
  for (int round = 0; round < 2000; ++round) {
    H2Client client = Connected();
    for (int i = 0; i < 3; ++i) client.Open({});
    bool good = true;
    for (int i = 0; i < 30 && good; ++i) {
      std::string payload(random() % 40, '\0');
      for (char& c : payload) c = static_cast<char>(random());
      good = client.Receive(Frame(static_cast<uint8_t>(random() % 11),
                                  static_cast<uint8_t>(random()), random() % 8, payload));
    }
    for (const auto& ended : client.TakeEnded()) EXPECT_LE(ended.stream, 5u);
  }
}

TEST(H2Client, KnowsWhatMayStandInAHeader) {
  EXPECT_TRUE(H2Client::IsFieldValue("outbound|20880||demo.svc"));
  EXPECT_TRUE(H2Client::IsFieldValue("with blanks inside"));
  for (const std::string_view bad : {"", " x", "x ", "a\nb", "a\rb", "tab\t"}) {
    EXPECT_FALSE(H2Client::IsFieldValue(bad)) << bad;
  }
  EXPECT_FALSE(H2Client::IsFieldValue(std::string_view("a\0b", 3)));
}

}  // namespace
}  // namespace metaprotocol::envoy
