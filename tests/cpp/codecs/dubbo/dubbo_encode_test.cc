// The Dubbo codec's Encode: another id, and mutations written into attachments.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/cpp/codecs/dubbo/frames.h"
#include "tests/cpp/codecs/dubbo/round_trip.h"

namespace metaprotocol::dubbo {
namespace {

using namespace std::string_literals;
using ResultStatus = DecodeResult::Status;

TEST(DubboCodec, KeepsEveryByteButTheIdWithoutMutation) {
  const std::string frame = Request(HeadBody() + "HZ");
  const Decoded decoded = DecodeRequest(frame);
  std::string expected = frame;
  StoreBe64(&expected[4], 0xfedcba9876543210);
  EXPECT_EQ(EncodeAll(decoded, frame, {}, 0xfedcba9876543210), expected);
}

TEST(DubboCodec, SetsAddsAndRemovesAttachmentsInPlace) {
  const std::string entries_before = Text("a") + Text("1") + Text("b") + "\x95";
  const std::string frame =
      Request(HeadBody() + "H" + entries_before + Text("c") + Text("3") + "Z");
  const Mutation mutation = {{MutationOp::Kind::kSet, "a", "é😀"},
                             {MutationOp::Kind::kAddIfAbsent, "b", "unused"},
                             {MutationOp::Kind::kRemove, "c", ""},
                             {MutationOp::Kind::kAddIfAbsent, "d", "4"},
                             {MutationOp::Kind::kRemove, "nobody", ""}};
  std::string expected = Request(HeadBody() + "H" + Text("a") + Text("é😀") + Text("b") + "\x95" +
                                 Text("d") + Text("4") + "Z");
  StoreBe64(&expected[4], 99);
  EXPECT_EQ(EncodeAll(DecodeRequest(frame), frame, mutation), expected);
}

TEST(DubboCodec, AppliesOperationsOnOneKeyInOrder) {
  const std::string frame = Request(HeadBody() + "H" + Text("a") + Text("1") + "Z");
  using Kind = MutationOp::Kind;
  const auto value = [&](const Mutation& mutation) {
    return DecodeRequest(EncodeAll(DecodeRequest(frame), frame, mutation)).Value("a");
  };
  EXPECT_EQ(value({{Kind::kRemove, "a", ""}, {Kind::kAddIfAbsent, "a", "2"}}), "2");
  EXPECT_EQ(value({{Kind::kSet, "a", "2"}, {Kind::kRemove, "a", ""}}), "<absent>");
  EXPECT_EQ(value({{Kind::kAddIfAbsent, "a", "2"}, {Kind::kSet, "a", "3"}}), "3");
  EXPECT_EQ(
      value({{Kind::kRemove, "a", ""}, {Kind::kSet, "a", "2"}, {Kind::kAddIfAbsent, "a", "3"}}),
      "2");
  EXPECT_EQ(value({{Kind::kAddIfAbsent, "a", "2"}}), "1");
}

TEST(DubboCodec, ReplacesEveryEntryOfARepeatedKey) {
  const std::string twice = Text("a") + Text("1") + Text("b") + Text("x") + Text("a") + Text("2");
  const std::string frame = Request(HeadBody() + "H" + twice + "Z");
  const std::string out = EncodeAll(DecodeRequest(frame), frame, Set("a", "3"));
  EXPECT_EQ(out.substr(16), HeadBody() + "H" + Text("a") + Text("3") + Text("b") + Text("x") + "Z");
}

TEST(DubboCodec, GivesAttachmentsToRequestsThatHaveNone) {
  for (const char* none : {"", "N"}) {
    const std::string frame = Request(HeadBody() + none);
    const std::string out = EncodeAll(DecodeRequest(frame), frame, Set("a", "1"));
    EXPECT_EQ(out.substr(16), HeadBody() + "H" + Text("a") + Text("1") + "Z");
    EXPECT_EQ(EncodeAll(DecodeRequest(frame), frame, {{MutationOp::Kind::kRemove, "a", ""}}).size(),
              frame.size());
  }
}

TEST(DubboCodec, KeepsTheTypeOfTypedAttachments) {
  const std::string type = "M" + Text("java.util.TreeMap");
  const std::string frame = Request(HeadBody() + type + "Z");
  const std::string out = EncodeAll(DecodeRequest(frame), frame, Set("a", "1"));
  EXPECT_EQ(out.substr(16), HeadBody() + type + Text("a") + Text("1") + "Z");
}

TEST(DubboCodec, LeavesAnAttachmentThatLaterOnesReferToInPlace) {
  const std::string list = "\x78";
  const std::string referred = Text("a") + list + Text("b") + "Q\x91";
  const std::string free = Text("a") + list + Text("b") + Text("x");
  const auto mutated = [](const std::string& entries) {
    const std::string frame = Request(HeadBody() + "H" + entries + "Z");
    return EncodeAll(DecodeRequest(frame), frame, {{MutationOp::Kind::kRemove, "a", ""}})
        .substr(16);
  };
  EXPECT_EQ(mutated(referred), HeadBody() + "H" + referred + "Z");
  EXPECT_EQ(mutated(free), HeadBody() + "H" + Text("b") + Text("x") + "Z");
}

// Or a client could keep what it says of itself by saying it in a way that cannot be undone.
TEST(DubboCodec, ARequestThatCannotCarryWhatIsRequiredGoesNowhere) {
  const std::string list = "\x78";
  const std::string forged = HeadBody() + "H" + Text("a") + list;
  const auto impossible = [](const std::string& body, uint8_t serialization, bool required) {
    const std::string frame =
        Frame(static_cast<uint8_t>(kTwoWayRequest | serialization), 0, 1, body);
    const Decoded decoded = DecodeRequest(frame);
    const Mutation mutation = {{MutationOp::Kind::kRemove, "a", "", required}};
    std::string out = "before";
    const Encoded encoded =
        DubboCodec().Encode(decoded.message, frame, {.id = 9, .mutation = mutation}, out);
    EXPECT_EQ(encoded.impossible, out == "before");
    return encoded.impossible;
  };
  for (const bool required : {true, false}) {
    EXPECT_EQ(impossible(forged + Text("b") + "Q\x91" + "Z", 2, required), required);
    EXPECT_FALSE(impossible(forged + Text("b") + Text("x") + "Z", 2, required));
    EXPECT_FALSE(impossible(HeadBody(), 2, required)) << "there is none";
    EXPECT_EQ(impossible("whatever kryo makes of it", 8, required), required);
    EXPECT_EQ(impossible(forged + Text("b"), 2, required), required) << "cut off";
  }
}

TEST(DubboCodec, WritesAttachmentsIntoResponsesThatHaveSome) {
  for (const std::string& value : {"\x93N"s, "\x94\1x"s, "\x95"s}) {
    const std::string frame = Frame(2, 20, 1, value + "H" + Text("a") + Text("1") + "Z");
    const Decoded decoded = Decode(Direction::kResponse, frame);
    EXPECT_EQ(EncodeAll(decoded, frame, Set("b", "2")).substr(16),
              value + "H" + Text("a") + Text("1") + Text("b") + Text("2") + "Z");
  }
}

TEST(DubboCodec, AddsAttachmentsToResponsesOnlyForClientsThatReadThem) {
  const ReplyContext request{.tag = DecodeRequest(Request(HeadBody("2.0.2") + "HZ")).message.tag};
  EXPECT_NE(request.tag & kTagReadsResponseAttachments, 0u);
  for (const auto& [before, after] : std::vector<std::pair<std::string, std::string>>{
           {"\x90N", "\x93N"}, {"\x91\1x", "\x94\1x"}, {"\x92", "\x95"}}) {
    const std::string frame = Frame(2, 20, 1, before);
    Decoded decoded = Decode(Direction::kResponse, frame);
    EXPECT_EQ(EncodeAll(decoded, frame, Set("a", "1")).substr(16), before);
    DubboCodec().CarryOver({.tag = DecodeRequest(Request(HeadBody("2.6.2") + "HZ")).message.tag},
                           decoded.message);
    EXPECT_EQ(EncodeAll(decoded, frame, Set("a", "1")).substr(16), before);
    DubboCodec().CarryOver(request, decoded.message);
    EXPECT_EQ(EncodeAll(decoded, frame, Set("a", "1")).substr(16),
              after + "H" + Text("a") + Text("1") + "Z");
  }
}

TEST(DubboCodec, KnowsWhichVersionsReadAttachmentsInResponses) {
  const auto reads = [](const std::string& version) {
    const Decoded d = DecodeRequest(Request(HeadBody(version) + "HZ"));
    return (d.message.tag & kTagReadsResponseAttachments) != 0;
  };
  for (const char* version : {"2.0.2", "2.0.10", "2.0.99", "2.0.3-SNAPSHOT"}) {
    EXPECT_TRUE(reads(version)) << version;
  }
  for (const char* version : {"", "2.0.0", "2.0.1", "2.0.100", "2.5.3", "2.6.2", "2.8.4", "3.0.0",
                              "2.0.", "2.0.x", "2.0.2.1"}) {
    EXPECT_FALSE(reads(version)) << version;
  }
}

TEST(DubboCodec, KnowsTheClientsVersionWhateverRoutesLookAt) {
  const std::string json = "\"2.0.2\"\n\"org.Demo\"\n\"1\"\n\"m\"\n\"\"\n{}\n";
  for (const std::string& frame :
       {Request(HeadBody("2.0.2") + "HZ"), Frame(kTwoWayRequest | 6, 0, 7, json)}) {
    for (const std::vector<std::string_view>& keys :
         {std::vector<std::string_view>{}, {"serialization"}, {"method"}, {"user"}}) {
      for (const bool partial : {false, true}) {
        const Decoded d = Decode(Direction::kRequest, frame, Wanting(keys, partial));
        EXPECT_NE(d.message.tag & kTagReadsResponseAttachments, 0u);
        EXPECT_EQ(CheckIncremental(Direction::kRequest, frame, Wanting(keys, partial)),
                  std::nullopt);
      }
    }
  }
  // What is not read is not judged.
  const Decoded d = Decode(Direction::kRequest, Request("\x40"), Wanting({}));
  EXPECT_EQ(d.result.status, ResultStatus::kMessage);
}

TEST(DubboCodec, LeavesMutationsOutWhereNothingCanCarryThem) {
  const std::string error = Frame(2, 60, 1, Text("no"));
  EXPECT_EQ(EncodeAll(Decode(Direction::kResponse, error), error, Set("a", "1")).size(),
            error.size());
  const std::string kryo = Frame(kTwoWayRequest | 8, 0, 1, "opaque");
  EXPECT_EQ(EncodeAll(DecodeRequest(kryo), kryo, Set("a", "1")).substr(16), "opaque");
  const std::string reference = Request(HeadBody("2.0.2", "Ljava/util/Map;") + "HZQ\x90");
  EXPECT_EQ(EncodeAll(DecodeRequest(reference), reference, Set("a", "1")).size(), reference.size());
}

TEST(DubboCodec, ReadsAndRewritesFastjson) {
  const std::string head = "\"2.0.2\"\n\"org.Demo\"\nnull\n\"say\\u0048i\"\n\"I[J\"\n1\n[2,3]\n";
  const std::string frame =
      Frame(kTwoWayRequest | 6, 0, 1, head + R"({"a":"1","n":{"x":["}"]},"group":"g\"h"})" + "\n");
  const Decoded d = DecodeRequest(frame);
  ASSERT_EQ(d.result.status, ResultStatus::kMessage) << d.result.error;
  EXPECT_EQ(d.Value("interface"), "org.Demo");
  EXPECT_EQ(d.Value("method"), "sayHi");
  EXPECT_EQ(d.Value("group"), "g\"h");
  EXPECT_EQ(d.Value("service"), "g\"h/org.Demo");
  EXPECT_EQ(d.Value("serialization"), "fastjson");
  EXPECT_EQ(d.Value("n"), "<absent>");
  const Mutation mutation = {{MutationOp::Kind::kSet, "b", "é\n"},
                             {MutationOp::Kind::kRemove, "a", ""},
                             {MutationOp::Kind::kSet, "group", "x"}};
  EXPECT_EQ(EncodeAll(d, frame, mutation).substr(16),
            head + R"({"n":{"x":["}"]},"group":"x","b":"é\u000a"})" + "\n");
}

