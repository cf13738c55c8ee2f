// Declared protocols: decoding, ids, mutations, replies.
#include "codecs/declared/declared_codec.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <map>
#include <string>
#include <vector>

#include "tests/cpp/codecs/declared/declarations.h"
#include "tests/cpp/support/cpu_time.h"

namespace metaprotocol::declared {
namespace {

using Status = DecodeResult::Status;

struct Decoded {
  DecodeResult result;
  Message message;
  std::map<std::string, std::string> metadata;
};

class Codec {
 public:
  explicit Codec(std::string_view json)
      : codec_(Make(json)), keys_(MetadataKeys::Everything(codec_->traits().metadata_keys)) {}

  const DeclaredCodec* operator->() const { return codec_.get(); }

  Decoded Decode(Bytes bytes, Direction direction = Direction::kRequest, bool partial = false,
                 size_t max = size_t{16} << 20) const {
    Decoded decoded;
    decoded.message.Clear(&keys_);
    DecodeOptions options;
    options.interest = codec_->InterestIn(keys_);
    options.allow_partial = partial;
    options.max_message_bytes = max;
    decoded.result = codec_->Decode(nullptr, direction, bytes, options, decoded.message);
    for (const auto& [key, value] : decoded.message.metadata.Entries()) {
      decoded.metadata[std::string(key)] = value;
    }
    return decoded;
  }

  std::string Encode(Bytes bytes, const EncodeOptions& options,
                     Direction direction = Direction::kRequest) const {
    const Decoded decoded = Decode(bytes, direction);
    EXPECT_EQ(decoded.result.status, Status::kMessage) << decoded.result.error;
    std::string out;
    const Encoded encoded = codec_->Encode(decoded.message, bytes, options, out);
    return out.append(encoded.Unchanged(bytes)).append(encoded.Tail());
  }

  std::string Reply(uint64_t id, LocalReply reply, std::string_view text, uint64_t tag = 0) const {
    std::string out;
    return codec_->Reply({.id = id, .tag = tag}, reply, text, out) ? out : "(none)";
  }

