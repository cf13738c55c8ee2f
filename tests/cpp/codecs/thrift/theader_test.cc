// THeader: info headers as metadata and as mutation, two sequence ids, what is refused.
#include "codecs/thrift/theader.h"

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

TEST(THeader, SetsReplacesAddsAndRemovesInfoHeaders) {
  const std::string wire = Header(Infos(0, {{"a", "1"}, {"b", "2"}, {"a", "3"}}), 1, kEcho);
  EXPECT_EQ(Mutate(wire, {{Kind::kSet, "a", "x"}}),
            Header(Infos(0, {{"b", "2"}, {"a", "x"}}), 1, kEcho));
  EXPECT_EQ(Mutate(wire, {{Kind::kAddIfAbsent, "a", "x"}, {Kind::kAddIfAbsent, "c", "y"}}),
            Header(Infos(0, {{"a", "1"}, {"b", "2"}, {"a", "3"}, {"c", "y"}}), 1, kEcho));
  EXPECT_EQ(Mutate(wire, {{Kind::kRemove, "a", ""}, {Kind::kRemove, "none", ""}}),
            Header(Infos(0, {{"b", "2"}}), 1, kEcho));
  EXPECT_EQ(Mutate(wire, {{Kind::kRemove, "a", ""}, {Kind::kRemove, "b", ""}}),
            Header(Infos(0, {}), 1, kEcho));
  EXPECT_EQ(Mutate(wire, {{Kind::kSet, "c", "1"}, {Kind::kRemove, "c", ""}}), wire);
}

TEST(THeader, StaysWellFormedForEveryLengthOfPadding) {
  for (size_t n = 0; n < 20; ++n) {
    const std::string wire = Header(Infos(2, {}), 1, Compact(kCall, "echo", 1));
    const std::string longer = Mutate(wire, {{Kind::kSet, "k", std::string(n, 'v')}});
    const Decoded decoded = Request(longer);
    ASSERT_EQ(decoded.result.status, Status::kMessage) << decoded.result.error;
    EXPECT_EQ(decoded.message.length, longer.size());
    EXPECT_EQ(decoded.message.metadata.Find("k"), std::string(n, 'v'));
    EXPECT_EQ(decoded.message.metadata.Find("method"), "echo");
  }
}

TEST(THeader, KeepsInfoBlocksItDoesNotKnow) {
  const std::string unknown = "\x05opaque\0\0"s;
  const std::string wire = Header(Infos(0, {{"a", "1"}}) + unknown, 1, kEcho);
  const Decoded decoded = Request(wire);
  ASSERT_EQ(decoded.result.status, Status::kMessage) << decoded.result.error;
  EXPECT_EQ(decoded.message.metadata.Find("a"), "1");
  const std::string mutated = Mutate(wire, {{Kind::kSet, "a", "two"}});
  EXPECT_EQ(mutated.find(Infos(0, {{"a", "two"}}) + unknown), 14u);
}

