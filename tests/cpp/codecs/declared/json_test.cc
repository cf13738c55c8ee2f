// Declared protocols whose heads are JSON.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <utility>
#include <vector>

#include "codecs/declared/json_text.h"
#include "src/codec/conformance.h"
#include "tests/cpp/codecs/declared/declarations.h"
#include "tests/cpp/codecs/declared/seen.h"

namespace metaprotocol::declared {
namespace {

using Status = DecodeResult::Status;

std::string JsonFrame(const std::string& head, const std::string& body = "body") {
  return Be32(2 + head.size() + body.size()) + Be16(head.size()) + head + body;
}

const std::shared_ptr<const DeclaredCodec>& Json() {
  static const auto codec = Make(kJson);
  return codec;
}

class JsonSeen : public Seen {
 public:
  explicit JsonSeen(std::string wire, Direction direction = Direction::kRequest)
      : Seen(*Json(), direction, std::move(wire)) {}
};

Status StatusOf(const std::string& head) { return JsonSeen(JsonFrame(head)).result.status; }

TEST(DeclaredJsonTest, MembersAreFieldsByTheirNames) {
  const JsonSeen seen(JsonFrame(R"( {"more": [1, {"id": 8}], "id" : 7,
      "call": {"timeout": 250, "tags": {"user": "ann", "age": 41, "vip": true, "not": null},
               "method": "get"}, "flags": 1, "status": 5} )"));
  ASSERT_EQ(seen.result.status, Status::kMessage) << seen.result.error;
  EXPECT_EQ(seen.message.kind, MessageKind::kRequest);
  EXPECT_EQ(seen.message.id, 7u);
  EXPECT_EQ(seen.message.timeout_us, 250'000u);
  EXPECT_EQ(seen.Find("method"), "get");
  EXPECT_EQ(seen.Find("flags"), "1");
  EXPECT_EQ(seen.Find("status"), "bad");
  EXPECT_EQ(seen.Find("user"), "ann");
  EXPECT_EQ(seen.Find("age"), "41");
  EXPECT_EQ(seen.Find("vip"), "true");
  EXPECT_EQ(seen.Find("not"), "(absent)");
  EXPECT_EQ(seen.Find("text"), "(absent)");
}

TEST(DeclaredJsonTest, BitsOfAMemberTellKinds) {
  EXPECT_EQ(JsonSeen(JsonFrame(R"({"id":1,"flags":2})")).message.kind, MessageKind::kOneWay);
  EXPECT_EQ(JsonSeen(JsonFrame(R"({"id":1,"flags":-1})")).message.kind, MessageKind::kOneWay);
  EXPECT_EQ(JsonSeen(JsonFrame(R"({"id":1,"flags":4})")).message.kind, MessageKind::kHeartbeat);
  EXPECT_EQ(JsonSeen(JsonFrame(R"({"id":1,"debug":{}})")).message.kind, MessageKind::kOther);
  EXPECT_EQ(JsonSeen(JsonFrame(R"({"id":1,"debug":null})")).message.kind, MessageKind::kRequest);
}

TEST(DeclaredJsonTest, TextsAreWhatTheirEscapesSay) {
  const JsonSeen seen(
      JsonFrame(R"({"\u0069d":1,"call":{"method":"a\"\\\/\b\f\r\t\u00e4\ud83d\ude00é",)"
                R"("t\u0061gs":{"k\u0001":"v\u0002","plain":"\u0041"}}})"));
  ASSERT_EQ(seen.result.status, Status::kMessage) << seen.result.error;
  EXPECT_EQ(seen.message.id, 1u);
  EXPECT_EQ(seen.Find("method"), "a\"\\/\b\f\r\t\xc3\xa4\xf0\x9f\x98\x80\xc3\xa9");
  EXPECT_EQ(seen.Find("k\x01"), "v\x02");
  EXPECT_EQ(seen.Find("plain"), "A");
  // So are those that rules compare.
  const JsonSeen other(JsonFrame(R"({"id":1,"call":{"method":"none \u0022at\" all"}})"));
  EXPECT_EQ(other.message.kind, MessageKind::kOther);
  // A character that is not to be there hides behind no escape.
  EXPECT_EQ(StatusOf(R"({"id":1,"text":"a\nb"})"), Status::kUndecodable);
  EXPECT_EQ(StatusOf(R"({"id":1,"text":"a\u000ab"})"), Status::kUndecodable);
  EXPECT_EQ(StatusOf(R"({"id":1,"text":"a\\nb"})"), Status::kMessage);
}

TEST(DeclaredJsonTest, OnlyStrictJsonInUtf8IsTaken) {
  EXPECT_EQ(StatusOf(R"({"id":1})"), Status::kMessage);
  for (const char* const more : {R"(,)",
                                 R"(,"a")",
                                 R"(,"a":)",
                                 R"(,"a":1,)",
                                 R"(,'a':1)",
                                 R"(,a:1)",
                                 R"(,"a":01)",
                                 R"(,"a":+1)",
                                 R"(,"a":1.)",
                                 R"(,"a":.5)",
                                 R"(,"a":1e)",
                                 R"(,"a":NaN)",
                                 R"(,"a":tru)",
                                 R"(,"a":"\x41")",
                                 R"(,"a":"\u12g4")",
                                 R"(,"a":"\ud800")",
                                 R"(,"a":"\udc00")",
                                 R"(,"a":"\ud800\u0041")",
                                 "/**/,\"a\":1",
                                 R"(,"a":[1,])",
                                 R"(,"a":[1 2])",
                                 R"(,"a":{1:2})",
                                 R"(,"a":[})",
                                 "}",
                                 "} x",
                                 ",\"a\":\"\n\"",
                                 ",\"a\":\"\x01\"",
                                 ",\"a\":\"\xff\"",
                                 ",\"a\":\"\xc0\xaf\"",
                                 ",\"\xed\xa0\x80\":1"}) {
    EXPECT_EQ(StatusOf(std::string(R"({"id":1)") + more + "}"), Status::kUndecodable) << more;
  }
  for (const char* const head :
       {"", " ", "{", "[]", "7", R"("id")", "null", "\xef\xbb\xbf{\"id\":1}"}) {
    EXPECT_EQ(StatusOf(head), Status::kUndecodable) << head;
  }
  for (const char* const more : {R"("a":-0)", R"("a":1.5e+10)", R"("a":[[],{},[1,{"b":[]}]])",
                                 R"("a":"\ud834\udd1e")", "\"a\" :\r\n\t1 "}) {
    EXPECT_EQ(StatusOf(std::string(R"({"id":1,)") + more + "}"), Status::kMessage) << more;
  }
}

TEST(DeclaredJsonTest, ValuesNestAsDeepAsPeersWouldAndNoDeeper) {
  const auto nested = [](int depth) {
    return StatusOf(R"({"id":1,"a":)" + std::string(depth, '[') + std::string(depth, ']') + "}");
  };
  EXPECT_EQ(nested(kMaxJsonDepth), Status::kMessage);
  EXPECT_EQ(nested(kMaxJsonDepth + 1), Status::kUndecodable);
}

TEST(DeclaredJsonTest, NumbersAreIntegersThatFit) {
  for (const char* const id : {"0", "-1", "2147483647", "-2147483648"}) {
    EXPECT_EQ(StatusOf(std::string(R"({"id":)") + id + "}"), Status::kMessage) << id;
  }
  for (const char* const id : {"1.0", "1e3", "2147483648", "-2147483649", "\"1\"", "true", "[1]",
                               "99999999999999999999999999999999"}) {
    EXPECT_EQ(StatusOf(std::string(R"({"id":)") + id + "}"), Status::kUndecodable) << id;
  }
  const auto timeout = [](const char* number) {
    return StatusOf(std::string(R"({"id":1,"call":{"timeout":)") + number + "}}");
  };
  EXPECT_EQ(timeout("18446744073709551615"), Status::kMessage);
  EXPECT_EQ(timeout("18446744073709551616"), Status::kUndecodable);
  EXPECT_EQ(timeout("-1"), Status::kUndecodable);
  const auto flags = [](const char* number) {
    return StatusOf(std::string(R"({"id":1,"flags":)") + number + "}");
  };
  EXPECT_EQ(flags("9223372036854775807"), Status::kMessage);
  EXPECT_EQ(flags("9223372036854775808"), Status::kUndecodable);
  EXPECT_EQ(flags("-9223372036854775808"), Status::kMessage);
  EXPECT_EQ(flags("-9223372036854775809"), Status::kUndecodable);
}

TEST(DeclaredJsonTest, WhatReadersTakeInDifferentWaysIsRefusedAndAnswered) {
  for (const char* const more :
       {R"("id":8)", R"("\u0069d":8)", R"("call":{},"call":{})", R"("Id":8)", R"("i_d":8)",
        R"("I-D":8)", R"("call":{"method":"a","method":"b"})", R"("call":{"Method":"a"})",
        R"("call":5)", R"("call":{"method":5})", R"("call":{"tags":{"a":[]}})",
        R"("call":{"tags":{"a":{}}})", R"("call":{"tags":[]})", R"("call":null,"call":{})"}) {
    const JsonSeen seen(JsonFrame(std::string(R"({"id":7,)") + more + "}"));
    EXPECT_EQ(seen.result.status, Status::kUndecodable) << more;
    EXPECT_EQ(seen.message.kind, MessageKind::kRequest) << more;
    EXPECT_EQ(seen.message.id, 7u) << more;
  }
  // What is not known may be there as often as it likes.
  EXPECT_EQ(StatusOf(R"({"id":7,"a":1,"a":2,"call":{"tags":{"Tags":"1","k":"1","k":"2"}}})"),
            Status::kMessage);
}

TEST(DeclaredJsonTest, OfEntriesTheLastCounts) {
  const JsonSeen seen(JsonFrame(R"({"id":1,"call":{"tags":{"user":"ann","us\u0065r":"bob"}}})"));
  MetadataKeys keys(seen.codec->traits().metadata_keys);
  const uint32_t slot = keys.Want("user");
  Message message;
  message.Clear(&keys);
  DecodeOptions options;
  options.interest = seen.codec->InterestIn(keys);
  ASSERT_EQ(seen.codec->Decode(nullptr, Direction::kRequest, seen.bytes, options, message).status,
            Status::kMessage);
  EXPECT_EQ(message.metadata.Get(slot), "bob");
}

TEST(DeclaredJsonTest, WithoutAnIdNobodyCanBeAnswered) {
  for (const char* const head : {"{}", R"({"id":null})", R"({"id":"1"})", R"({"flags":2})"}) {
    const JsonSeen seen(JsonFrame(head));
    EXPECT_EQ(seen.result.status, Status::kUndecodable) << head;
    EXPECT_EQ(seen.message.kind, MessageKind::kOther) << head;
    EXPECT_EQ(seen.message.length, seen.bytes.size());
  }
}

TEST(DeclaredJsonTest, AnotherIdChangesItsDigitsAndTheLengthsAroundThem) {
  const std::string before = R"( {"a":"\u0041\/" , "id" :  )";
  const std::string after = R"(,"call":{ "method":"x"} } )";
  const JsonSeen seen(JsonFrame(before + "7" + after));
  EXPECT_EQ(seen.Written({.id = 123456}), JsonFrame(before + "123456" + after));
  EXPECT_EQ(seen.Written({.id = 7}), seen.bytes);
  // 32 bits, as readers have them.
  EXPECT_EQ(seen.Written({.id = 0xffffffff}), JsonFrame(before + "-1" + after));
  const JsonSeen negative(JsonFrame(before + "-2" + after));
  EXPECT_EQ(negative.message.id, 0xfffffffeu);
  EXPECT_EQ(negative.Written({.id = 0}), JsonFrame(before + "0" + after));
  // The rest of a message that is not there yet does not matter.
  JsonSeen part(seen.bytes + std::string(100, 'x'));
  part.bytes.resize(seen.bytes.size() - 4);
  EXPECT_EQ(part.Written({.id = 8}), JsonFrame(before + "8" + after).substr(0, part.bytes.size()));
}

TEST(DeclaredJsonTest, AnIdThatNoLengthCanSayIsImpossible) {
  const std::string rest = R"(,"more":")" + std::string(65535 - 18, 'x') + "\"}";
  const JsonSeen seen(JsonFrame(R"({"id":1)" + rest));
  ASSERT_EQ(seen.result.status, Status::kMessage) << seen.result.error;
  EXPECT_EQ(seen.Written({.id = 9}), JsonFrame(R"({"id":9)" + rest));
  EXPECT_EQ(seen.Written({.id = 100}), "(impossible)");
}

