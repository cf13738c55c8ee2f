// TTHeader: keys as metadata and as mutation, the client's timeout, frames within frames, what is
// refused. Real peers are in tests/envoy/test_kitex.py.
#include "codecs/thrift/ttheader.h"

#include <gtest/gtest.h>

#include "codecs/thrift/thrift_codec.h"
#include "tests/cpp/codecs/thrift/messages.h"
#include "tests/cpp/codecs/thrift/vectors.h"

namespace metaprotocol::thrift {
namespace {

using Status = DecodeResult::Status;
using std::string_literals::operator""s;
using Kind = MutationOp::Kind;
using Pairs = std::vector<std::pair<std::string, std::string>>;
using Numbered = std::vector<std::pair<uint16_t, std::string>>;

std::string Be16(size_t v) {
  std::string out;
  AppendBe16(out, static_cast<uint16_t>(v));
  return out;
}

std::string Text(const std::string& text) { return Be16(text.size()) + text; }

std::string TextKeys(const Pairs& pairs) {
  std::string out = "\x01" + Be16(pairs.size());
  for (const auto& [key, value] : pairs) out += Text(key) + Text(value);
  return out;
}

std::string NumberKeys(const Numbered& pairs) {
  std::string out = "\x10" + Be16(pairs.size());
  for (const auto& [key, value] : pairs) out += Be16(key) + Text(value);
  return out;
}

// `blocks`: what follows protocol and transforms.
std::string Frame(std::string blocks, uint32_t id, const std::string& message,
                  const std::string& preamble = "\0\0"s) {
  blocks = preamble + blocks;
  blocks.resize((blocks.size() + 3) / 4 * 4);
  std::string rest = "\x10\0\0\1"s + Be32(id);
  AppendBe16(rest, static_cast<uint16_t>(blocks.size() / 4));
  return Framed(rest + blocks + message);
}

TEST(TTHeader, ShowsKeysMethodAndService) {
  const std::string wire = Frame(NumberKeys({{3, "shop"}, {9, "echo"}, {12, "250"}, {99, "x"}}) +
                                     TextKeys({{"isn", "Greeter"}, {"RPC_TRANSIT_LANE", "blue"}}),
                                 1, kEcho);
  const Decoded decoded = Request(wire);
  ASSERT_EQ(decoded.result.status, Status::kMessage) << decoded.result.error;
  const Metadata& metadata = decoded.message.metadata;
  EXPECT_EQ(decoded.message.length, wire.size());
  EXPECT_EQ(metadata.Find("method"), "echo");
  EXPECT_EQ(metadata.Find("service"), "Greeter");
  EXPECT_EQ(metadata.Find("transport"), "ttheader");
  EXPECT_EQ(metadata.Find("protocol"), "binary");
  EXPECT_EQ(metadata.Find("from_service"), "shop");
  EXPECT_EQ(metadata.Find("to_method"), "echo");
  EXPECT_EQ(metadata.Find("RPC_TRANSIT_LANE"), "blue");
  EXPECT_EQ(decoded.message.timeout_us, 250'000u);
}

// The bytes of a call of Kitex 0.16 as a review recorded them (no keys).
TEST(TTHeader, ReadsWhatKitexWrote) {
  const Decoded decoded = Request(FromHex(
      "00000027100000000000000100010000000080010001000000046563686f000000010b0001000000017800"));
  EXPECT_EQ(decoded.result.status, Status::kMessage) << decoded.result.error;
  EXPECT_EQ(decoded.message.metadata.Find("method"), "echo");
}

TEST(TTHeader, ReadsAFrameWithinTheFrame) {
  const std::string wire = Frame(TextKeys({{"a", "1"}}), 1, Framed(kEcho));
  const Decoded decoded = Request(wire);
  ASSERT_EQ(decoded.result.status, Status::kMessage) << decoded.result.error;
  EXPECT_EQ(decoded.message.metadata.Find("transport"), "ttheader_framed");
  EXPECT_EQ(EncodeWhole(decoded.message, wire, 7),
            Frame(TextKeys({{"a", "1"}}), 7, Framed(Binary(kCall, "echo", 7))));
  const std::string reply = ReplyTo(decoded, LocalReply::kNoRoute, "no route");
  const Decoded read = DecodeOnce(reply, Direction::kResponse);
  ASSERT_EQ(read.result.status, Status::kMessage) << read.result.error;
  EXPECT_EQ(read.message.length, reply.size());
  EXPECT_EQ(read.message.status, ReplyStatus::kError);
  EXPECT_EQ(LoadBe32(reply.data() + 18), reply.size() - 22);
  // Behind it another message would be one that no route has seen.
  for (const std::string& message :
       {Framed(kEcho) + "x", Be32(3) + kEcho, Be32(40) + kEcho, "\0\0\0"s, "\0\0\0\0"s}) {
    EXPECT_NE(Request(Frame("", 1, message)).result.status, Status::kMessage);
  }
}

TEST(TTHeader, AnswersInKind) {
  const Decoded decoded = Request(Frame("", 5, Binary(kCall, "echo", 4)));
  const std::string reply = ReplyTo(decoded, LocalReply::kNoRoute, "no route");
  EXPECT_EQ(reply.substr(4, 8), "\x10\0\0\0"s + Be32(5)) << "its own number in the header";
  const Decoded read = DecodeOnce(reply, Direction::kResponse);
  ASSERT_EQ(read.result.status, Status::kMessage) << read.result.error;
  EXPECT_EQ(read.message.id, 4u);
  EXPECT_EQ(read.message.metadata.Find("method"), "echo");
}

TEST(TTHeader, SetsReplacesAddsAndRemovesKeys) {
  const std::string numbers = NumberKeys({{3, "shop"}});
  const std::string token = "\x11" + Text("secret");
  const std::string wire =
      Frame(TextKeys({{"a", "1"}}) + numbers + token + TextKeys({{"b", "2"}}), 1, kEcho);
  EXPECT_EQ(Mutate(wire, {{Kind::kSet, "a", "x"}}),
            Frame(TextKeys({{"b", "2"}, {"a", "x"}}) + numbers + token, 1, kEcho));
  EXPECT_EQ(Mutate(wire, {{Kind::kAddIfAbsent, "a", "x"}, {Kind::kAddIfAbsent, "c", "y"}}),
            Frame(TextKeys({{"a", "1"}, {"b", "2"}, {"c", "y"}}) + numbers + token, 1, kEcho));
  EXPECT_EQ(Mutate(wire, {{Kind::kRemove, "a", ""}, {Kind::kRemove, "b", ""}}),
            Frame(numbers + token, 1, kEcho));
  EXPECT_EQ(Mutate(wire, {}), wire);
}

TEST(TTHeader, PassesAShorterTimeoutOn) {
  const std::string wire = Frame(NumberKeys({{3, "shop"}, {12, "30000"}}), 1, kEcho);
  const Decoded decoded = Request(wire);
  std::string out;
  const size_t taken =
      ThriftCodec().Encode(decoded.message, wire, {.id = 1, .timeout_us = 499'001}, out).head;
  EXPECT_EQ(out + wire.substr(taken), Frame(NumberKeys({{3, "shop"}, {12, "500"}}), 1, kEcho));
  const std::string one_way = Frame(NumberKeys({{12, "30000"}}), 1, Binary(kOneWay, "note", 1));
  EXPECT_EQ(Request(one_way).message.timeout_us, 0u);
  for (const char* odd : {"", "-1", "1s", "4294967296", "99999999999999999999"}) {
    EXPECT_EQ(Request(Frame(NumberKeys({{12, odd}}), 1, kEcho)).message.timeout_us, 0u) << odd;
  }
}

TEST(TTHeader, LeavesOutMutationsThatAHeaderCannotCarry) {
  const std::string wire = Frame(TextKeys({{"a", "1"}}), 1, kEcho);
  EXPECT_EQ(Mutate(wire, {{Kind::kSet, "k", std::string(65536, 'v')}}), wire);
  EXPECT_EQ(Mutate(wire, {{Kind::kSet, "k", std::string(65530, 'v')}}), wire);
  EXPECT_NE(Mutate(wire, {{Kind::kSet, "k", std::string(65000, 'v')}}), wire);
  Mutation many;
  for (int i = 0; i < 256; ++i) many.push_back({Kind::kSet, std::to_string(i), "v"});
  EXPECT_EQ(Mutate(wire, many), wire);
}

TEST(TTHeader, ARequestThatCannotCarryWhatIsRequiredGoesNowhere) {
  const std::string wire =
      Frame(TextKeys({{"user", "root"}, {"pad", std::string(60'000, 'x')}}), 1, kEcho);
  const Decoded decoded = Request(wire);
  ASSERT_EQ(decoded.result.status, Status::kMessage) << decoded.result.error;
  for (const bool required : {true, false}) {
    const Mutation mutation = {{Kind::kRemove, "user", "", required},
                               {Kind::kSet, "role", std::string(6'000, 'g'), required}};
    std::string out;
    const Encoded encoded =
        ThriftCodec().Encode(decoded.message, wire, {.id = 5, .mutation = mutation}, out);
    EXPECT_EQ(encoded.impossible, required);
    EXPECT_EQ(out.empty(), required);
  }
}

TEST(TTHeader, RefusesWhatItsReadersSeeInAnotherWay) {
  const auto status = [](const std::string& wire) { return Request(wire).result.status; };
  EXPECT_EQ(status(Frame("", 1, kEcho, "\x03\0"s)), Status::kError) << "protobuf";
  EXPECT_EQ(status(Frame("", 1, kEcho, "\0\x01\x01"s)), Status::kError) << "a transform";
  EXPECT_EQ(status(Frame("\x05", 1, kEcho)), Status::kUndecodable) << "an unknown block";
  EXPECT_EQ(status(Frame("\x01\0\1\0\x09"s, 1, kEcho)), Status::kUndecodable) << "cut short";
  std::string many = "\x10\1\1"s;
  for (int i = 0; i < 257; ++i) many += "\0\x63\0\0"s;
  EXPECT_EQ(status(Frame(many, 1, kEcho)), Status::kUndecodable);
  // 65,536 bytes are none in 16 bits: the message would begin somewhere else for Kitex.
  EXPECT_EQ(status(Frame(std::string(65'534, '\0'), 1, kEcho)), Status::kError);
  EXPECT_EQ(status(Frame(std::string(65'530, '\0'), 1, kEcho)), Status::kMessage);
  EXPECT_EQ(status(Frame("", 1, "")), Status::kError);
}

TEST(TTHeader, AsksForNoMoreThanItNeeds) {
  const std::string wire = Frame(TextKeys({{"a", "1"}}), 1, kEcho);
  DecodeOptions options = WantingAll();
  options.allow_partial = true;
  for (size_t n = 0; n < wire.size(); ++n) {
    const Decoded decoded = Request(Bytes(wire).substr(0, n), options);
    if (decoded.result.status == Status::kMessage) continue;
    ASSERT_EQ(decoded.result.status, Status::kNeedMore) << n << decoded.result.error;
    ASSERT_GT(decoded.result.need, n);
    ASSERT_LE(decoded.result.need, wire.size());
  }
}

}  // namespace
}  // namespace metaprotocol::thrift