TEST(THeader, LeavesOutMutationsThatAHeaderCannotCarry) {
  const std::string wire = Header(Infos(0, {{"a", "1"}}), 1, kEcho);
  EXPECT_EQ(Mutate(wire, {{Kind::kSet, "k", std::string(32768, 'v')}}), wire);
  EXPECT_NE(Mutate(wire, {{Kind::kSet, "k", std::string(32767, 'v')}}), wire);
  Mutation much;
  for (int i = 0; i < 9; ++i) {
    much.push_back({Kind::kSet, std::to_string(i), std::string(30'000, 'v')});
  }
  EXPECT_EQ(Mutate(wire, much), wire) << "270,000 bytes are more than a header can have";
  Mutation many;
  for (int i = 0; i < 256; ++i) many.push_back({Kind::kSet, std::to_string(i), "v"});
  EXPECT_EQ(Mutate(wire, many), wire) << "257 headers would not be read back";
}

// Or a client could keep what it says of itself by leaving no room for anything else.
TEST(THeader, ARequestThatCannotCarryWhatIsRequiredGoesNowhere) {
  const auto impossible = [](const std::string& wire, Direction direction, bool required) {
    const Decoded decoded = DecodeOnce(wire, direction);
    EXPECT_EQ(decoded.result.status, Status::kMessage) << decoded.result.error;
    const Mutation mutation = {{Kind::kRemove, "user", "", required},
                               {Kind::kSet, "role", "guest", required},
                               {Kind::kSet, "by", "proxy", required}};
    std::string out = "before";
    const Encoded encoded =
        ThriftCodec().Encode(decoded.message, wire, {.id = 5, .mutation = mutation}, out);
    EXPECT_EQ(encoded.impossible, out == "before");
    return encoded.impossible;
  };
  Pairs full = {{"user", "root"}};
  while (full.size() < kMaxInfoHeaders) full.emplace_back("k" + std::to_string(full.size()), "v");
  const std::string request = Header(Infos(0, full), 1, kEcho);
  EXPECT_TRUE(impossible(request, Direction::kRequest, true));
  EXPECT_FALSE(impossible(request, Direction::kRequest, false));
  EXPECT_FALSE(
      impossible(Header(Infos(0, full), 1, Binary(kReply, "echo", 1)), Direction::kResponse, true));
  full.resize(kMaxInfoHeaders - 1);
  EXPECT_FALSE(impossible(Header(Infos(0, full), 1, kEcho), Direction::kRequest, true));
  EXPECT_FALSE(impossible(Framed(kEcho), Direction::kRequest, true)) << "nothing to change";
}

TEST(THeader, OtherTransportsTakeNoMutation) {
  for (const std::string& wire : {Framed(kEcho), kEcho, Compact(kCall, "echo", 1)}) {
    EXPECT_EQ(Mutate(wire, {{Kind::kSet, "a", "b"}}), wire);
  }
}

TEST(THeader, MutatesResponsesToo) {
  const std::string wire = Header(Infos(0, {}), 8, Binary(kReply, "echo", 8));
  const Decoded decoded = DecodeOnce(wire, Direction::kResponse);
  EXPECT_EQ(EncodeWhole(decoded.message, wire, 9, Mutation{{Kind::kSet, "a", "b"}}),
            Header(Infos(0, {{"a", "b"}}), 9, Binary(kReply, "echo", 9)));
}

TEST(THeader, MutatesAHeadWhoseBodyHasNotCome) {
  const std::string body = "\x0B\0\x01\0\0\x10\0"s + std::string(4096, 'b') + '\0';
  const std::string wire = Header(Infos(0, {{"a", "1"}}), 1, Binary(kCall, "echo", 1, body));
  DecodeOptions options;
  options.allow_partial = true;
  const Bytes head = Bytes(wire).substr(0, 60);
  const Decoded decoded = DecodeOnce(head, Direction::kRequest, options);
  ASSERT_EQ(decoded.result.status, Status::kMessage);
  EXPECT_EQ(decoded.message.length, wire.size());
  std::string out;
  const Mutation mutation = {{Kind::kSet, "a", "longer than before"}};
  const size_t taken =
      ThriftCodec().Encode(decoded.message, head, {.id = 2, .mutation = mutation}, out).head;
  ASSERT_LE(taken, head.size());
  EXPECT_EQ(out + wire.substr(taken),
            Header(Infos(0, {{"a", "longer than before"}}), 2, Binary(kCall, "echo", 2, body)));
}

TEST(THeader, TheLastOfEqualKeysIsTheOneToFindAsForItsReaders) {
  const Decoded decoded = Request(Header(Infos(0, {{"a", "1"}, {"a", "2"}, {"b", "3"}}), 1, kEcho));
  EXPECT_EQ(decoded.message.metadata.Find("a"), "2");
}

TEST(THeader, InfoHeadersCannotOverrideWhatTheMessageSays) {
  const Decoded decoded =
      Request(Header(Infos(0, {{"method", "other"}, {"transport", "framed"}}), 1, kEcho));
  EXPECT_EQ(decoded.message.metadata.Find("method"), "echo");
  EXPECT_EQ(decoded.message.metadata.Find("transport"), "header");
}

TEST(THeader, ReplacesBothIdsAndGivesBothBackEvenIfTheyDiffer) {
  const std::string wire = Header(Infos(0, {}), 5, Binary(kCall, "echo", 0xFFFFFFFF));
  const Decoded request = Request(wire);
  EXPECT_EQ(EncodeWhole(request.message, wire, 42),
            Header(Infos(0, {}), 42, Binary(kCall, "echo", 42)));

  const std::string reply = Header(Infos(0, {}), 42, Binary(kReply, "echo", 42));
  const Decoded response = DecodeOnce(reply, Direction::kResponse);
  EXPECT_EQ(response.message.id, 42u);
  EXPECT_EQ(EncodeWhole(response.message, reply, request.message.id),
            Header(Infos(0, {}), 5, Binary(kReply, "echo", 0xFFFFFFFF)));

  EXPECT_EQ(ReplyTo(request, LocalReply::kNoContent),
            Header(Infos(0, {}), 5, Binary(kReply, "echo", 0xFFFFFFFF)));
}

TEST(THeader, KeepsFlags) {
  std::string wire = Header(Infos(0, {}), 1, kEcho);
  wire[7] = 3;
  EXPECT_EQ(EncodeWhole(Request(wire).message, wire, 1), wire);
}

struct Refused {
  std::string wire;
  std::string_view why;
  uint32_t exception_type;
};

TEST(THeader, AnswersWhatItRefusesWithTheTypeThatSaysIt) {
  const Refused refused[] = {
      {Header("\0\1\2"s, 7, kEcho), "THeader transforms other than zlib are not supported", 8},
      {Header("\2\2\1\3"s, 7, kEcho), "THeader transforms other than zlib are not supported", 8},
      {Header("\0\1\1"s, 7, kEcho), "a Thrift message that zlib cannot have compressed", 8},
      {Header("\1\0"s, 7, kEcho), "THeader with a protocol other than binary and compact", 9},
      {Header("\0\0\2\1\1a\1b"s, 7, kEcho), "THeader persistent headers are not supported", 7},
      {Header("\0\0\1\2\1a\1b"s, 7, kEcho), "a Thrift field runs over the end of its frame", 7},
      {Header("\0\0\1\1\x7F"s, 7, kEcho), "a Thrift field runs over the end of its frame", 7},
      {Header("", 7, kEcho), "a Thrift field runs over the end of its frame", 7},
  };
  for (const Refused& r : refused) {
    const Decoded decoded = Request(r.wire);
    EXPECT_EQ(decoded.result.error, r.why);
    EXPECT_NE(decoded.result.status, Status::kMessage);
    EXPECT_EQ(decoded.message.kind, MessageKind::kRequest);
    const std::string reply = ReplyTo(decoded, LocalReply::kMalformed);
    EXPECT_EQ(LoadBe32(reply.data() + kHeaderIdOffset), 7u);
    // The type is the last field: a whole number in binary, zigzag in compact.
    const bool compact = r.wire[14] == 2;
    EXPECT_EQ(static_cast<uint32_t>(reply[reply.size() - 2]), r.exception_type * (compact ? 2 : 1));
  }
}

TEST(THeader, RefusesHeadersLargerThanTheirFrame) {
  std::string wire = Header(Infos(0, {}), 1, kEcho);
  wire[12] = '\x01';
  EXPECT_EQ(Request(wire).result.error, "THeader is larger than its frame");
  EXPECT_EQ(Request(Be32(9) + wire.substr(4)).result.error, "THeader frame too short");
}

TEST(THeader, TakesAsManyInfoHeadersAsItSaysAndNoMore) {
  Pairs pairs;
  for (size_t i = 0; i < kMaxInfoHeaders; ++i) pairs.emplace_back("k" + std::to_string(i), "v");
  const Decoded all = Request(Header(Infos(0, pairs), 1, kEcho));
  ASSERT_EQ(all.result.status, Status::kMessage);
  EXPECT_EQ(all.message.metadata.Entries().size(), kMaxInfoHeaders + 4);
  EXPECT_EQ(all.message.metadata.Find("k0"), "v");
  pairs.emplace_back("one", "more");
  EXPECT_EQ(Request(Header(Infos(0, pairs), 1, kEcho)).result.error,
            "too many THeader info headers");
}

TEST(THeader, ReadsSeveralBlocksOfInfoHeaders) {
  const std::string infos = Infos(0, {{"a", "1"}}) + "\1\1\1b\1"s + "2" + "\1\0"s;
  const Decoded decoded = Request(Header(infos, 1, kEcho));
  ASSERT_EQ(decoded.result.status, Status::kMessage) << decoded.result.error;
  EXPECT_EQ(decoded.message.metadata.Find("a"), "1");
  EXPECT_EQ(decoded.message.metadata.Find("b"), "2");
}

}  // namespace
}  // namespace metaprotocol::thrift