TEST(DubboCodec, RefusesMalformedFastjson) {
  const std::string head = "\"2.0.2\"\n\"org.Demo\"\n\"1\"\n\"m\"\n\"I\"\n";
  for (const std::string& body :
       {""s, "1\n"s, head.substr(0, 20), head, "null\nnull\nnull\nnull\nnull\n"s, head + "1\n[]\n",
        head + "1\n{\n", head + "1\n{\"a\":\"\\x\"}\n",
        "\"a\"\n\"b\"\n\"c\"\n\"d\"\n\"?\"\n{}\n"s}) {
    EXPECT_EQ(DecodeRequest(Frame(kTwoWayRequest | 6, 0, 1, body)).result.status,
              ResultStatus::kUndecodable)
        << body;
  }
}

TEST(DubboCodec, RewritesFastjsonResponses) {
  const std::string with = Frame(6, 20, 1, "4\n\"x\"\n{\"a\":\"1\"}\r\n");
  EXPECT_EQ(EncodeAll(Decode(Direction::kResponse, with), with, Set("b", "2")).substr(16),
            "4\n\"x\"\n{\"a\":\"1\",\"b\":\"2\"}\r\n");
  const std::string without = Frame(6, 20, 1, "2\n");
  Decoded decoded = Decode(Direction::kResponse, without);
  EXPECT_EQ(EncodeAll(decoded, without, Set("b", "2")).substr(16), "2\n");
  decoded.message.tag |= kTagReadsResponseAttachments;
  EXPECT_EQ(EncodeAll(decoded, without, Set("b", "2")).substr(16), "5\n{\"b\":\"2\"}\n");
}

}  // namespace
}  // namespace metaprotocol::dubbo
