// Declared protocols whose heads are protobuf.
#include "src/codec/protobuf.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "src/codec/conformance.h"
#include "tests/cpp/codecs/declared/brpc_twin.h"
#include "tests/cpp/support/proto_fields.h"

namespace metaprotocol::declared {
namespace {

using test::proto::Entry;
using test::proto::Number;
using test::proto::Text;

std::string ProtobufFrame(const std::string& meta, const std::string& body = "body") {
  return "PRPC" + Be32(meta.size() + body.size()) + Be32(meta.size()) + meta + body;
}

// Metas as peers write them, and as nobody would.
class Metas {
 public:
  explicit Metas(uint32_t seed) : random_(seed) {}

  std::string Next(Direction direction) {
    std::string meta;
    for (size_t i = 0, parts = Below(6); i < parts; ++i) meta += Any(3);
    const bool request = direction == Direction::kRequest;
    if (Below(8) != 0) meta += request ? Request() : Response();
    if (Below(8) != 0) meta += Number(4, Value());
    for (size_t i = 0, parts = Below(3); i < parts; ++i) meta += Any(3);
    if (Below(12) == 0 && !meta.empty()) meta[Below(meta.size())] = static_cast<char>(Below(256));
    if (Below(12) == 0) meta.resize(Below(meta.size() + 1));
    return meta;
  }

 private:
  size_t Below(size_t bound) { return random_() % bound; }
  uint64_t Value() {
    const uint64_t wide = uint64_t{random_()} << 32 | random_();
    return wide >> Below(64);
  }
  std::string AnyText() {
    static const std::string kTexts[] = {"",     "user",  "tenant", "zone", "a.b.Service",
                                         "echo", "Method"};
    return kTexts[Below(std::size(kTexts))];
  }
  std::string Request() {
    std::string request;
    if (Below(16) != 0) request += Text(1, AnyText());
    if (Below(16) != 0) request += Text(2, Below(8) != 0 ? "echo" : AnyText());
    if (Below(2) == 0) request += Number(3, Value());
    if (Below(2) == 0) request += Number(8, Value());
    for (size_t i = 0, parts = Below(4); i < parts; ++i) {
      request += Below(3) == 0 ? Text(7, AnyText()) : Entry(7, AnyText(), AnyText());
    }
    return Text(1, request);
  }
  std::string Response() {
    std::string response;
    if (Below(4) != 0) response += Number(1, Below(2) == 0 ? 0 : 900 + Below(2200));
    if (Below(2) == 0) response += Number(1, Value());
    if (Below(2) == 0) response += Text(2, AnyText());
    return Text(2, response);
  }
  std::string Any(int depth) {
    const auto number = static_cast<uint32_t>(1 + Below(10));
    switch (Below(depth > 0 ? 5 : 4)) {
      case 0:
        return Number(number, Value());
      case 1:
        return Text(Below(4) == 0 ? number : 10, AnyText());
      case 2:
        return Entry(Below(2) == 0 ? 9 : 10, AnyText(), AnyText());
      case 3: {
        std::string out;
        AppendProtoFixed64(out, number, Value());
        return out;
      }
      default:
        return Text(10 + number, Any(depth - 1));
    }
  }