using Ops = std::vector<MutationOp>;

std::string Mutated(const std::string& head, const Ops& ops, uint64_t timeout_us = 0) {
  const JsonSeen seen(JsonFrame(head));
  EXPECT_EQ(seen.result.status, Status::kMessage) << seen.result.error << head;
  const std::string written =
      seen.Written({.id = seen.message.id, .mutation = ops, .timeout_us = timeout_us});
  EXPECT_EQ(JsonSeen(written).result.status, Status::kMessage) << written;
  const size_t size = LoadBe16(written.data() + 4);
  EXPECT_EQ(LoadBe32(written.data()), 2 + size + 4);
  EXPECT_TRUE(written.ends_with("body"));
  return written.substr(6, size);
}

TEST(DeclaredJsonTest, MutationsChangeWhatTheyNameAndNothingElse) {
  const std::string head =
      R"({ "id":1, "text" : "\u0041" ,"call":{"tags": {"a":"1" , "b" : "2","c":[]} } } )";
  const std::string plain =
      R"({ "id":1, "text" : "\u0041" ,"call":{"tags": {"a":"1" , "b" : "2","c":3} } } )";
  EXPECT_EQ(StatusOf(head), Status::kUndecodable);
  EXPECT_EQ(
      Mutated(plain, {{kSet, "text", "a\"b\\\t\x01/\xc3\xa4"}}),
      R"({ "id":1, "text" : "a\"b\\\u0009\u0001/ä" ,"call":{"tags": {"a":"1" , "b" : "2","c":3} } } )");
  EXPECT_EQ(Mutated(plain, {{kRemove, "text", ""}}),
            R"({ "id":1 ,"call":{"tags": {"a":"1" , "b" : "2","c":3} } } )");
  EXPECT_EQ(
      Mutated(plain, {{kSet, "method", "put"}}),
      R"({ "id":1, "text" : "\u0041" ,"call":{"tags": {"a":"1" , "b" : "2","c":3},"method":"put" } } )");
  EXPECT_EQ(Mutated(plain, {{kRemove, "a", ""}}),
            R"({ "id":1, "text" : "\u0041" ,"call":{"tags": {"b" : "2","c":3} } } )");
  EXPECT_EQ(Mutated(plain, {{kRemove, "b", ""}}),
            R"({ "id":1, "text" : "\u0041" ,"call":{"tags": {"a":"1","c":3} } } )");
  EXPECT_EQ(Mutated(plain, {{kRemove, "c", ""}, {kSet, "a", "x"}, {kSet, "d\"", "y"}}),
            R"({ "id":1, "text" : "\u0041" ,"call":{"tags": {"b" : "2","a":"x","d\"":"y"} } } )");
  EXPECT_EQ(Mutated(plain, {{kRemove, "a", ""}, {kRemove, "b", ""}, {kRemove, "c", ""}}),
            R"({ "id":1, "text" : "\u0041" ,"call":{"tags": {} } } )");
  EXPECT_EQ(Mutated(plain, {{kRemove, "a", ""}, {kRemove, "b", ""}, {kSet, "c", "z"}}),
            R"({ "id":1, "text" : "\u0041" ,"call":{"tags": {"c":"z"} } } )");
  EXPECT_EQ(
      Mutated(plain, {{kAdd, "b", "5"}, {kAdd, "e", "6"}}),
      R"({ "id":1, "text" : "\u0041" ,"call":{"tags": {"a":"1" , "b" : "2","c":3,"e":"6"} } } )");
}

