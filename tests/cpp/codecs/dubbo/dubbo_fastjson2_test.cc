// fastjson2 bodies (codecs/dubbo/jsonb.h), and requests and responses made of them.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "codecs/dubbo/attachments.h"
#include "codecs/dubbo/jsonb.h"
#include "codecs/dubbo/jsonb_attachments.h"
#include "tests/cpp/codecs/dubbo/frames.h"
#include "tests/cpp/codecs/dubbo/round_trip.h"
#include "tests/cpp/support/cpu_time.h"

namespace metaprotocol::dubbo {
namespace {

using namespace std::string_literals;
using ResultStatus = DecodeResult::Status;

constexpr uint8_t kId = 23;

std::string Str(std::string_view text) {
  std::string out;
  AppendJsonbString(out, text);
  return out;
}

std::string Document(const std::string& jsonb) {
  std::string out;
  AppendBe32(out, static_cast<uint32_t>(jsonb.size()));
  return out + jsonb;
}

std::string Object(const std::string& entries) { return "\xa6" + entries + "\xa5"; }

// A request of one method without parameters.
std::string BodyOf(const std::string& method, const std::string& attachments) {
  return Document(Str("2.0.2")) + Document(Str("org.Demo")) + Document(Str("1.0")) +
         Document(method) + Document(Str("")) + attachments;
}
std::string RequestOf(const std::string& body) { return Frame(kTwoWayRequest | kId, 0, 7, body); }
std::string RequestWith(const std::string& entries) {
  return RequestOf(BodyOf(Str("hello"), Document(Object(entries))));
}

std::string TextOf(const std::string& jsonb) {
  JsonbString string;
  std::string text;
  return JsonbStringOf(jsonb, string) && string.Text(text) ? text : "<unreadable>";
}

TEST(Jsonb, ReadsStringsInEveryForm) {
  EXPECT_EQ(TextOf("\x49"), "");
  EXPECT_EQ(TextOf("\x4b"
                   "ab"),
            "ab");
  EXPECT_EQ(TextOf("\x79\x02"
                   "ab"),
            "ab");
  EXPECT_EQ(TextOf("\x79\x38\x02"
                   "ab"),
            "ab");
  EXPECT_EQ(TextOf("\x79\x44\x00\x02"s + "ab"), "ab");
  EXPECT_EQ(TextOf("\x79\x48\x00\x00\x00\x02"s + "ab"), "ab");
  EXPECT_EQ(TextOf("\x4a\xe9"), "é") << "Latin-1, as its reader has it";
  EXPECT_EQ(TextOf("\x7a\x02\xc3\xa9"), "é");
  EXPECT_EQ(TextOf("\x7c\x06\x3d\xd8\x00\xde\xe9\x00"s), "😀é");
  EXPECT_EQ(TextOf("\x7d\x06\xd8\x3d\xde\x00\x00\xe9"s), "😀é");
  EXPECT_EQ(TextOf("\x7b\x02\x00\xe9"s), "é");
  EXPECT_EQ(TextOf("\x7b\x04\xff\xfe\xe9\x00"s), "é");
  EXPECT_EQ(TextOf("\x7d\x02\xd8\x3d"), "\xef\xbf\xbd") << "half a pair";
}

TEST(Jsonb, RefusesStringsThatNobodyCanRead) {
  for (const std::string& broken : {""s, "\x4b"s + "a", "\x79"s, "\x79\x02"s + "a", "\x79\xff"s,
                                    "\x7a\x02\xc1\xa1"s, "\x7a\x01\xff"s, "\x7c\x01"s + "a",
                                    "\x7e\x02\xc4\xe3"s, "\x4a"s + "ab", "\xaf"s, "\x05"s}) {
    EXPECT_EQ(TextOf(broken), "<unreadable>");
  }
}

TEST(Jsonb, WritesTheShortestForm) {
  for (const size_t size : {0u, 1u, 47u, 48u, 2047u, 2048u, 262143u, 262144u}) {
    for (const std::string& text : {std::string(size, 'a'), std::string(size, 'a') + "é"}) {
      EXPECT_EQ(TextOf(Str(text)), text);
    }
  }
  EXPECT_EQ(Str("ab"), "\x4b"s + "ab");
  EXPECT_EQ(Str("é"), "\x7a\x02\xc3\xa9");
  EXPECT_EQ(Str("a\xff"), "\x7a\x04"s + "a\xef\xbf\xbd");
  EXPECT_EQ(Str(std::string(300, 'x')).substr(0, 3), "\x79\x39\x2c");
}

TEST(Jsonb, ReadsNumbersInEveryForm) {
  const std::vector<std::pair<std::string, int32_t>> numbers = {
      {"\x00"s, 0},
      {"\x2f"s, 47},
      {"\xf0"s, -16},
      {"\xff"s, -1},
      {"\x38\x30"s, 48},
      {"\x30\x00"s, -2048},
      {"\x3f\xff"s, 2047},
      {"\x44\x08\x00"s, 2048},
      {"\x40\x00\x00"s, -262144},
      {"\x47\xff\xff"s, 262143},
      {"\x48\x80\x00\x00\x00"s, INT32_MIN},
      {"\xbd\x80"s, -128},
      {"\xbc\x80\x00"s, -32768}};
  for (const auto& [bytes, value] : numbers) {
    JsonbReader reader(bytes);
    int32_t read = 0;
    EXPECT_TRUE(reader.ReadInt(read));
    EXPECT_EQ(read, value);
    EXPECT_TRUE(reader.AtEnd());
  }
  for (const std::string& other : {"\x49"s, "\xe0"s, "\xbe"s, "\x38"s, "\xaf"s, ""s}) {
    JsonbReader reader(other);
    int32_t read = 0;
    EXPECT_FALSE(reader.ReadInt(read));
  }
}

TEST(Jsonb, StepsOverEveryKindOfValue) {
  const std::vector<std::string> values = {"\x90\x38\x41"s,
                                           "\x91\x03"s + "abc",
                                           "\x93\x4a$",
                                           "\x94",
                                           "\x96\x01\x02",
                                           "\xa4\x02\x01\x02",
                                           "\xa5"s.insert(0, "\xa6"),
                                           Object(Str("k") + Object(Str("l") + "\xaf")),
                                           "\xa7\x01\x02\x03\x00"s,
                                           "\xa8"s + "1234567" + "\x38\x10",
                                           "\xa9"s + "1234",
                                           "\xaa"s + "1234567" + "\x00"s + Str("Z"),
                                           "\xab"s + "12345678",
                                           "\xac"s + "1234",
                                           "\xad"s + "1234",
                                           "\xae"s + "12345678" + "\x00"s,
                                           "\xaf",
                                           "\xb0",
                                           "\xb1",
                                           "\xb2",
                                           "\xb3",
                                           "\xb4\xe3",
                                           "\xb5"s + "12345678",
                                           "\xb6\x05",
                                           "\xb7"s + "1234",
                                           "\xb8\xe1",
                                           "\xb9\x02\xbb\x02"s + "ab",
                                           "\xb9\x02\x07",
                                           "\xba\xc8\x01",
                                           "\xbb\x02"s + "ab",
                                           "\xbc"s + "ab",
                                           "\xbd"s + "a",
                                           "\xbe"s + "12345678",
                                           "\xbf"s + "1234",
                                           "\xc4"s + "ab",
                                           "\xd0"s + "a",
                                           "\xe0",
                                           "\x7f\x4c"s + "abc" + "\x03",
                                           "\x7f\x03",
                                           "\x92\x4b[O" + "\x00"s + "\x95\x01",
                                           "\x92\x05\xa6\x7f\x4a"s + "a" + "\x01\x02\xa5"};
  for (const std::string& value : values) {
    JsonbReader reader(value);
    EXPECT_TRUE(reader.SkipValue()) << testing::PrintToString(value);
    EXPECT_TRUE(reader.AtEnd()) << testing::PrintToString(value);
    for (size_t cut = 0; cut < value.size(); ++cut) {
      const std::string part = value.substr(0, cut);
      EXPECT_FALSE(JsonbReader(part).SkipValue()) << testing::PrintToString(value) << cut;
    }
  }
}

TEST(Jsonb, BoundsDepthAndCounts) {
  const std::string deep = std::string(kMaxJsonbDepth, '\x95') + "\xaf";
  EXPECT_TRUE(JsonbReader(deep).SkipValue());
  EXPECT_FALSE(JsonbReader("\x95" + deep).SkipValue());
  EXPECT_FALSE(JsonbReader("\xa4\x48\x7f\xff\xff\xff\x01").SkipValue()) << "more than there is";
  EXPECT_FALSE(JsonbReader("\xa4\xff\x01").SkipValue());
}

TEST(DubboFastjson2, ShowsHeadAndAttachments) {
  const Decoded d = DecodeRequest(RequestWith(Str("group") + Str("blue") + Str("user") +
                                              Str("zoë 😀") + Str("n") + "\x05" + "\xaf\xaf"));
  ASSERT_EQ(d.result.status, ResultStatus::kMessage) << d.result.error;
  EXPECT_EQ(d.Value("interface"), "org.Demo");
  EXPECT_EQ(d.Value("method"), "hello");
  EXPECT_EQ(d.Value("called_method"), "hello");
  EXPECT_EQ(d.Value("version"), "1.0");
  EXPECT_EQ(d.Value("group"), "blue");
  EXPECT_EQ(d.Value("service"), "blue/org.Demo:1.0");
  EXPECT_EQ(d.Value("serialization"), "fastjson2");
  EXPECT_EQ(d.Value("user"), "zoë 😀");
  EXPECT_EQ(d.Value("n"), "<absent>");
  EXPECT_FALSE(d.message.metadata.unread());
}

TEST(DubboFastjson2, TheLastOfSeveralAttachmentsCounts) {
  EXPECT_EQ(DecodeRequest(RequestWith(Str("a") + Str("1") + Str("a") + Str("2"))).Value("a"), "2");
}

// What the server may read as another text than we do, or where we read none, is refused: a denial
// by that text would be passed by otherwise.
TEST(DubboFastjson2, RefusesWhatCouldHideAText) {
  const std::string gb18030 = "\x7e\x02\xc4\xe3";
  for (const std::string& entries :
       {Str("user") + gb18030, gb18030 + Str("evil"), Str("user") + "\x7a\x02\xc1\xa1",
        Str("user") + "\x93" + Str("$.other"), Str("user") + "\x7f\x03",
        Str("user") + "\x92" + Str("java.lang.String") + "\x00"s + Str("evil"),
        Str("user") + "\x90\x38\x41", "\x7f\x03" + Str("evil"), "\x93" + Str("$.x") + Str("evil"),
        "\x92" + Str("java.lang.String") + "\x00"s + Str("user") + Str("evil")}) {
    const Decoded d = DecodeRequest(RequestWith(entries));
    EXPECT_EQ(d.result.status, ResultStatus::kUndecodable) << testing::PrintToString(entries);
  }
  for (const std::string& method : {gb18030, "\x7f\x4c"s + "abc" + "\x00"s, "\x05"s,
                                    "\x93"s + Str("$"), Str("hello") + Str("other")}) {
    EXPECT_EQ(DecodeRequest(RequestOf(BodyOf(method, ""))).result.status,
              ResultStatus::kUndecodable);
  }
  // Nobody asks for it: passed on.
  const Decoded d =
      Decode(Direction::kRequest, RequestWith(Str("user") + gb18030), Wanting({"group"}));
  EXPECT_EQ(d.result.status, ResultStatus::kMessage);
}

TEST(DubboFastjson2, ASymbolAsKeyIsItsName) {
  const Decoded d = DecodeRequest(RequestWith("\x7f"s + Str("user") + "\x00"s + Str("u")));
  EXPECT_EQ(d.Value("user"), "u");
}

TEST(DubboFastjson2, TakesOldClientsWithoutAttachments) {
  for (const std::string& attachments : {""s, Document("\xaf"), Document(Object(""))}) {
    const Decoded d = DecodeRequest(RequestOf(BodyOf(Str("hello"), attachments)));
    EXPECT_EQ(d.result.status, ResultStatus::kMessage) << d.result.error;
    EXPECT_EQ(d.Value("group"), "<absent>");
  }
}

TEST(DubboFastjson2, KnowsTheMethodThatAGenericCallMeans) {
  const auto generic = [](const std::string& method, const std::string& called) {
    return RequestOf(Document(Str("2.0.2")) + Document(Str("org.Demo")) + Document(Str("1.0")) +
                     Document(method) +
                     Document(Str("Ljava/lang/String;[Ljava/lang/String;[Ljava/lang/Object;")) +
                     Document(Str(called)) + Document("\x94") + Document("\x94") +
                     Document(Object("")));
  };
  // "$invoke" in UTF-16 is the same method.
  const std::string utf16 = "\x7d\x0e"s + "\0$\0i\0n\0v\0o\0k\0e"s;
  for (const std::string& method : {Str("$invoke"), Str("$invokeAsync"), utf16}) {
    for (const auto& keys : {std::vector<std::string_view>{"called_method"},
                             std::vector<std::string_view>{"called_method", "group"}}) {
      EXPECT_EQ(Decode(Direction::kRequest, generic(method, " deleteAll\t"), Wanting(keys))
                    .Value("called_method"),
                "deleteAll");
    }
  }
}

TEST(DubboFastjson2, ReadsTimeoutsWhoeverAsks) {
  const std::string entries = Str("timeout") + Str("5000");
  for (const auto& keys : {std::vector<std::string_view>{"method"},
                           std::vector<std::string_view>{"method", "group"}}) {
    const DecodeOptions options = Wanting(keys, true);
    EXPECT_EQ(Decode(Direction::kRequest, RequestWith(entries), options).message.timeout_us,
              5'000'000u);
    EXPECT_EQ(Decode(Direction::kRequest, RequestWith(entries + Str("_TO") + "\x2a"), options)
                  .message.timeout_us,
              42'000u);
    EXPECT_EQ(Decode(Direction::kRequest, RequestWith(Str("timeout") + "\x03"), options)
                  .message.timeout_us,
              0u);
  }
  const std::string frame = RequestWith(entries);
  Message message;
  ASSERT_EQ(DecodeInto(Direction::kRequest, frame, Wanting({"method"}), message).status,
            ResultStatus::kMessage);
  std::string out;
  const size_t used =
      DubboCodec().Encode(message, frame, {.id = 7, .timeout_us = 250'000}, out).head;
  out.append(Bytes(frame).substr(used));
  EXPECT_EQ(Decode(Direction::kRequest, out).Value("timeout"), "250");
}

TEST(DubboFastjson2, NeedsOnlyTheHeadForKeysInIt) {
  const std::string body = Document(Str("2.0.2")) + Document(Str("org.Demo")) +
                           Document(Str("1.0")) + Document(Str("hello")) + Document(Str("[B")) +
                           Document("\x91\x44\x80\x00"s + std::string(32768, 'x'));
  const std::string frame = RequestOf(body);
  const Decoded d =
      Decode(Direction::kRequest, frame.substr(0, 100), Wanting({"interface", "method"}, true));
  ASSERT_EQ(d.result.status, ResultStatus::kMessage);
  EXPECT_EQ(d.Value("method"), "hello");
  EXPECT_EQ(CheckIncremental(Direction::kRequest, frame, Wanting({"method"}, true)), std::nullopt);
  EXPECT_EQ(CheckIncremental(Direction::kRequest, frame, WantingAll()), std::nullopt);
}

const Mutation kMutation = {{MutationOp::Kind::kSet, "user", "neu é"},
                            {MutationOp::Kind::kRemove, "group", ""},
                            {MutationOp::Kind::kAddIfAbsent, "added", "1"}};

std::string Mutated(const std::string& frame, const Mutation& mutation = kMutation) {
  Message message;
  EXPECT_EQ(DecodeInto(Direction::kRequest, frame, Wanting({"method"}), message).status,
            ResultStatus::kMessage);
  std::string out;
  const size_t used =
      DubboCodec().Encode(message, frame, {.id = 7, .mutation = mutation}, out).head;
  return out.append(Bytes(frame).substr(used));
}

TEST(DubboFastjson2, ChangesAttachmentsAndNothingElse) {
  EXPECT_EQ(Mutated(RequestWith(Str("a") + "\x05" + Str("user") + Str("old") + Str("group") +
                                Object(Str("x") + Str("y")) + Str("z") + Str("z"))),
            RequestWith(Str("a") + "\x05" + Str("user") + Str("neu é") + Str("z") + Str("z") +
                        Str("added") + Str("1")));
  // The type of the map stays.
  const std::string type = "\x92" + Str("java.util.TreeMap") + "\x00"s;
  EXPECT_EQ(Mutated(RequestOf(BodyOf(Str("m"), Document(type + Object(Str("group") + Str("b")))))),
            RequestOf(BodyOf(Str("m"), Document(type + Object(Str("user") + Str("neu é") +
                                                              Str("added") + Str("1"))))));
  const std::string fresh = RequestOf(
      BodyOf(Str("m"), Document(Object(Str("user") + Str("neu é") + Str("added") + Str("1")))));
  EXPECT_EQ(Mutated(RequestOf(BodyOf(Str("m"), ""))), fresh);
  EXPECT_EQ(Mutated(RequestOf(BodyOf(Str("m"), Document("\xaf")))), fresh);
}

TEST(DubboFastjson2, LeavesEntriesThatOthersMayReferTo) {
  const std::string bean =
      "\x92" + Str("demo.Bean") + "\x00"s + Object("\x7f" + Str("a") + "\x01\x05");
  const std::string frame =
      RequestWith(Str("group") + bean + Str("other") + "\x93" + Str("$.group"));
  const std::string mutated = Mutated(frame);
  EXPECT_NE(mutated.find(bean), std::string::npos);
  EXPECT_NE(mutated.find("neu é"), std::string::npos);
  const Mutation required = {{MutationOp::Kind::kRemove, "group", "", true}};
  for (const bool referred : {true, false}) {
    const std::string request =
        RequestWith(Str("group") + (referred ? bean + Str("other") + "\x93" + Str("$.group")
                                             : Str("b") + Str("other") + Str("x")));
    Message message;
    DecodeInto(Direction::kRequest, request, WantingAll(), message);
    std::string out;
    const Encoded encoded =
        DubboCodec().Encode(message, request, {.id = 9, .mutation = required}, out);
    EXPECT_EQ(encoded.impossible, referred);
  }
  // Broken attachments are passed on as they are.
  const std::string broken = RequestOf(BodyOf(Str("m"), Document("\xa6" + Str("user"))));
  EXPECT_EQ(Mutated(broken), broken);
}

TEST(DubboFastjson2, ReadsAndChangesResponses) {
  const auto response = [](const std::string& body) { return Frame(kId, 20, 7, body); };
  const std::map<std::string, ReplyStatus> types = {
      {"\xbd\x00"s, ReplyStatus::kException}, {"\xbd\x03"s, ReplyStatus::kException},
      {"\xbd\x01"s, ReplyStatus::kOk},        {"\x04"s, ReplyStatus::kOk},
      {"\xbd\x06"s, ReplyStatus::kError},     {"\x49"s, ReplyStatus::kError}};
  for (const auto& [type, status] : types) {
    EXPECT_EQ(
        Decode(Direction::kResponse, response(Document(type) + Document(Str("v")))).message.status,
        status);
  }
  const std::string value = Document(Str("v"));
  const auto mutated = [&](const std::string& frame, bool reads) {
    Message message;
    DecodeInto(Direction::kResponse, frame, WantingAll(), message);
    if (reads) message.tag |= kTagReadsResponseAttachments;
    const Mutation set = {{MutationOp::Kind::kSet, "k", "v"}};
    std::string out;
    const size_t used = DubboCodec().Encode(message, frame, {.id = 7, .mutation = set}, out).head;
    return out.append(Bytes(frame).substr(used));
  };
  const std::string plain = response(Document("\xbd\x01") + value);
  EXPECT_EQ(mutated(plain, false), plain);
  EXPECT_EQ(mutated(plain, true),
            response(Document("\xbd\x04") + value + Document(Object(Str("k") + Str("v")))));
  EXPECT_EQ(
      mutated(response(Document("\x05") + Document(Object(Str("a") + Str("b")))), false),
      response(Document("\x05") + Document(Object(Str("a") + Str("b") + Str("k") + Str("v")))));
}

// A client's best inputs: nothing costs more than its bytes.
TEST(DubboFastjson2, CostIsLinearInTheBytes) {
  for (const std::string& entry :
       {"\x49"s, "\x49\x94"s, "\x7f\x4a"s + "k" + "\x05\x93\x4a$", "\xa6"s}) {
    const auto decoding_and_encoding = [&](size_t bytes) {
      std::string entries;
      while (entries.size() < bytes) entries += entry;
      return [frame = RequestWith(entries)] {
        Message message;
        DecodeInto(Direction::kRequest, frame, Wanting({"group"}), message);
        Message head;
        ASSERT_EQ(DecodeInto(Direction::kRequest, frame, Wanting({"method"}), head).status,
                  ResultStatus::kMessage);
        std::string out;
        DubboCodec().Encode(head, frame, {.id = 1, .mutation = kMutation}, out);
        EXPECT_LE(out.size(), frame.size() + 100);
      };
    };
    EXPECT_LT(test::GrowthOfUnitCost(size_t{64} << 10, decoding_and_encoding), test::kLinear)
        << testing::PrintToString(entry);
    decoding_and_encoding(size_t{4} << 20)();
  }
}

}  // namespace
}  // namespace metaprotocol::dubbo