  std::mt19937 random_;
};

TEST(DeclaredProtobufTest, TheTwinOfBrpcReadsAndWritesWhatTheCodecByHandDoes) {
  const BrpcTwins twins;
  size_t messages = 0;
  for (const Direction direction : {Direction::kRequest, Direction::kResponse}) {
    Metas metas(20261129);
    for (int i = 0; i < 5000; ++i) {
      const std::string frame = ProtobufFrame(metas.Next(direction));
      const auto difference = twins.Difference(direction, frame);
      ASSERT_FALSE(difference) << *difference << ": " << testing::PrintToString(frame);
      MetadataKeys none;
      Message message;
      message.Clear();
      const auto read = twins.hand().Decode(nullptr, direction, frame, {}, message);
      messages += read.status == DecodeResult::Status::kMessage ? 1 : 0;
    }
  }
  EXPECT_GT(messages, 4000u);  // not only what both refuse
}

TEST(DeclaredProtobufTest, HoldsWhatCodecsPromise) {
  const auto codec = Make(kBrpc);
  for (const Direction direction : {Direction::kRequest, Direction::kResponse}) {
    Metas metas(7);
    for (int i = 0; i < 500; ++i) {
      const std::string frame = ProtobufFrame(metas.Next(direction));
      const auto result = CheckConformance(*codec, direction, frame, {.seed = 3});
      ASSERT_FALSE(result.violation) << *result.violation << ": " << testing::PrintToString(frame);
    }
  }
}

// A protocol of its own: the length of the head before it, and a timeout and a status in it.
constexpr std::string_view kOwn = R"({
  "framing": {"length": {"fields": ["bytes"], "after": "bytes"}},
  "fields": [
    {"name": "bytes", "bytes": 2},
    {"name": "head", "message": {"lengthPrefix": 1, "members": [
      {"name": "id", "path": "1", "type": "INT64"},
      {"name": "method", "path": "2.1.3", "required": true},
      {"name": "status", "path": "4", "type": "INT64",
       "names": [{"number": 18446744073709551615, "name": "broken"}]},
      {"name": "timeout", "path": "2.5", "type": "UINT64"},
      {"name": "tags", "path": "2.6", "type": "ENTRIES"}]}},
    {"name": "mark", "bytes": 1}],
  "correlationId": "id",
  "status": {"field": "status"},
  "timeout": {"field": "timeout", "unit": "SECONDS"},
  "errorReply": {"set": [{"field": "status", "number": 18446744073709551615},
                         {"field": "method", "text": "{text}"}], "body": "{reply}"}
})";

std::string Own(const std::string& head, const std::string& body = "!rest") {
  return Be16(1 + head.size() + body.size()) + static_cast<char>(head.size()) + head + body;
}

struct ProtobufSeen {
  DecodeResult result;
  Message message;
  std::string bytes;
  MetadataKeys keys;

  explicit ProtobufSeen(std::string wire, Direction direction = Direction::kRequest)
      : bytes(std::move(wire)), keys(MetadataKeys::Everything(Codec()->traits().metadata_keys)) {
    message.Clear(&keys);
    DecodeOptions options;
    options.interest = Codec()->InterestIn(keys);
    result = Codec()->Decode(nullptr, direction, bytes, options, message);
  }
  static const std::shared_ptr<const DeclaredCodec>& Codec() {
    static const auto codec = Make(kOwn);
    return codec;
  }
  std::string Find(std::string_view key) const {
    return std::string(message.metadata.Find(key).value_or("(absent)"));
  }
  std::string Written(const EncodeOptions& options) const {
    std::string out;
    const Encoded encoded = Codec()->Encode(message, bytes, options, out);
    return out.append(encoded.Unchanged(bytes)).append(encoded.Tail());
  }
};

const std::string kWithin =
    Text(1, Text(3, "get")) + Number(5, 9) + Entry(6, "user", "ann") + Text(7, "unknown");

TEST(DeclaredProtobufTest, MembersAreFieldsHoweverDeepTheyLie) {
  const ProtobufSeen seen(Own(Number(1, 7) + Text(2, kWithin) + Number(4, UINT64_MAX)));
  ASSERT_EQ(seen.result.status, DecodeResult::Status::kMessage) << seen.result.error;
  EXPECT_EQ(seen.message.id, 7u);
  EXPECT_EQ(seen.message.timeout_us, 9'000'000u);
  EXPECT_EQ(seen.Find("method"), "get");
  EXPECT_EQ(seen.Find("user"), "ann");
  EXPECT_EQ(seen.Find("status"), "broken");
  const ProtobufSeen reply(seen.bytes, Direction::kResponse);
  EXPECT_EQ(reply.message.status, ReplyStatus::kError);
  EXPECT_EQ(reply.message.status_code, -1);
}