TEST(DeclaredJsonTest, WhatIsNotThereComesToBe) {
  EXPECT_EQ(Mutated(R"({"id":1})", {{kSet, "method", "m"}, {kSet, "k", "v"}}),
            R"({"id":1,"call":{"method":"m","tags":{"k":"v"}}})");
  EXPECT_EQ(Mutated(R"({"id":1,"call":null,"text":null})", {{kSet, "k", "v"}, {kSet, "text", "t"}}),
            R"({"id":1,"call":{"tags":{"k":"v"}},"text":"t"})");
  EXPECT_EQ(Mutated(R"({"id":1,"call":{"tags":null}})", {{kSet, "k", "v"}}),
            R"({"id":1,"call":{"tags":{"k":"v"}}})");
  EXPECT_EQ(Mutated(R"({"id":1,"call":{ "tags":{ }}})", {{kSet, "k", "v"}}),
            R"({"id":1,"call":{ "tags":{"k":"v" }}})");
  EXPECT_EQ(Mutated(R"({"id":1,"call":null})", {{kRemove, "k", ""}, {kRemove, "text", ""}}),
            R"({"id":1,"call":null})");
  EXPECT_EQ(Mutated(R"({"id":1,"call":{"timeout":900}})", {}, 250'000),
            R"({"id":1,"call":{"timeout":250}})");
}

TEST(DeclaredJsonTest, EntriesAreKnownByWhatTheirKeysSay) {
  EXPECT_EQ(Mutated(R"({"id":1,"call":{"tags":{"\u006b":"1","x":"\u0041","k":"2"}}})",
                    {{kSet, "k", "v"}}),
            R"({"id":1,"call":{"tags":{"x":"\u0041","k":"v"}}})");
}

TEST(DeclaredJsonTest, WhatAMessageCannotHoldIsNotWritten) {
  const std::string head = R"({"id":1,"call":{"tags":{"k":"1"}}})";
  EXPECT_EQ(Mutated(head, {{kSet, "k", "\xff"}}), head);
  EXPECT_EQ(Mutated(head, {{kSet, "\xc3", "v"}}), head);
  EXPECT_EQ(Mutated(head, {{kSet, "text", "\xed\xa0\x80"}}), head);
  EXPECT_EQ(Mutated(head, {{kSet, "text", "a\nb"}}), head) << "it must not have line feeds";
}

TEST(DeclaredJsonTest, RepliesAreWrittenAsJson) {
  std::string out;
  ASSERT_TRUE(Json()->Reply({.id = 0xfffffff0}, LocalReply::kNoRoute, "no \"way\"\t\n", out));
  EXPECT_EQ(out,
            JsonFrame(R"({"id":-16,"flags":2,"status":5,"text":"no \"way\"\u0009 "})", "no_route"));
  out.clear();
  ASSERT_TRUE(Json()->Reply({.id = 3}, LocalReply::kNoRoute, "\xff", out));
  EXPECT_EQ(out, JsonFrame(R"({"id":3,"flags":2,"status":5,"text":"no_route"})", "no_route"));
  out.clear();
  ASSERT_TRUE(Json()->Reply({.id = 3}, LocalReply::kNoContent, "", out));
  EXPECT_EQ(out, JsonFrame(R"({"id":3})", ""));
  const JsonSeen beat(JsonFrame(R"({"id":12,"flags":4})"));
  out.clear();
  ASSERT_TRUE(Json()->HeartbeatReply(beat.message, beat.bytes, out));
  EXPECT_EQ(out, JsonFrame(R"({"id":12,"flags":4})", ""));
}

TEST(DeclaredJsonTest, PeopleSeeWhatMembersSay) {
  std::string_view error;
  const std::string bytes =
      JsonFrame(R"({"id":1,"call":{"method":"\u0041","tags":{"k":"\u0042"}}})");
  std::string shown;
  for (const auto& field : Json()->Explain(Direction::kRequest, bytes, error)) {
    shown += field.name + "=" + field.value + ";";
  }
  EXPECT_EQ(error, "");
  EXPECT_EQ(shown, "length=63;head_bytes=57;head=57 bytes;id=1;method=A;tags=k=B;tell=0;beat=0;");
}

// Heads as peers write them, and as nobody would.
class Heads {
 public:
  explicit Heads(uint32_t seed) : random_(seed) {}

  std::string Next() {
    std::string out = "{";
    if (Below(8) != 0) out += R"("id":)" + Number() + ",";
    for (size_t i = 0, parts = Below(5); i < parts; ++i) out += Text() + ":" + Value(3) + ",";
    static const std::string kParts[] = {
        R"("flags":1)",
        R"("flags":2)",
        R"("flags":4)",
        R"("status":5)",
        R"("text":"a\u0041")",
        R"("debug":1)",
        R"("call":{"tags":{"user":"ann","zone":"\u0042"},"method":"get"})",
        R"("call":{"timeout":5,"tags":{ }})",
        R"("call":{"tags":{"user":null,"n":1}})",
        R"("call":{})"};
    for (size_t i = 0, parts = Below(4); i < parts; ++i)
      out += kParts[Below(std::size(kParts))] + ",";
    out += "\"end\":0}";
    if (Below(8) == 0) out[Below(out.size())] = static_cast<char>(Below(256));
    if (Below(12) == 0) out.resize(Below(out.size() + 1));
    return out;
  }

 private:
  size_t Below(size_t bound) { return random_() % bound; }
  std::string Number() {
    static const std::string kNumbers[] = {"0", "-1", "7", "4294967295", "2147483647", "1.5", "-0"};
    return kNumbers[Below(std::size(kNumbers))];
  }
  std::string Text() {
    static const std::string kTexts[] = {"\"\"", R"("a")", R"("\u0069d")", R"("x\"y")", R"("é")"};
    return kTexts[Below(std::size(kTexts))];
  }
  std::string Value(int depth) {
    switch (Below(depth > 0 ? 5 : 3)) {
      case 0:
        return Number();
      case 1:
        return Text();
      case 2:
        return Below(2) == 0 ? "null" : "true";
      case 3:
        return "[" + Value(depth - 1) + "," + Value(depth - 1) + "]";
      default:
        return "{" + Text() + ":" + Value(depth - 1) + "}";
    }
  }
  std::mt19937 random_;
};

TEST(DeclaredJsonTest, HoldsWhatCodecsPromise) {
  size_t messages = 0;
  for (const Direction direction : {Direction::kRequest, Direction::kResponse}) {
    Heads heads(20261130);
    for (int i = 0; i < 1500; ++i) {
      const std::string frame = JsonFrame(heads.Next());
      const auto result = CheckConformance(*Json(), direction, frame, {.seed = 5});
      ASSERT_FALSE(result.violation) << *result.violation << ": " << testing::PrintToString(frame);
      messages += JsonSeen(frame, direction).result.status == Status::kMessage ? 1 : 0;
    }
  }
  EXPECT_GT(messages, 500u);  // not only what is refused
}

// --- what is wrong with declarations

std::string JsonErrorsOf(std::string_view member, std::string_view more = "") {
  const std::string json =
      R"({"framing": {"length": {"fields": ["n"], "after": "n"}}, "fields": [
          {"name": "n", "bytes": 4},
          {"name": "head", "message": {"format": "JSON", "lengthPrefix": 2, "members": [)" +
      std::string(member) + "]}}]" + std::string(more) + "}";
  return CreateDeclaredCodec("test", json).error;
}

TEST(DeclaredJsonTest, WhatIsWrongIsToldByFieldValueAndFix) {
  const std::string at = "declaration.fields[1].message.members[";
  EXPECT_EQ(JsonErrorsOf(R"({"name": "a", "path": "a.b"}, {"name": "b", "path": "a.c.d.e"})"), "");
  EXPECT_EQ(JsonErrorsOf(R"({"name": "a", "path": "a..b"})"),
            at + "0].path: \"a..b\": must be one to four numbers or names with '.' between them, "
                 "such as 1.2 or head.method");
  EXPECT_EQ(JsonErrorsOf(R"({"name": "a", "path": "x"}, {"name": "b", "path": "x"})"),
            at + "1].path: \"x\": is that of another member");
  EXPECT_EQ(JsonErrorsOf(R"({"name": "a", "path": "x"}, {"name": "b", "path": "x.y"})"),
            at + "1].path: \"x.y\": leads through another member, which is no object with members");
  EXPECT_EQ(JsonErrorsOf(R"({"name": "a", "path": "x.y"}, {"name": "b", "path": "x"})"),
            at + "1].path: \"x\": is that of another member");
  EXPECT_EQ(JsonErrorsOf(
                R"({"name": "a", "path": "x.y"}, {"name": "b", "path": "x", "type": "PRESENCE"})"),
            "");
  EXPECT_EQ(JsonErrorsOf(R"({"name": "a", "path": "a"})", R"(, "correlationId": "a")"),
            "declaration.correlation_id: \"a\": is no number field");
  EXPECT_EQ(JsonErrorsOf(R"({"name": "a", "path": "a", "type": "INT32", "value": 1})",
                         R"(, "correlationId": "a")"),
            "declaration.correlation_id: \"a\": must be a number without a value of its own in its "
            "message");
  EXPECT_EQ(
      JsonErrorsOf(R"({"name": "a", "path": "x.a", "type": "INT32"})", R"(, "correlationId": "a")"),
      "");
  const std::string reply = "declaration.error_reply.set[0].";
  EXPECT_EQ(JsonErrorsOf(R"({"name": "a", "path": "a", "type": "INT32"})",
                         R"(, "errorReply": {"set": [{"field": "a", "number": 4294967296}]})"),
            reply + "number: 4294967296: does not fit into a, which is at most 2147483647");
  EXPECT_EQ(
      JsonErrorsOf(
          R"({"name": "a", "path": "a", "type": "INT32", "names": [{"number": 1, "name": "x"}]})",
          R"(, "errorReply": {"set": [{"field": "a", "text": "y"}]})"),
      reply + "text: \"y\": is no name of a; write one, or number");
}

}  // namespace
}  // namespace metaprotocol::declared
