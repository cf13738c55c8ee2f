// What the Dubbo codec reads of requests beyond their head: attachments of any number and writing,
// generic calls, timeouts, and both forms of fastjson.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/cpp/codecs/dubbo/frames.h"
#include "tests/cpp/codecs/dubbo/round_trip.h"
#include "tests/cpp/support/cpu_time.h"
#include "tests/cpp/support/sanitized.h"

namespace metaprotocol::dubbo {
namespace {

using namespace std::string_literals;
using ResultStatus = DecodeResult::Status;

const std::string kGenericTypes = "Ljava/lang/String;[Ljava/lang/String;[Ljava/lang/Object;";

std::string Call(const std::string& method, const std::string& types, const std::string& arguments,
                 const std::string& attachments = "") {
  return Request(Text("2.0.2") + Text("org.Demo") + Text("1.0") + Text(method) + Text(types) +
                 arguments + "H" + attachments + "Z");
}

std::string GenericCall(const std::string& invoke, const std::string& called) {
  return Call(invoke, kGenericTypes, called + "\x70\x90" + "\x70\x90");
}

std::string Of(const std::string& frame, std::string_view key) {
  const Decoded decoded = Decode(Direction::kRequest, frame, Wanting({key}));
  EXPECT_EQ(decoded.result.status, ResultStatus::kMessage) << decoded.result.error;
  return decoded.Value(key);
}

// A JSON value as Dubbo 3's extension writes it.
std::string WithLength(const std::string& json) {
  std::string out;
  AppendBe32(out, static_cast<uint32_t>(json.size()));
  return out + json;
}
std::string Fastjson(const std::vector<std::string>& values, bool lengths) {
  std::string body;
  for (const std::string& value : values) body += lengths ? WithLength(value) : value + "\n";
  return Frame(kTwoWayRequest | 6, 0, 7, body);
}

TEST(DubboRequest, TheCalledMethodOfAGenericCallIsItsFirstArgument) {
  EXPECT_EQ(Of(GenericCall("$invoke", Text("sayHello")), "called_method"), "sayHello");
  EXPECT_EQ(Of(GenericCall("$invokeAsync", Text("sayHello")), "called_method"), "sayHello");
  EXPECT_EQ(Of(GenericCall("$invoke", Text("sayHello")), "method"), "$invoke");
  EXPECT_EQ(Of(Call("sayHello", "I", "\x90"), "called_method"), "sayHello");
  EXPECT_EQ(Of(GenericCall("say", Text("other")), "called_method"), "say");
}

TEST(DubboRequest, TheCalledMethodIsWhatTheServerMakesOfIt) {
  // GenericFilter trims the name, so blanks around it do not lead past a rule.
  EXPECT_EQ(Of(GenericCall("$invoke", Text(" \t sayHello\n")), "called_method"), "sayHello");
  EXPECT_EQ(Of(GenericCall("$invoke", "R\0\3say"s + "\5Hello"), "called_method"), "sayHello");
  // With another number of arguments it is a method like any other.
  EXPECT_EQ(Of(Call("$invoke", "Ljava/lang/String;", Text("sayHello")), "called_method"),
            "$invoke");
  EXPECT_EQ(Of(GenericCall("$invoke", "\x90"), "called_method"), "$invoke");
}

// However the client writes it, or a rule for the called method would be passed by.
TEST(DubboRequest, AGenericCallIsOneInEveryWayToWriteItsName) {
  const std::string head = Text("2.0.2") + Text("org.Demo") + Text("1");
  const std::string tail = Text(kGenericTypes) + Text("sayHello") + "\x70\x90\x70\x90HZ";
  for (const std::string& method : {Text("$invoke"), "R\0\3$in"s + "\4voke"}) {
    EXPECT_EQ(Of(Request(head + method + tail), "called_method"), "sayHello");
  }
  const std::string escaped =
      Fastjson({"\"2.0.2\"", "\"org.Demo\"", "\"1\"", "\"\\u0024invoke\"",
                '"' + kGenericTypes + '"', "\"sayHello\"", "[]", "[]", "{}"},
               false);
  EXPECT_EQ(Of(escaped, "called_method"), "sayHello");
}

TEST(DubboRequest, TheCalledMethodNeedsNoMoreThanTheFirstArgument) {
  const std::string frame =
      Call("$invoke", kGenericTypes, Text("sayHello") + "\x70\x90" + Text(std::string(9000, 'x')));
  const DecodeOptions options = Wanting({"called_method"}, true);
  const Decoded decoded = Decode(Direction::kRequest, frame.substr(0, 200), options);
  ASSERT_EQ(decoded.result.status, ResultStatus::kMessage);
  EXPECT_EQ(decoded.Value("called_method"), "sayHello");
  EXPECT_EQ(CheckIncremental(Direction::kRequest, frame, options), std::nullopt);
}

TEST(DubboRequest, FastjsonHasGenericCallsToo) {
  for (const bool lengths : {false, true}) {
    const std::string frame =
        Fastjson({"\"2.0.2\"", "\"org.Demo\"", "\"1\"", "\"$invoke\"", '"' + kGenericTypes + '"',
                  "\"sayHello\"", "[]", "[]", "{}"},
                 lengths);
    EXPECT_EQ(Of(frame, "called_method"), "sayHello");
  }
}

TEST(DubboRequest, SeesEveryAttachmentHoweverManyThereAre) {
  std::string fillers;
  for (int i = 0; i < 5000; ++i) fillers += Text("filler" + std::to_string(i)) + Text("");
  const std::string frame = Call("m", "", "", fillers + Text("tenant") + Text("evil"));
  EXPECT_EQ(Of(frame, "tenant"), "evil");
  EXPECT_EQ(Of(frame, "filler4999"), "");
}

TEST(DubboRequest, AttachmentsAreFoundInAnyCaseAndExactlyWrittenOnesFirst) {
  EXPECT_EQ(Of(Call("m", "", "", Text("batchjob") + Text("1")), "BatchJob"), "1");
  EXPECT_EQ(Of(Call("m", "", "", Text("BatchJob") + Text("1") + Text("batchjob") + Text("2")),
               "BatchJob"),
            "1");
  const std::string forged = Text("Method") + Text("x") + Text("SERVICE") + Text("x");
  EXPECT_EQ(Of(Call("m", "", "", forged), "method"), "m");
  EXPECT_EQ(Of(Call("m", "", "", forged), "Method"), "m");
  EXPECT_EQ(Of(Call("m", "", "", forged), "service"), "org.Demo:1.0");
}

TEST(DubboRequest, ConvertsValuesThatJavaWritesInHalvesAndPieces) {
  const std::string halves = "\x02\xed\xa0\xbd\xed\xb8\x80";  // one character of two units
  const std::string pieces = "R\0\2ab\2cd"s;                  // two chunks
  const std::string attachments = Text("a") + halves + Text("b") + pieces + Text("a") + pieces;
  EXPECT_EQ(Of(Call("m", "", "", Text("a") + halves), "a"), "😀");
  EXPECT_EQ(Of(Call("m", "", "", attachments), "b"), "abcd");
  EXPECT_EQ(Of(Call("m", "", "", attachments), "a"), "abcd") << "the last of them";
}

// The worst that fits a message: a million attachments, or one value again and again in the form
// that has to be converted. Bytes are what is paid for, with the same few nanoseconds for each.
TEST(DubboRequest, AHostileMapCostsWhatItsBytesCost) {
  const std::string odd = "\x02\xc0\x80\xc0\x80";  // overlong: no view of the wire
  for (const std::string& entry :
       {Text("x") + Text(""), odd + odd, Text("tenant") + odd, Text("TENANT") + odd,
        Text("group") + odd, Text("timeout") + Text("1")}) {
    const auto decoding = [&](size_t bytes) {
      std::string map;
      while (map.size() < bytes) map += entry;
      return [frame = Call("m", "", "", map)] {
        Message message;
        const DecodeOptions options = Wanting({"tenant", "group", "Tenant"});
        ASSERT_EQ(DecodeInto(Direction::kRequest, frame, options, message).status,
                  ResultStatus::kMessage);
      };
    };
    EXPECT_LT(test::GrowthOfUnitCost(size_t{64} << 10, decoding), test::kLinear)
        << testing::PrintToString(entry);
    constexpr size_t kBytes = size_t{4} << 20;
    const double ns = test::LeastCpuNs(1, decoding(kBytes));
    // Sanitizers alone take more than half of that.
    if (!test::kSanitized) {
      EXPECT_LT(ns / static_cast<double>(kBytes), 500) << testing::PrintToString(entry);
    }
  }
}

TEST(DubboRequest, AHeadThatTricklesInIsNotReadAnewForEachByte) {
  std::string chunks;
  for (int i = 0; i < 5000; ++i) chunks += "R\0\1x"s;
  const std::string frame =
      Request(Text("2.0.2") + chunks + "\1x" + Text("1") + Text("m") + Text("") + "HZ");
  const DecodeOptions options = Wanting({"method"}, true);
  size_t tries = 0;
  for (size_t have = kHeaderBytes; have < frame.size(); ++tries) {
    const Decoded decoded = Decode(Direction::kRequest, frame.substr(0, have), options);
    if (decoded.result.status != ResultStatus::kNeedMore) break;
    ASSERT_GT(decoded.result.need, have);
    ASSERT_LE(decoded.result.need, frame.size());
    have = decoded.result.need;
  }
  EXPECT_LT(tries, 700u);
}

TEST(DubboRequest, TellsTheTimeoutThatTheClientSends) {
  const auto timeout = [](const std::string& value, std::vector<std::string_view> keys) {
    const std::string frame =
        Call("m", "I", "\x90", Text("a") + Text("b") + Text("timeout") + value);
    return Decode(Direction::kRequest, frame, Wanting(keys)).message.timeout_us;
  };
  for (const std::vector<std::string_view>& keys :
       {std::vector<std::string_view>{}, {"method"}, {"a"}, {"timeout"}}) {
    EXPECT_EQ(timeout(Text("1500"), keys), 1'500'000u);
    EXPECT_EQ(timeout("\x93", keys), 0u) << "an int, by which dubbo-js means seconds";
    EXPECT_EQ(timeout(Text("soon"), keys), 0u);
    EXPECT_EQ(timeout(Text("-1"), keys), 0u);
    EXPECT_EQ(timeout(Text("99999999999999999999"), keys), 0u);
    EXPECT_EQ(timeout("N", keys), 0u);
  }
  EXPECT_EQ(DecodeRequest(Call("timeout", "", "")).message.timeout_us, 0u);
}

// Dubbo for Java, DubboInvoker.calculateTimeout: an int under "_TO".
TEST(DubboRequest, TellsTheTimeoutUnderItsShortNameToo) {
  const auto timeout = [](const std::string& attachments, std::vector<std::string_view> keys) {
    const std::string frame = Call("m", "I", "\x90", attachments);
    return Decode(Direction::kRequest, frame, Wanting(keys)).message.timeout_us;
  };
  const std::string big("I\x00\x01\x11\x70", 5);  // 70000
  for (const std::vector<std::string_view>& keys :
       {std::vector<std::string_view>{}, {"method"}, {"a"}, {"_TO"}}) {
    EXPECT_EQ(timeout(Text("_TO") + "\xcd\xdc", keys), 1'500'000u);
    EXPECT_EQ(timeout(Text("a") + "N" + Text("_TO") + big, keys), 70'000'000u);
    EXPECT_EQ(timeout(Text("_TO") + Text("1500"), keys), 1'500'000u);
    EXPECT_EQ(timeout(Text("_TO") + "\x8f", keys), 0u) << "negative";
    EXPECT_EQ(timeout(Text("_TO") + "N", keys), 0u);
    EXPECT_EQ(timeout(Text("_to") + Text("1500"), keys), 0u);
    for (const std::string& both : {Text("_TO") + Text("20") + Text("timeout") + Text("1500"),
                                    Text("timeout") + Text("1500") + Text("_TO") + Text("20")}) {
      EXPECT_EQ(timeout(both, keys), 20'000u) << "the call's own";
    }
  }
}

TEST(DubboRequest, AMessageWithoutReplyHasNoTimeout) {
  const std::string call = Call("m", "I", "\x90", Text("timeout") + Text("1500"));
  std::string one_way = call;
  one_way[2] = static_cast<char>(kFlagRequest | 2);
  for (const std::vector<std::string_view>& keys :
       {std::vector<std::string_view>{}, {"method"}, {"a"}}) {
    EXPECT_EQ(Decode(Direction::kRequest, call, Wanting(keys)).message.timeout_us, 1'500'000u);
    EXPECT_EQ(Decode(Direction::kRequest, one_way, Wanting(keys)).message.timeout_us, 0u);
  }
}

TEST(DubboRequest, TakesTheWordForATimeoutOnlyWhereAnAttachmentIsCalledThat) {
  const std::string word =
      "\x07timeout\x01"
      "1";
  const std::string number(1, '\x90');
  const std::string binary = "\x2a" + word;                         // raw bytes
  const std::string map = "H" + Text("timeout") + Text("1") + "Z";  // one inside another
  const auto timeout = [](const std::string& types, const std::string& arguments,
                          const std::string& attachments) {
    const std::string frame = Call("m", types, arguments, attachments);
    return Decode(Direction::kRequest, frame, Wanting({"method"})).message.timeout_us;
  };
  const std::string real = Text("timeout") + Text("1500");
  for (const std::string& argument : {Text(word), binary, map, number}) {
    EXPECT_EQ(timeout("I", argument, Text("a") + Text("b")), 0u);
    EXPECT_EQ(timeout("I", argument, real), 1'500'000u);
    EXPECT_EQ(timeout("I", number, Text("a") + argument + real), 1'500'000u);
    EXPECT_EQ(timeout("I", number, Text("a") + argument), 0u);
    EXPECT_EQ(timeout("I", number, argument + Text("b") + real), 1'500'000u);
  }
  EXPECT_EQ(timeout("", "", Text("a") + Text("timeout")), 0u) << "the word is a value";
  EXPECT_EQ(timeout("", "", Text("a") + Text("timeout") + real), 1'500'000u);
  EXPECT_EQ(timeout("", "", Text(std::string(300, 'k')) + Text("v") + real), 1'500'000u);
  EXPECT_EQ(timeout("", "", Text("k\u00e9") + Text("v") + real), 1'500'000u);
}

// Long requests are searched for the word before their values are read.
TEST(DubboRequest, TellsTheTimeoutWhereverItStandsInALongRequest) {
  const std::string many(600, 'x');
  const std::string real = Text("timeout") + Text("1500");
  const std::string other = Text("a") + Text(many);
  const auto timeout = [](const std::string& arguments, const std::string& attachments) {
    const std::string frame = Call("m", "II", arguments, attachments);
    return Decode(Direction::kRequest, frame, Wanting({"method"})).message.timeout_us;
  };
  for (const std::string& argument : {Text(many), Text(many + "\u00e9"), Text("timeout")}) {
    const std::string arguments = Text(many) + argument;
    EXPECT_EQ(timeout(arguments, real), 1'500'000u);
    EXPECT_EQ(timeout(arguments, real + other), 1'500'000u);
    EXPECT_EQ(timeout(arguments, other + real), 1'500'000u);
    EXPECT_EQ(timeout(arguments, other + Text("\u00e9") + Text("\u00e9") + real), 1'500'000u);
    EXPECT_EQ(timeout(arguments, other + Text("_TO") + "\xcd\xdc" + other), 1'500'000u);
    EXPECT_EQ(timeout(arguments, other + Text("a") + Text("timeout")), 0u);
    EXPECT_EQ(timeout(arguments, other), 0u);
  }
}

// Short messages of plain strings are read in one go, the others piece by piece: who asks for an
// attachment has them all read piece by piece.
TEST(DubboRequest, ReadsTheSameOfAPlainRequestWhicheverWayItIsRead) {
  const std::string real = Text("timeout") + Text("1500");
  const auto check = [](const std::string& frame, uint64_t timeout_us) {
    for (const std::vector<std::string_view>& keys :
         {std::vector<std::string_view>{}, {"method"}, {"called_method"}, {"parameter_types"}}) {
      std::vector<std::string_view> more = keys;
      more.emplace_back("nobody");
      const Decoded usual = Decode(Direction::kRequest, frame, Wanting(keys));
      const Decoded whole = Decode(Direction::kRequest, frame, Wanting(more));
      ASSERT_EQ(usual.result.status, ResultStatus::kMessage);
      EXPECT_EQ(whole.result.status, ResultStatus::kMessage);
      EXPECT_EQ(usual.message.timeout_us, timeout_us);
      EXPECT_EQ(whole.message.timeout_us, timeout_us);
      EXPECT_EQ(usual.message.tag, whole.message.tag);
      for (const std::string_view key : keys) EXPECT_EQ(usual.Value(key), whole.Value(key));
    }
  };
  // Over all forms of a length, and over what is looked at in one go.
  for (size_t length = 0; length < 700; length = length < 40 ? length + 1 : length + 13) {
    SCOPED_TRACE(length);
    const std::string text = Text(std::string(length, 'x'));
    const std::string types = "Ljava/lang/String;I[[J";
    check(Call("m", types, text + "\x90" + text, real), 1'500'000);
    check(Call("m", "Ljava/lang/String;", text, Text("a") + text + real), 1'500'000);
    check(Call("m", "Ljava/lang/String;", text, real + text + Text("b")), 1'500'000);
    check(Call("m", "Ljava/lang/String;", text, Text("a") + text + text + Text("b")), 0);
  }
  for (const std::string& odd : {Text("\u00e9"), "N"s, "T"s, "\x93"s, "R\0\1aS\0\1b"s}) {
    check(Call("m", "Ljava/lang/Object;", odd, real), 1'500'000);
    check(Call("m", "", "", Text("a") + odd + real), 1'500'000);
    check(Call("m", "", "", real + Text("a") + odd), 1'500'000);
  }
  check(Call("m", "", "", "R\0\4timeS\0\3out"s + Text("1500")), 1'500'000);
}

TEST(DubboRequest, WritesAShorterTimeoutInPlaceOfTheClients) {
  const auto attachments = [](const std::string& before, const Mutation& mutation = {}) {
    const std::string frame = Call("m", "", "", before);
    const Decoded decoded = Decode(Direction::kRequest, frame, Wanting({"method"}));
    std::string out;
    const Encoded encoded = DubboCodec().Encode(
        decoded.message, frame, {.id = 7, .mutation = mutation, .timeout_us = 250'001}, out);
    out.append(encoded.Unchanged(frame)).append(encoded.Tail());
    const std::string head = Call("m", "", "");
    return out.substr(head.size() - 1, out.size() - head.size());
  };
  EXPECT_EQ(attachments(Text("timeout") + Text("1500") + Text("a") + Text("b")),
            Text("timeout") + Text("251") + Text("a") + Text("b"));
  EXPECT_EQ(attachments(Text("timeout") + "\x93"), Text("timeout") + "\x93");
  EXPECT_EQ(attachments(Text("_TO") + "\xcd\xdc"), Text("_TO") + Text("251"));
  EXPECT_EQ(attachments(Text("a") + Text("b")), Text("a") + Text("b")) << "it sent none";
  EXPECT_EQ(attachments(Text("timeout") + Text("1500"), Set("timeout", "9")),
            Text("timeout") + Text("9"))
      << "a mutation says it";
}

TEST(DubboRequest, ReadsAndRewritesFastjsonWithLengths) {
  const std::vector<std::string> values = {"\"2.0.2\"",       "\"org.Demo\"", "null",
                                           "\"say\\u0048i\"", "\"I\"",        "1"};
  const auto request = [&](const std::string& attachments) {
    std::vector<std::string> all = values;
    all.push_back(attachments);
    return Fastjson(all, true);
  };
  const std::string frame =
      request("{\"user\":\"ann\",\"timeout\":\"1500\",\"group\":\"g\\u0041\"}");
  const Decoded d = DecodeRequest(frame);
  ASSERT_EQ(d.result.status, ResultStatus::kMessage) << d.result.error;
  EXPECT_EQ(d.Value("method"), "sayHi");
  EXPECT_EQ(d.Value("user"), "ann");
  EXPECT_EQ(d.Value("group"), "gA");
  EXPECT_EQ(d.message.timeout_us, 1'500'000u);
  const std::string out = EncodeAll(d, frame, Set("user", "bob"), 7);
  EXPECT_EQ(out, request("{\"user\":\"bob\",\"timeout\":\"1500\",\"group\":\"g\\u0041\"}"));
  EXPECT_EQ(EncodeAll(d, frame, {}, 7), frame);
  EXPECT_EQ(CheckIncremental(Direction::kRequest, frame, WantingAll()), std::nullopt);
}

TEST(DubboRequest, AnswersFastjsonWithLengthsInKind) {
  const Decoded d = DecodeRequest(Fastjson({"\"2.0.2\""}, true));
  EXPECT_EQ(d.result.status, ResultStatus::kUndecodable);
  const auto body = [&](LocalReply reply) {
    std::string out;
    EXPECT_TRUE(DubboCodec().Reply({7, d.message.tag, ""}, reply, "no", out));
    return out.substr(kHeaderBytes);
  };
  EXPECT_EQ(body(LocalReply::kDenied), WithLength("\"no\""));
  EXPECT_EQ(body(LocalReply::kNoContent), WithLength("2"));
  // The type of a response, and attachments in it.
  const std::string value = WithLength("1") + WithLength("\"x\"");
  const std::string response = Frame(6, 20, 7, value);
  Decoded answered = Decode(Direction::kResponse, response);
  EXPECT_EQ(answered.message.status, ReplyStatus::kOk);
  EXPECT_EQ(Decode(Direction::kResponse, Frame(6, 20, 7, WithLength("0"))).message.status,
            ReplyStatus::kException);
  answered.message.tag |= kTagReadsResponseAttachments;
  EXPECT_EQ(EncodeAll(answered, response, Set("a", "1"), 7).substr(kHeaderBytes),
            WithLength("4") + WithLength("\"x\"") + WithLength("{\"a\":\"1\"}"));
}

TEST(DubboRequest, BrokenFastjsonWithLengthsCostsItsOwnCallOnly) {
  for (const std::string& body :
       {"\0"s, "\0\0\0"s, "\0\0\0\xff\"2.0.2\""s, WithLength("\"2.0.2\"") + "\0\0"s,
        WithLength("7") + WithLength("\"i\"") + WithLength("\"v\"") + WithLength("\"m\"")}) {
    const Decoded d = DecodeRequest(Frame(kTwoWayRequest | 6, 0, 7, body));
    EXPECT_EQ(d.result.status, ResultStatus::kUndecodable) << testing::PrintToString(body);
  }
}

}  // namespace
}  // namespace metaprotocol::dubbo