TEST(DeclaredProtobufTest, AnotherIdChangesTheLengthsAroundItAndNothingElse) {
  const ProtobufSeen seen(Own(Text(2, kWithin) + Number(1, 7) + Number(4, 0)));
  EXPECT_EQ(seen.Written({.id = 300}), Own(Text(2, kWithin) + Number(1, 300) + Number(4, 0)));
  EXPECT_EQ(seen.Written({.id = 7}), seen.bytes);
  const ProtobufSeen absent(Own(Text(2, kWithin)));
  EXPECT_EQ(absent.Written({.id = 300}), Own(Text(2, kWithin) + Number(1, 300)));
}

TEST(DeclaredProtobufTest, AnIdThatNoLengthCanSayIsImpossible) {
  // The head's length has one byte.
  const ProtobufSeen seen(Own(Text(2, kWithin + std::string(180, '\x10')) + Number(1, 7)));
  ASSERT_EQ(seen.result.status, DecodeResult::Status::kMessage) << seen.result.error;
  std::string out;
  EXPECT_FALSE(ProtobufSeen::Codec()->Encode(seen.message, seen.bytes, {.id = 8}, out).impossible);
  const ProtobufSeen longer(Own(Text(2, kWithin + Text(9, std::string(215, 'x'))) + Number(1, 7)));
  ASSERT_EQ(longer.result.status, DecodeResult::Status::kMessage) << longer.result.error;
  out.clear();
  EXPECT_TRUE(ProtobufSeen::Codec()
                  ->Encode(longer.message, longer.bytes, {.id = UINT64_MAX}, out)
                  .impossible);
  EXPECT_EQ(out, "");
}

TEST(DeclaredProtobufTest, MutationsAndTimeoutsChangeWhatTheyNameAndNothingElse) {
  const ProtobufSeen seen(Own(Number(1, 7) + Text(2, kWithin) + Number(4, 0)));
  const std::vector<MutationOp> ops = {{MutationOp::Kind::kSet, "method", "put"},
                                       {MutationOp::Kind::kRemove, "user", ""},
                                       {MutationOp::Kind::kSet, "zone", "b"}};
  const std::string within =
      Text(7, "unknown") + Text(1, Text(3, "put")) + Number(5, 2) + Entry(6, "zone", "b");
  const std::string written = seen.Written({.id = 8, .mutation = ops, .timeout_us = 1'500'000});
  const ProtobufSeen mutated(written);
  ASSERT_EQ(mutated.result.status, DecodeResult::Status::kMessage) << mutated.result.error;
  EXPECT_EQ(mutated.message.id, 8u);
  EXPECT_EQ(mutated.message.timeout_us, 2'000'000u);
  EXPECT_EQ(mutated.Find("method"), "put");
  EXPECT_EQ(mutated.Find("user"), "(absent)");
  EXPECT_EQ(mutated.Find("zone"), "b");
  EXPECT_NE(written.find(Text(7, "unknown")), std::string::npos);
  EXPECT_TRUE(written.ends_with("!rest"));
  EXPECT_EQ(written.size(), Own(Number(1, 8) + Text(2, within) + Number(4, 0)).size());
}

TEST(DeclaredProtobufTest, MessagesAroundALongTextGetLongerLengths) {
  const std::string tail = Text(7, "unknown");
  const auto head = [&](const std::string& method) {
    return Number(1, 5) + Text(2, Text(1, Text(3, method)) + tail);
  };
  for (const size_t size : {1, 110, 120, 123, 124, 125, 126, 127, 128, 200}) {
    const std::string method(size, 'm');
    const std::vector<MutationOp> ops = {{MutationOp::Kind::kSet, "method", method}};
    // A text that is set is written behind what else its message has, which is nothing here.
    EXPECT_EQ(ProtobufSeen(Own(head("get"))).Written({.id = 5, .mutation = ops}),
              Own(Text(2, Text(1, Text(3, method)) + tail) + Number(1, 5)))
        << size;
  }
}