 private:
  std::shared_ptr<const DeclaredCodec> codec_;
  MetadataKeys keys_;
};

using Ops = std::vector<MutationOp>;

TEST(DeclaredCodecTest, FieldsBecomeMetadataAndEntriesKeysOfTheirOwn) {
  const Codec codec(kAcme);
  const Decoded decoded =
      codec.Decode(AcmeRequest(7, "shop.Orders", "getOne", {{"user", "ann"}, {"zone", "b"}}));
  ASSERT_EQ(decoded.result.status, Status::kMessage) << decoded.result.error;
  EXPECT_EQ(decoded.message.kind, MessageKind::kRequest);
  EXPECT_EQ(decoded.message.id, 7u);
  const std::map<std::string, std::string> expected = {
      {"flags", "0"},  {"type", "call"},           {"status", "0"},      {"timeout", "0"},
      {"user", "ann"}, {"service", "shop.Orders"}, {"method", "getOne"}, {"zone", "b"}};
  EXPECT_EQ(decoded.metadata, expected);
}

TEST(DeclaredCodecTest, APeersNameNeverStandsInForAField) {
  const Codec codec(kAcme);
  const auto metadata = codec.Decode(AcmeRequest(7, "a", "b", {{"method", "other"}})).metadata;
  EXPECT_EQ(metadata.at("method"), "b");
}

TEST(DeclaredCodecTest, KindsAreToldByTheirBits) {
  const Codec codec(kAcme);
  const auto kind = [&](int type, Direction direction) {
    const std::string rest(6, '\0');
    return codec.Decode(AcmeFrame(type, 0, 1, rest), direction).message.kind;
  };
  EXPECT_EQ(kind(0, Direction::kRequest), MessageKind::kRequest);
  EXPECT_EQ(kind(1, Direction::kRequest), MessageKind::kOneWay);
  EXPECT_EQ(kind(2, Direction::kRequest), MessageKind::kHeartbeat);
  EXPECT_EQ(kind(2, Direction::kResponse), MessageKind::kHeartbeat);
  EXPECT_EQ(kind(3, Direction::kResponse), MessageKind::kHeartbeatReply);
  EXPECT_EQ(kind(4, Direction::kResponse), MessageKind::kGoAway);
  EXPECT_EQ(kind(5, Direction::kResponse), MessageKind::kResponse);
  // There is a rule for responses, and this fits none.
  EXPECT_EQ(kind(0, Direction::kResponse), MessageKind::kOther);
}

TEST(DeclaredCodecTest, TheStatusOfResponsesIsToldInThreeSteps) {
  const Codec codec(kAcme);
  const auto status = [&](int number) {
    return codec.Decode(AcmeFrame(5, number, 1, "x"), Direction::kResponse).message;
  };
  EXPECT_EQ(status(0).status, ReplyStatus::kOk);
  EXPECT_EQ(status(1).status, ReplyStatus::kException);
  EXPECT_EQ(status(9).status, ReplyStatus::kError);
  EXPECT_EQ(status(9).status_code, 9);
}

TEST(DeclaredCodecTest, AMessageOfAnyLengthIsWaitedForWithoutASecondLook) {
  const Codec codec(kAcme);
  const std::string request = AcmeRequest(7, "shop", "getOne", {{"user", "ann"}});
  size_t calls = 0;
  size_t have = 0;
  while (have < request.size()) {
    const DecodeResult result = codec.Decode(Bytes(request).substr(0, have)).result;
    ASSERT_EQ(result.status, Status::kNeedMore);
    ASSERT_GT(result.need, have);
    have = result.need;
    ++calls;
  }
  EXPECT_EQ(have, request.size());
  EXPECT_LE(calls, 3u);
}

TEST(DeclaredCodecTest, ALongMessageIsToldByItsHead) {
  const Codec codec(kAcme);
  const std::string request =
      AcmeRequest(7, "shop", "getOne", {{"user", "ann"}}, std::string(100000, 'x'));
  const Decoded decoded = codec.Decode(Bytes(request).substr(0, 60), Direction::kRequest, true);
  ASSERT_EQ(decoded.result.status, Status::kMessage);
  EXPECT_EQ(decoded.message.length, request.size());
  EXPECT_EQ(decoded.metadata.at("user"), "ann");
}

TEST(DeclaredCodecTest, OnlyTheIdChangesWithoutAMutation) {
  const Codec codec(kAcme);
  const std::string request = AcmeRequest(7, "shop", "getOne", {{"user", "ann"}});
  EXPECT_EQ(codec.Encode(request, {.id = 0x1122334455667788}),
            AcmeRequest(0x1122334455667788, "shop", "getOne", {{"user", "ann"}}));
  EXPECT_EQ(codec.Encode(request, {.id = 7}), request);
}

TEST(DeclaredCodecTest, ATimeoutIsReadAndReplacedInItsUnit) {
  const Codec codec(kAcme);
  const std::string rest(6, '\0');
  const std::string request = AcmeFrame(0, 0, 1, rest, 250);
  EXPECT_EQ(codec.Decode(request).message.timeout_us, 250'000u);
  EXPECT_EQ(codec.Encode(request, {.id = 2, .timeout_us = 99'001}), AcmeFrame(0, 0, 2, rest, 100));
}

TEST(DeclaredCodecTest, MutationsChangeEntriesAndLengths) {
  const Codec codec(kAcme);
  const std::string request = AcmeRequest(7, "shop", "get", {{"a", "1"}, {"b", "2"}});
  const Ops ops = {{kSet, "a", "11"}, {kRemove, "b", ""}, {kAdd, "c", "3"}, {kAdd, "a", "x"}};
  EXPECT_EQ(codec.Encode(request, {.id = 8, .mutation = ops}),
            AcmeRequest(8, "shop", "get", {{"a", "11"}, {"c", "3"}}));
}

TEST(DeclaredCodecTest, EntriesThatAMutationIsNotAboutStayByteByByte) {
  const Ops ops = {{kSet, "a", "1"}, {kRemove, "c", ""}, {kAdd, "b", "2"}};
  EXPECT_EQ(Codec(kLines).Encode("AX1 4 shop.get a;b;b=;;x=y=z;a=3;c the body\n",
                                 {.id = 4, .mutation = ops}),
            "AX1 4 shop.get b;b=;;x=y=z;a=1 the body\n");
  const Codec nulls(R"({
    "framing": {"length": {"fields": ["size"], "after": "size"}},
    "fields": [{"name": "size", "bytes": 1}],
    "requestFields": [{"name": "tags", "nullable": true, "entries": {
        "lengthPrefix": 1, "keyLengthPrefix": 1, "valueLengthPrefix": 1}}]})");
  const Ops one = {{kSet, "a", "1"}};
  EXPECT_EQ(nulls.Encode("\x04\x03\x01x\xff", {.mutation = one}),
            "\x08\x07\x01x\xff\x01"
            "a\x01"
            "1");
}

TEST(DeclaredCodecTest, MillionsOfEntriesTakeNoMemoryWhenSomeAreChanged) {
  std::string request = "AX1 4 shop.get ";
  for (size_t i = 0; i < size_t{7} << 20; ++i) request.append("a;");
  request.append(" the body\n");
  const auto most_kib = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
  };
  const Codec codec(kLines);
  const Ops ops = {{kSet, "b", "1"}};
  Message message;
  ASSERT_EQ(codec->Decode(nullptr, Direction::kRequest, request, {}, message).status,
            Status::kMessage);
  std::string out;
  const long before = most_kib();
  codec->Encode(message, request, {.id = 4, .mutation = ops}, out);
  EXPECT_LT(most_kib() - before, 150'000);
  EXPECT_TRUE(out.ends_with(";b=1 "));
}

TEST(DeclaredCodecTest, MutationsChangeTextFields) {
  const Codec codec(kAcme);
  const Ops ops = {{kSet, "service", "shop.v2"}, {kSet, "status", "9"}};
  EXPECT_EQ(codec.Encode(AcmeRequest(7, "shop", "get"), {.id = 7, .mutation = ops}),
            AcmeRequest(7, "shop.v2", "get"));
}

TEST(DeclaredCodecTest, AMutationThatTheFormatCannotCarryIsLeftOut) {
  const Codec codec(kAcme);
  const std::string request = AcmeRequest(7, "shop", "get", {{"a", "1"}});
  const Ops long_key = {{kSet, std::string(256, 'k'), "v"}};
  EXPECT_EQ(codec.Encode(request, {.id = 7, .mutation = long_key}), request);
  const Ops long_text = {{kSet, "service", std::string(65536, 's')}};
  EXPECT_EQ(codec.Encode(request, {.id = 9, .mutation = long_text}),
            AcmeRequest(9, "shop", "get", {{"a", "1"}}));
}

TEST(DeclaredCodecTest, ARequestThatCannotCarryWhatIsRequiredGoesNowhere) {
  const Codec codec(kAcme);
  const std::string request = AcmeRequest(7, "shop", "get", {{"a", "1"}});
  const Decoded decoded = codec.Decode(request);
  for (const std::string& key : {std::string("b"), std::string(256, 'k')}) {
    const Ops ops = {{MutationOp::Kind::kRemove, "a", "", true}, {kSet, key, "v", true}};
    std::string out;
    const Encoded encoded =
        codec->Encode(decoded.message, request, {.id = 9, .mutation = ops}, out);
    EXPECT_EQ(encoded.impossible, key.size() > 255);
    EXPECT_EQ(encoded.impossible, out.empty());
  }
}

TEST(DeclaredCodecTest, RepliesAreTemplatesWithStatusAndText) {
  const Codec codec(kAcme);
  const std::string request = AcmeRequest(7, "shop", "get");
  const uint64_t tag = codec.Decode(request).message.tag;
  EXPECT_EQ(codec.Reply(7, LocalReply::kNoRoute, "nothing here", tag),
            AcmeFrame(5, 44, 7, "no_route 44: nothing here"));
  EXPECT_EQ(codec.Reply(7, LocalReply::kTimeout, "", tag),
            AcmeFrame(5, 50, 7, "timeout 50: the upstream did not answer in time"));
  EXPECT_EQ(codec.Reply(9, LocalReply::kNoContent, "", tag), AcmeFrame(5, 0, 9, ""));
}

TEST(DeclaredCodecTest, EveryReplyIsAMessageOfItsOwnProtocol) {
  const std::string long_text(100000, '\n');
  for (const std::string_view json : {kAcme, kLines, kSizes}) {
    const Codec codec(json);
    for (size_t i = 0; i < kLocalReplyCount; ++i) {
      const auto reply = static_cast<LocalReply>(i);
      for (const std::string_view text : {std::string_view(), std::string_view(long_text)}) {
        const std::string out = codec.Reply(5, reply, text);
        if (out == "(none)") continue;
        const Decoded decoded = codec.Decode(out, Direction::kResponse);
        ASSERT_EQ(decoded.result.status, Status::kMessage) << decoded.result.error;
        EXPECT_EQ(decoded.message.kind, MessageKind::kResponse);
        EXPECT_EQ(decoded.message.id, 5u);
        EXPECT_EQ(decoded.message.length, out.size());
      }
    }
  }
}

TEST(DeclaredCodecTest, HeartbeatsAreAnsweredInBothDirections) {
  const Codec codec(kAcme);
  const std::string rest(6, '\0');
  const std::string heartbeat = AcmeFrame(2, 0, 77, rest);
  std::string out;
  ASSERT_TRUE(codec->HeartbeatReply(codec.Decode(heartbeat).message, heartbeat, out));
  EXPECT_EQ(out, AcmeFrame(3, 0, 77, ""));
  out.clear();
  const Decoded from_server = codec.Decode(heartbeat, Direction::kResponse);
  ASSERT_TRUE(codec->HeartbeatReply(from_server.message, heartbeat, out));
  EXPECT_EQ(out, AcmeFrame(3, 0, 77, rest)) << "a client's message, with its fields";
}

TEST(DeclaredCodecTest, PingsAndGoodbyesAreTheProtocolsOwn) {
  const Codec codec(kAcme);
  std::string out;
  ASSERT_TRUE(codec->Ping(5, out));
  EXPECT_EQ(codec.Decode(out).message.kind, MessageKind::kHeartbeat);
  EXPECT_EQ(codec.Decode(out).message.id, 5u);
  out.clear();
  ASSERT_TRUE(codec->GoAway({}, out));
  EXPECT_EQ(codec.Decode(out, Direction::kResponse).message.kind, MessageKind::kGoAway);
}

TEST(DeclaredCodecTest, LinesOfTextAreMessages) {
  const Codec codec(kLines);
  const Decoded decoded = codec.Decode("AX1 42 shop.get user=ann;b the body\nAX1 43");
  ASSERT_EQ(decoded.result.status, Status::kMessage) << decoded.result.error;
  EXPECT_EQ(decoded.message.length, 36u);
  EXPECT_EQ(decoded.message.id, 42u);
  EXPECT_EQ(decoded.metadata,
            (std::map<std::string, std::string>{
                {"service", "shop"}, {"method", "get"}, {"user", "ann"}, {"b", ""}}));
  EXPECT_EQ(codec.Encode("AX1 42 shop.get user=ann the body\n", {.id = 100000}),
            "AX1 100000 shop.get user=ann the body\n");
  const Ops ops = {{kSet, "user", "bob"}, {kSet, "zone", "b"}, {kSet, "method", "put"}};
  EXPECT_EQ(codec.Encode("AX1 42 shop.get user=ann the body\n", {.id = 1, .mutation = ops}),
            "AX1 1 shop.put user=bob;zone=b the body\n");
  const Ops bad = {{kSet, "user", "b ob"}};
  EXPECT_EQ(codec.Encode("AX1 42 shop.get user=ann the body\n", {.id = 1, .mutation = bad}),
            "AX1 1 shop.get user=ann the body\n");
  EXPECT_EQ(codec.Reply(42, LocalReply::kNoRoute, "not\nhere"), "AX1 42 ERR no_route not here\n");
}

TEST(DeclaredCodecTest, SeveralLengthsAddUpAndAreKeptRight) {
  const Codec codec(kSizes);
  const std::string header = std::string("\x01\0\0\0k\x02\0\0\0vv", 11);
  const auto request = [](std::string_view id, std::string_view name, std::string_view list) {
    std::string out(id);
    out.append(std::string(4, '\0'));
    out.push_back(static_cast<char>(name.size()));
    out.push_back('\0');
    out.push_back(static_cast<char>(list.size()));
    out.push_back('\0');
    out.append(std::string("\x04\0\0\0", 4));
    return out.append(name).append(list).append("body");
  };
  const std::string one = request(std::string("\x07\0\0\0", 4), "Class", header);
  const Decoded decoded = codec.Decode(one);
  ASSERT_EQ(decoded.result.status, Status::kMessage) << decoded.result.error;
  EXPECT_EQ(decoded.message.id, 7u);
  EXPECT_EQ(decoded.metadata.at("class"), "Class");
  EXPECT_EQ(decoded.metadata.at("k"), "vv");
  const Ops ops = {{kSet, "class", "Other1"}, {kSet, "k", "v"}};
  EXPECT_EQ(
      codec.Encode(one, {.id = 8, .mutation = ops}),
      request(std::string("\x08\0\0\0", 4), "Other1", std::string("\x01\0\0\0k\x01\0\0\0v", 10)));
}

TEST(DeclaredCodecTest, NullsAreAbsentAndCountsAreFollowed) {
  const Codec codec(kNullable);
  const std::string request = std::string(
                                  "\0\0\0\x0e\0\x03\xff\xff\0\x02\x01"
                                  "a\x01"
                                  "1\x01"
                                  "b\0"
                                  "!",
                                  19)
                                  .substr(0, 18);
  const Decoded decoded = codec.Decode(request);
  ASSERT_EQ(decoded.result.status, Status::kMessage) << decoded.result.error;
  EXPECT_EQ(decoded.metadata,
            (std::map<std::string, std::string>{{"key", "Metadata"}, {"a", "1"}, {"b", ""}}));
  const Ops ops = {{kRemove, "a", ""}, {kSet, "client", "me"}};
  EXPECT_EQ(codec.Encode(request, {.mutation = ops}),
            std::string("\0\0\0\x0c\0\x03\0\x02me\0\x01\x01"
                        "b\0!",
                        16))
      << "its list has one entry less, its client id two letters more";
  EXPECT_TRUE(codec->traits().ordered_replies);
  EXPECT_TRUE(codec->traits().stateful);
  EXPECT_EQ(codec.Reply(0, LocalReply::kNoRoute, ""), "(none)");
}

TEST(DeclaredCodecTest, ALengthOfSomeFieldsIsCheckedAndKeptRight) {
  const Codec codec(kHeads);
  const auto message = [](size_t head_bytes, std::string_view name, std::string_view entries) {
    std::string rest(1, static_cast<char>(head_bytes));
    rest += Be32(7);
    rest.push_back(static_cast<char>(name.size()));
    rest += name;
    rest.push_back(static_cast<char>(entries.size()));
    return Be32(rest.size() + entries.size() + 5).append(rest).append(entries).append("!body");
  };
  const std::string bytes = message(10, "shop", "");
  EXPECT_EQ(codec.Decode(bytes).metadata.at("name"), "shop");
  for (const size_t wrong : {0, 9, 11, 255}) {
    EXPECT_EQ(codec.Decode(message(wrong, "shop", "")).result.status, Status::kUndecodable);
  }
  const Ops longer = {{kSet, "name", "orders"}, {kSet, "a", "1"}};
  EXPECT_EQ(codec.Encode(bytes, {.id = 7, .mutation = longer}),
            message(16, "orders", "\001a\0011"));
  const Ops too_long = {{kSet, "name", std::string(250, 'x')}};
  EXPECT_EQ(codec.Encode(bytes, {.id = 7, .mutation = too_long}), bytes);
  const Decoded reply =
      codec.Decode(codec.Reply(9, LocalReply::kTimeout, "late"), Direction::kResponse);
  ASSERT_EQ(reply.result.status, Status::kMessage) << reply.result.error;
  EXPECT_EQ(reply.metadata.at("name"), "late");
  // A text that the head's length has no room for is left out.
  const std::string full = codec.Reply(9, LocalReply::kTimeout, std::string(600, 'x'));
  EXPECT_EQ(codec.Decode(full, Direction::kResponse).result.status, Status::kMessage);
}

TEST(DeclaredCodecTest, WhatIsNotTheProtocolEndsTheConnectionAtItsFirstByte) {
  const Codec codec(kAcme);
  EXPECT_EQ(codec.Decode("G").result.status, Status::kError);
  EXPECT_EQ(codec.Decode("\xac").result.status, Status::kNeedMore);
  EXPECT_EQ(codec.Decode("\xac\xe0").result.status, Status::kError);
  EXPECT_EQ(Codec(kLines).Decode("GET").result.status, Status::kError);
}

TEST(DeclaredCodecTest, AConstantBehindTheLengthIsLookedAtBeforeTheLength) {
  const Codec codec(R"({
    "framing": {"length": {"fields": ["length"], "after": "length"}},
    "fields": [{"name": "length", "bytes": 4}, {"name": "mark", "bytes": 1, "value": 7}]})");
  const auto result = [&](size_t length, std::string_view rest) {
    return codec.Decode(Be32(length).append(rest)).result;
  };
  EXPECT_EQ(result(0x7fffffff, "").status, Status::kNeedMore);
  EXPECT_EQ(result(0x7fffffff, "").need, 5u);
  EXPECT_EQ(result(0x7fffffff, "\x07").status, Status::kTooLarge);
  EXPECT_EQ(result(0x7fffffff, "\x08").status, Status::kError);
  EXPECT_EQ(result(0, "\x07").status, Status::kError) << "shorter than what it always has";
}

TEST(DeclaredCodecTest, ABrokenMessageCostsItselfIfItsEndIsKnown) {
  const Codec codec(kAcme);
  std::string request = AcmeRequest(7, "shop", "get");
  request[20] = '\x7f';  // the service's length
  const Decoded decoded = codec.Decode(request);
  EXPECT_EQ(decoded.result.status, Status::kUndecodable);
  EXPECT_EQ(decoded.message.length, request.size());
  EXPECT_EQ(decoded.message.id, 7u);
  EXPECT_EQ(decoded.message.kind, MessageKind::kRequest);
  EXPECT_TRUE(decoded.metadata.empty());
}

TEST(DeclaredCodecTest, ALengthThatCannotBeIsAnError) {
  const Codec sizes(R"({"framing": {"length": {"fields": ["length"]}},
                        "fields": [{"name": "length", "bytes": 8}]})");
  EXPECT_EQ(sizes.Decode(std::string("\0\0\0\0\0\0\0\x07", 8)).result.status, Status::kError);
  EXPECT_EQ(sizes.Decode(std::string(8, '\xff')).result.status, Status::kError);
  EXPECT_EQ(sizes.Decode(std::string("\0\0\0\0\0\0\0\x08", 8)).result.status, Status::kMessage);
}

TEST(DeclaredCodecTest, ATooLongMessageIsToldWithWhatAReplyNeeds) {
  const Codec codec(kAcme);
  const std::string request = AcmeRequest(7, "shop", "get", {}, std::string(5000, 'x'));
  const Decoded decoded =
      codec.Decode(Bytes(request).substr(0, 100), Direction::kRequest, true, 4096);
  EXPECT_EQ(decoded.result.status, Status::kTooLarge);
  EXPECT_EQ(decoded.message.length, request.size());
  EXPECT_EQ(decoded.message.id, 7u);
  EXPECT_EQ(decoded.message.kind, MessageKind::kRequest);
}

TEST(DeclaredCodecTest, ALineWithoutEndIsSearchedOnceAndBounded) {
  const auto codec = Make(kLines);
  const std::string line = "AX1 1 " + std::string(400000, 'x');
  const auto state = codec->NewDecodeState(Direction::kRequest);
  const double before = test::ThreadCpuNs();
  size_t have = 1;
  DecodeResult result;
  DecodeOptions options;
  options.max_message_bytes = 300000;
  while (true) {
    Message message;
    result = codec->Decode(state.get(), Direction::kRequest, Bytes(line).substr(0, have), options,
                           message);
    if (result.status != Status::kNeedMore) break;
    ASSERT_EQ(result.need, have + 1);
    ++have;
  }
  EXPECT_EQ(result.status, Status::kTooLarge);
  EXPECT_EQ(have, options.max_message_bytes);
  EXPECT_LT(test::ThreadCpuNs() - before, 10e9)
      << "300,000 calls; each from the start takes minutes";
}

TEST(DeclaredCodecTest, EveryBrokenByteGivesAnAnswerWithinTheMessage) {
  for (const auto& [json, message] :
       {std::pair{kAcme, AcmeRequest(7, "shop", "get", {{"a", "1"}, {"b", "2"}})},
        std::pair{kHeads, std::string("\0\0\0\x10\x08\0\0\0\x07\x02me\0!bodies", 20)},
        std::pair{kLines, std::string("AX1 42 shop.get user=ann;b the body\n")}}) {
    const Codec codec(json);
    for (size_t i = 0; i < message.size(); ++i) {
      for (const int byte : {0x00, 0x01, 0x7f, 0x80, 0xff}) {
        std::string broken = message;
        broken[i] = static_cast<char>(byte);
        for (const Direction direction : {Direction::kRequest, Direction::kResponse}) {
          const Decoded decoded = codec.Decode(broken, direction);
          if (decoded.result.status == Status::kNeedMore) {
            EXPECT_GT(decoded.result.need, broken.size());
          }
          if (decoded.result.status != Status::kMessage) continue;
          EXPECT_LE(decoded.message.length, broken.size());
          const Bytes whole = Bytes(broken).substr(0, decoded.message.length);
          EXPECT_EQ(codec.Encode(whole, {.id = decoded.message.id}, direction).size(),
                    whole.size());
        }
      }
    }
  }
}

std::string ErrorsIn(std::string_view json) { return CreateDeclaredCodec("test", json).error; }

TEST(DeclarationTest, WhatIsWrongIsToldByFieldValueAndFix) {
  EXPECT_EQ(ErrorsIn(R"({"framing": {"length": {"fields": ["len"]}},
                         "fields": [{"name": "length", "bytes": 4}]})"),
            "declaration.framing.length.fields[0]: \"len\": is no field of requests; there are "
            "length");
  EXPECT_EQ(ErrorsIn(R"({"framing": {"delimiter": "\n"},
                         "fields": [{"name": "a", "bytes": 4}, {"name": "a", "bytes": 9}]})"),
            "declaration.fields[1].bytes: 9: must be an integer from 1 to 8");
  EXPECT_EQ(
      ErrorsIn(R"({"framing": {"delimiter": "\n"},
                         "fields": [{"name": "a", "bytes": 4}, {"name": "a", "bytes": 2}]})"),
      "declaration.fields[1].name: \"a\": is the name of another field; names must be unique");
  EXPECT_EQ(ErrorsIn(R"({"framing": {"delimiter": "\n"},
                         "fields": [{"name": "id", "bytes": 2}], "correlationId": "id"})"),
            "declaration.correlation_id: \"id\": must have 4 or 8 bytes, or be decimal: the proxy "
            "gives ids of its own, and shorter ones would come back too soon; without "
            "correlation_id each connection carries one request at a time");
  EXPECT_EQ(ErrorsIn(R"({"framing": {"delimiter": "\n"},
                         "fields": [{"name": "k", "bytes": 1}],
                         "kinds": [{"kind": "ONE_WAY", "when": [{"field": "kind", "values": [1]}]}]})"),
            "declaration.kinds[0].when[0].field: \"kind\": is no field of requests; there are k");
  EXPECT_EQ(ErrorsIn(R"({"framing": {"delimiter": "\n"},
                         "fields": [{"name": "k", "bytes": 1}],
                         "errorReply": {"set": [{"field": "k", "number": 256}]}})"),
            "declaration.error_reply.set[0].number: 256: does not fit into k, which is at most "
            "255");
  EXPECT_EQ(ErrorsIn(R"({"framing": {"delimiter": "\n"},
                         "fields": [{"name": "a", "bytes": 1},
                                    {"name": "b", "bytes": 1, "lengthThrough": "a"}]})"),
            "declaration.fields[1].length_through: \"a\": does not come after this field");
}

}  // namespace
}  // namespace metaprotocol::declared
