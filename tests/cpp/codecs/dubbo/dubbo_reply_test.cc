// What the Dubbo codec says by itself: error replies, heartbeats, the go-away event.
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "codecs/dubbo/reply.h"
#include "tests/cpp/codecs/dubbo/frames.h"
#include "tests/cpp/codecs/dubbo/vectors.h"

namespace metaprotocol::dubbo {
namespace {

using namespace std::string_literals;

std::string ReplyOf(LocalReply reply, uint64_t tag, std::string_view text = "why") {
  std::string out;
  EXPECT_TRUE(DubboCodec().Reply({0x1234, tag, ""}, reply, text, out));
  return out;
}

TEST(DubboCodec, RepliesWithTheStatusOfEachError) {
  for (const auto& [reply, status] :
       std::vector<std::pair<LocalReply, int>>{{LocalReply::kNoRoute, 60},
                                               {LocalReply::kClusterNotFound, 80},
                                               {LocalReply::kNoHealthyUpstream, 80},
                                               {LocalReply::kTimeout, 31},
                                               {LocalReply::kOverLimit, 80},
                                               {LocalReply::kDenied, 80},
                                               {LocalReply::kFault, 80},
                                               {LocalReply::kUpstreamLost, 80},
                                               {LocalReply::kTooLarge, 40},
                                               {LocalReply::kMalformed, 40},
                                               {LocalReply::kShuttingDown, 80},
                                               {LocalReply::kBadResponse, 50}}) {
    EXPECT_EQ(ReplyOf(reply, 2), Frame(2, static_cast<uint8_t>(status), 0x1234, "\3why"));
    const Decoded d = Decode(Direction::kResponse, ReplyOf(reply, 2, ""));
    EXPECT_EQ(d.message.status, ReplyStatus::kError);
    EXPECT_GT(d.message.length, 20u) << "a readable default";
  }
  EXPECT_EQ(ReplyOf(LocalReply::kNoContent, 2), Frame(2, 20, 0x1234, "\x92"));
  EXPECT_EQ(ReplyOf(LocalReply::kNoRoute, 0), Frame(2, 60, 0x1234, "\3why"));
}

TEST(DubboCodec, CutsLongReplyTextsBetweenCharacters) {
  std::string text;
  while (text.size() < 2 * kMaxReplyText) text += "世";
  const std::string frame = ReplyOf(LocalReply::kNoRoute, 2, text);
  Hessian2Reader reader(Bytes(frame).substr(16));
  HessianString read;
  ASSERT_TRUE(reader.ReadString(read));
  EXPECT_TRUE(reader.AtEnd());
  EXPECT_EQ(read.Text(), text.substr(0, kMaxReplyText / 3 * 3));
}

std::string FromHex(const std::string& hex) {
  std::string out;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    out.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return out;
}

TEST(DubboCodec, WritesAndKnowsWhatEverySerializationWrites) {
  std::istringstream lines(ReadFile(VectorFolder() / "serializations.txt"));
  std::string line;
  size_t seen = 0;
  while (std::getline(lines, line)) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream columns(line);
    int id = 0;
    std::string name, text, byte, null, readonly;
    columns >> id >> name >> text >> byte >> null >> readonly;
    ++seen;
    const auto tag = static_cast<uint64_t>(id);
    const auto flags = static_cast<uint8_t>(id);
    EXPECT_EQ(SerializationName(static_cast<Serialization>(id)), name);
    const std::string error = ReplyOf(LocalReply::kNoRoute, tag, "refused");
    EXPECT_EQ(error[2], static_cast<char>(id)) << name;
    // Java may choose shorter forms for short texts; the longer ones were read back by Dubbo.
    if (name != "msgpack") {
      EXPECT_EQ(error.substr(16), FromHex(text)) << name;
    }
    EXPECT_EQ(ReplyOf(LocalReply::kNoContent, tag), Frame(flags, 20, 0x1234, FromHex(byte)))
        << name;
    if (null != "none") {
      const std::string body = null == "empty" ? "" : FromHex(null);
      const Decoded d = DecodeRequest(Frame(kTwoWayRequest | kFlagEvent | flags, 0, 1, body));
      EXPECT_EQ(d.message.kind, MessageKind::kHeartbeat) << name;
    }
    if (readonly != "none") {
      const Decoded d =
          DecodeRequest(Frame(kFlagRequest | kFlagEvent | flags, 0, 1, FromHex(readonly)));
      EXPECT_EQ(d.message.kind, MessageKind::kGoAway) << name;
    }
  }
  EXPECT_EQ(seen, 16u);
}

TEST(DubboCodec, AnswersUnknownSerializationsInHessian) {
  EXPECT_EQ(ReplyOf(LocalReply::kNoRoute, 31), Frame(2, 60, 0x1234, "\3why"));
  EXPECT_EQ(ReplyOf(LocalReply::kNoContent, 31)[3], 80);
}

TEST(DubboCodec, PingsWithAHeartbeatWhoseAnswerCarriesTheSameId) {
  std::string ping;
  ASSERT_TRUE(DubboCodec().Ping(0x1122334455667788, ping));
  const Decoded seen = DecodeRequest(ping);
  ASSERT_EQ(seen.message.kind, MessageKind::kHeartbeat);
  std::string answer;
  ASSERT_TRUE(DubboCodec().HeartbeatReply(seen.message, ping, answer));
  const Decoded heard = Decode(Direction::kResponse, answer);
  EXPECT_EQ(heard.message.kind, MessageKind::kHeartbeatReply);
  EXPECT_EQ(heard.message.id, 0x1122334455667788u);
}

TEST(DubboCodec, AnswersHeartbeatsThatWantAnAnswer) {
  const std::string heartbeat = Frame(kTwoWayRequest | kFlagEvent | 2, 0, 77, "N");
  const Decoded decoded = DecodeRequest(heartbeat);
  std::string out;
  EXPECT_TRUE(DubboCodec().HeartbeatReply(decoded.message, heartbeat, out));
  EXPECT_EQ(out, Frame(kFlagEvent | 2, 20, 77, "N"));
  const std::string one_way = Frame(kFlagRequest | kFlagEvent | 2, 0, 77, "N");
  out.clear();
  EXPECT_FALSE(DubboCodec().HeartbeatReply(DecodeRequest(one_way).message, one_way, out));
  EXPECT_TRUE(out.empty());
}

TEST(DubboCodec, SaysGoAwayWithAReadOnlyEvent) {
  std::string out;
  EXPECT_TRUE(DubboCodec().GoAway({}, out));
  EXPECT_EQ(Decode(Direction::kResponse, out).message.kind, MessageKind::kGoAway);
}

TEST(DubboCodec, IsMultiplexedAndTakesNoOptions) {
  EXPECT_NE(CreateDubboCodec("").codec, nullptr);
  EXPECT_NE(CreateDubboCodec(" { } ").codec, nullptr);
  const CodecOrError refused = CreateDubboCodec(R"({"x":1})");
  EXPECT_EQ(refused.codec, nullptr);
  EXPECT_NE(refused.error.find(R"({"x":1})"), std::string::npos);
  const CodecTraits& traits = DubboCodec().traits();
  EXPECT_EQ(traits.name, "dubbo");
  EXPECT_EQ(traits.id_bits, 64);
  EXPECT_TRUE(traits.multiplexed);
}

}  // namespace
}  // namespace metaprotocol::dubbo