// Tags of fields from 16 on have two bytes and more.
TEST(DeclaredProtobufTest, FieldsMayHaveAnyNumber) {
  const auto codec = Make(R"({
    "framing": {"length": {"fields": ["bytes"], "after": "bytes"}},
    "fields": [
      {"name": "bytes", "bytes": 2},
      {"name": "head", "message": {"lengthPrefix": 1, "members": [
        {"name": "id", "path": "16", "type": "UINT64"},
        {"name": "method", "path": "300.20"},
        {"name": "tags", "path": "536870911", "type": "ENTRIES"},
        {"name": "label", "path": "536870911"},
        {"name": "size", "path": "300.21", "type": "UINT64"}]}}],
    "correlationId": "id"})");
  const std::string entry = Entry(536870911, "user", "ann");
  const auto wire = [&](uint64_t id, const std::string& list) {
    return Own(Number(20, 1) + Number(16, id) + Text(300, Text(20, "get") + Number(21, 7)) +
                   Text(536870911, "plain") + list + Text(16, "no number"),
               "body");
  };
  std::string bytes = wire(77, entry);
  bytes[1] = static_cast<char>(bytes.size() - 2);
  MetadataKeys keys = MetadataKeys::Everything(codec->traits().metadata_keys);
  Message message;
  message.Clear(&keys);
  DecodeOptions options;
  options.interest = codec->InterestIn(keys);
  ASSERT_EQ(codec->Decode(nullptr, Direction::kRequest, bytes, options, message).status,
            DecodeResult::Status::kMessage);
  EXPECT_EQ(message.id, 77u);
  EXPECT_EQ(message.metadata.Find("method"), "get");
  EXPECT_EQ(message.metadata.Find("size"), "7");
  EXPECT_EQ(message.metadata.Find("user"), "ann");
  EXPECT_EQ(message.metadata.Find("label"), "plain");
  const std::vector<MutationOp> ops = {{MutationOp::Kind::kRemove, "user", ""}};
  std::string out;
  const Encoded encoded = codec->Encode(message, bytes, {.id = 77, .mutation = ops}, out);
  out.append(encoded.Unchanged(bytes));
  std::string wanted = Own(Number(20, 1) + Text(300, Text(20, "get") + Number(21, 7)) +
                               Text(536870911, "plain") + Text(16, "no number") + Number(16, 77),
                           "body");
  wanted[1] = static_cast<char>(wanted.size() - 2);
  EXPECT_EQ(out, wanted);
}

TEST(DeclaredProtobufTest, WhatIsDemandedOfAMessageIsRefusedWithoutItAndAnswered) {
  const ProtobufSeen without(Own(Number(1, 7) + Text(2, Number(5, 9))));
  EXPECT_EQ(without.result.status, DecodeResult::Status::kUndecodable);
  EXPECT_EQ(without.message.kind, MessageKind::kRequest);
  EXPECT_EQ(without.message.id, 7u);
  const ProtobufSeen twice(Own(Text(2, kWithin) + Text(2, kWithin) + Number(1, 7)));
  EXPECT_EQ(twice.result.status, DecodeResult::Status::kUndecodable);
  EXPECT_EQ(twice.message.id, 7u);  // what is behind the fault is read all the same
  const ProtobufSeen group(Own(Number(1, 7) + "\x13"));
  EXPECT_EQ(group.result.status, DecodeResult::Status::kUndecodable);
}

TEST(DeclaredProtobufTest, RepliesAreWrittenMemberByMember) {
  std::string out;
  ASSERT_TRUE(ProtobufSeen::Codec()->Reply({.id = 300}, LocalReply::kNoRoute, "no way", out));
  EXPECT_EQ(out, Own(Number(1, 300) + Text(2, Text(1, Text(3, "no way"))) + Number(4, UINT64_MAX),
                     std::string(1, '\0') + "no_route"));
  // A text that is no UTF-8 is none that protobuf's readers take.
  out.clear();
  ASSERT_TRUE(ProtobufSeen::Codec()->Reply({.id = 1}, LocalReply::kNoRoute, "\xff", out));
  EXPECT_NE(out.find(Text(3, "no_route")), std::string::npos);
}

std::string ProtobufErrorsOf(std::string_view member, std::string_view more = "") {
  const std::string json =
      R"({"framing": {"length": {"fields": ["n"], "after": "n"}}, "fields": [
          {"name": "n", "bytes": 4},
          {"name": "head", "message": {"lengthPrefix": 2, "members": [)" +
      std::string(member) + "]}}]" + std::string(more) + "}";
  return CreateDeclaredCodec("test", json).error;
}

TEST(DeclaredProtobufTest, WhatIsWrongIsToldByFieldValueAndFix) {
  const std::string at = "declaration.fields[1].message.members[";
  EXPECT_EQ(
      ProtobufErrorsOf(R"({"name": "a", "path": "1.0"})"),
      at + "0].path: \"1.0\": must be one to four numbers with '.' between them, such as 1.2");
  EXPECT_EQ(ProtobufErrorsOf(R"({"name": "a", "path": "600000000"})"),
            at + "0].path: \"600000000\": has a number above 536870911");
  EXPECT_EQ(ProtobufErrorsOf(R"({"name": "a", "path": "1"}, {"name": "a", "path": "2"})"),
            at + "1].name: \"a\": is the name of another field; names must be unique");
  EXPECT_EQ(ProtobufErrorsOf(R"({"name": "a", "path": "1"}, {"name": "b", "path": "1"})"),
            at + "1].path: \"1\": is that of another member; only entries may have a text beside "
                 "them, after them");
  EXPECT_EQ(ProtobufErrorsOf(R"({"name": "a", "path": "1", "value": 1})"),
            at + "0].value: 1: is for numbers and presence");
  EXPECT_EQ(ProtobufErrorsOf(R"({"name": "a", "path": "1", "type": "INT64",
                        "names": [{"number": 2, "name": "x"}, {"number": 2, "name": "y"}]})"),
            at + "0].names: 2: has two names; each number may have one");
  EXPECT_EQ(ProtobufErrorsOf(R"({"name": "a", "path": "1", "type": "INT32"})",
                             R"(, "correlationId": "a")"),
            "declaration.correlation_id: \"a\": must be a number of 64 bits (UINT64 or INT64) in "
            "its message");
  EXPECT_EQ(
      ProtobufErrorsOf(R"({"name": "a", "path": "1.2", "type": "INT64"})",
                       R"(, "correlationId": "a")"),
      "declaration.correlation_id: \"a\": is in a message within the message; it must be directly "
      "in a field's");
}

// 32 members in each of three messages, then another field, or another message.
TEST(DeclaredProtobufTest, MembersCountAmongTheFieldsThatAMessageMayHave) {
  const auto error = [](size_t plain, const std::string& last) {
    std::string json = R"({"framing": {"length": {"fields": ["n"], "after": "n"}}, "fields": [
        {"name": "n", "bytes": 4})";
    for (size_t i = 0; i < plain; ++i) {
      json += R"(, {"name": "p)" + std::to_string(i) + R"(", "bytes": 1})";
    }
    for (const char* const message : {"a", "b"}) {
      json += std::string(R"(, {"name": ")") + message +
              R"(", "message": {"lengthPrefix": 2, "members": [)";
      for (int i = 1; i <= 32; ++i) {
        const std::string number = std::to_string(i);
        json += std::string(i == 1 ? "" : ", ") + R"({"name": ")" + message + number +
                R"(", "path": ")" + number + R"("})";
      }
      json += "]}}";
    }
    return CreateDeclaredCodec("test", json + last + "]}").error;
  };
  // The length, two messages and their 64 members are 67; 29 others make 96.
  EXPECT_EQ(error(29, ""), "");
  const std::string many = "is one field too many; 96 are the most";
  EXPECT_NE(error(29, R"(, {"name": "last", "bytes": 1})").find("\"last\": " + many),
            std::string::npos);
  EXPECT_NE(error(30, "").find("\"b32\": " + many), std::string::npos);
}

}  // namespace
}  // namespace metaprotocol::declared
