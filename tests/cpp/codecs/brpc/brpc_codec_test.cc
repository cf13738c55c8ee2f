// The brpc codec: what it reads of messages, and what it writes into them.
#include "codecs/brpc/brpc_codec.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "src/codec/conformance.h"
#include "src/codec/protobuf.h"
#include "tests/cpp/support/proto_fields.h"

namespace metaprotocol::brpc {
namespace {

using test::proto::Entry;
using test::proto::Number;
using test::proto::Text;

using Status = DecodeResult::Status;
using Kind = MutationOp::Kind;
using Entries = std::vector<std::pair<std::string, std::string>>;
using std::string_literals::operator""s;

std::string Frame(const std::string& meta, const std::string& body = "body") {
  std::string out = "PRPC";
  AppendBe32(out, static_cast<uint32_t>(meta.size() + body.size()));
  AppendBe32(out, static_cast<uint32_t>(meta.size()));
  return out + meta + body;
}

const std::string kCall = Text(1, "example.EchoService") + Text(2, "Echo");

std::string RequestMeta(const std::string& more_of_request = "", const std::string& more = "") {
  return Text(1, kCall + more_of_request) + Number(4, 300) + more;
}
std::string ResponseMeta(uint64_t error_code, const std::string& more = "") {
  return Text(2, Number(1, error_code) + Text(2, "text")) + Number(4, 300) + more;
}

// One message, decoded with everything wanted; its metadata point into `bytes`.
struct Decoded {
  std::string bytes;
  MetadataKeys keys = MetadataKeys::Everything(BrpcCodec().traits().metadata_keys);
  Message message;
  DecodeResult result;

  Decoded(const BrpcCodec& codec, Direction direction, std::string wire,
          DecodeState* state = nullptr, DecodeOptions options = {})
      : bytes(std::move(wire)) {
    options.interest = codec.InterestIn(keys);
    message.Clear(&keys);
    result = codec.Decode(state, direction, bytes, options, message);
  }

  std::string Encoded(const BrpcCodec& codec, const EncodeOptions& options) const {
    std::string out;
    const auto encoded = codec.Encode(message, bytes, options, out);
    return out.append(encoded.Unchanged(bytes)).append(encoded.Tail());
  }
  std::string Find(std::string_view key) const {
    return std::string(message.metadata.Find(key).value_or("(absent)"));
  }
};

Decoded Request(const std::string& wire) { return {BrpcCodec(), Direction::kRequest, wire}; }
Decoded Response(const std::string& wire) { return {BrpcCodec(), Direction::kResponse, wire}; }

TEST(BrpcCodec, ReadsServiceMethodAndUserFields) {
  const Decoded request = Request(Frame(
      RequestMeta(Number(3, 77) + Text(7, "req-1"), Entry(9, "user", "ann") + Entry(9, "x", ""))));
  ASSERT_EQ(request.result.status, Status::kMessage);
  EXPECT_EQ(request.message.kind, MessageKind::kRequest);
  EXPECT_EQ(request.message.id, 300u);
  EXPECT_EQ(request.message.length, request.bytes.size());
  EXPECT_EQ(request.Find("service"), "example.EchoService");
  EXPECT_EQ(request.Find("interface"), "example.EchoService");
  EXPECT_EQ(request.Find("method"), "Echo");
  EXPECT_EQ(request.Find("log_id"), "77");
  EXPECT_EQ(request.Find("request_id"), "req-1");
  EXPECT_EQ(request.Find("user"), "ann");
  EXPECT_EQ(request.Find("x"), "");
}

TEST(BrpcCodec, ReadsJavasExtFieldsUnderTheNumberOfRequestId) {
  const Decoded request =
      Request(Frame(RequestMeta(Entry(7, "user", "ann") + Entry(7, "user", "bob"))));
  ASSERT_EQ(request.result.status, Status::kMessage);
  EXPECT_EQ(request.Find("user"), "bob");  // Java reads them into a map
  EXPECT_EQ(request.Find("request_id"), "(absent)");
}

// Or a server for Java would see an entry of which nobody here knows.
TEST(BrpcCodec, WhatOnlyJavaReadsAsAnExtFieldIsRefused) {
  const std::string user = Text(1, "user") + Text(2, "root");
  const std::string entries[] = {
      user + "\x1b\x1c",                                           // a group
      "\x8a\x80\x80\x80\x80\x00\x04"s + "user" + Text(2, "root"),  // a tag of six bytes
      Text(4, "looks like a text") + user + "\x23\x24",
  };
  for (const std::string& entry : entries) {
    const Decoded request = Request(Frame(RequestMeta(Text(7, entry))));
    EXPECT_EQ(request.result.status, Status::kUndecodable) << testing::PrintToString(entry);
  }
  for (const char* id : {"", "req-1", "{\"id\": 7}", "\xe4\xb8\xad", "~\x7f"}) {
    const Decoded request = Request(Frame(RequestMeta(Text(7, id))));
    ASSERT_EQ(request.result.status, Status::kMessage) << id;
    EXPECT_EQ(request.Find("request_id"), id);
  }
}

// A server reads all of these alike.
TEST(BrpcCodec, ReadsExtFieldsHoweverTheyAreWritten) {
  const std::string written[] = {
      Text(2, "ann") + Text(1, "user"),
      Text(1, "x") + Text(2, "bob") + Text(1, "user") + Text(2, "ann"),
      Text(1, "user") + Text(2, "ann") + Number(9, 1),
      "\x8a\x00"s +
          "\x04"
          "user" +
          Text(2, "ann"),
  };
  for (const std::string& entry : written) {
    const Decoded request = Request(Frame(RequestMeta(Text(7, entry))));
    EXPECT_EQ(request.Find("user"), "ann") << testing::PrintToString(entry);
    EXPECT_EQ(request.Find("request_id"), "(absent)");
  }
}

TEST(BrpcCodec, UserFieldsCannotStandInForTheMethod) {
  const Decoded request = Request(Frame(RequestMeta("", Entry(9, "method", "Other"))));
  EXPECT_EQ(request.Find("method"), "Echo");
}

// Servers look up "service.method", wherever the dot between them was.
TEST(BrpcCodec, TheMethodIsWhatFollowsTheLastDot) {
  for (const auto& [service, method] : Entries{
           {"a.b.EchoService", "Echo"}, {"a.b", "EchoService.Echo"}, {"a", "b.EchoService.Echo"}}) {
    for (const std::string& call :
         {Text(1, service) + Text(2, method), Text(2, "x") + Text(2, method) + Text(1, service)}) {
      const Decoded request = Request(Frame(Text(1, call)));
      ASSERT_EQ(request.result.status, Status::kMessage);
      EXPECT_EQ(request.Find("service"), "a.b.EchoService");
      EXPECT_EQ(request.Find("interface"), "a.b.EchoService");
      EXPECT_EQ(request.Find("method"), "Echo");
      EXPECT_EQ(request.Encoded(BrpcCodec(), {.id = 0}), request.bytes)
          << "it is passed on as it is";
    }
  }
}

TEST(BrpcCodec, ReadsTheErrorCodeOfResponses) {
  const auto status = [](uint64_t code) {
    const Decoded response = Response(Frame(ResponseMeta(code)));
    EXPECT_EQ(response.message.kind, MessageKind::kResponse);
    EXPECT_EQ(response.message.status_code, static_cast<int32_t>(code));
    return response.message.status;
  };
  EXPECT_EQ(status(0), ReplyStatus::kOk);
  EXPECT_EQ(status(2001), ReplyStatus::kError);
  EXPECT_EQ(status(7), ReplyStatus::kException);
  EXPECT_EQ(status(static_cast<uint64_t>(-1)), ReplyStatus::kException);
  EXPECT_EQ(Response(Frame(Text(2, "") + Number(4, 1))).message.status, ReplyStatus::kOk);
}

TEST(BrpcCodec, ChangesTheIdAloneHoweverLongItIs) {
  const BrpcCodec codec;
  for (const std::string& meta : {RequestMeta(), RequestMeta("", Entry(9, "a", "b")),
                                  Text(1, kCall), Number(4, 1) + Text(1, kCall) + Number(4, 2)}) {
    const Decoded request = Request(Frame(meta));
    EXPECT_EQ(request.Encoded(codec, {.id = request.message.id}), request.bytes);
    for (const uint64_t id : {uint64_t{0}, uint64_t{127}, uint64_t{1} << 63}) {
      const Decoded again = Request(request.Encoded(codec, {.id = id}));
      ASSERT_EQ(again.result.status, Status::kMessage);
      EXPECT_EQ(again.message.id, id);
      EXPECT_EQ(again.Encoded(codec, {.id = request.message.id}).size() >= request.bytes.size(),
                true);
      EXPECT_EQ(again.bytes.substr(again.bytes.size() - 4), "body");
    }
  }
}

TEST(BrpcCodec, MutatesUserFieldsOfRequestsAndResponses) {
  const BrpcCodec codec;
  const Mutation mutation = {{Kind::kSet, "lane", "blue"},
                             {Kind::kRemove, "user", ""},
                             {Kind::kAddIfAbsent, "kept", "no"}};
  const std::string fields = Entry(9, "user", "ann") + Entry(9, "kept", "yes");
  for (const Direction direction : {Direction::kRequest, Direction::kResponse}) {
    const bool is_request = direction == Direction::kRequest;
    const Decoded before(codec, direction,
                         Frame(is_request ? RequestMeta("", fields) : ResponseMeta(0, fields)));
    const Decoded after(codec, direction, before.Encoded(codec, {.id = 5, .mutation = mutation}));
    ASSERT_EQ(after.result.status, Status::kMessage);
    EXPECT_EQ(after.message.length, after.bytes.size());
    EXPECT_EQ(after.message.id, 5u);
    EXPECT_EQ(after.Find("lane"), "blue");
    EXPECT_EQ(after.Find("user"), "(absent)");
    EXPECT_EQ(after.Find("kept"), "yes");
    EXPECT_EQ(after.bytes.substr(after.bytes.size() - 4), "body");
  }
}

TEST(BrpcCodec, MutatesExtFieldsWhereTheRequestHasThem) {
  const BrpcCodec codec;
  const Mutation mutation = {{Kind::kSet, "lane", "blue"}, {Kind::kRemove, "user", ""}};
  const Decoded before =
      Request(Frame(RequestMeta(Entry(7, "user", "ann") + Entry(7, "kept", "yes"))));
  const std::string after = before.Encoded(codec, {.id = 300, .mutation = mutation});
  EXPECT_EQ(after, Frame(RequestMeta(Entry(7, "kept", "yes") + Entry(7, "lane", "blue"))));
}

TEST(BrpcCodec, ReadsTheTimeoutAndPassesAShorterOneOn) {
  const BrpcCodec codec;
  const Decoded before = Request(Frame(RequestMeta(Number(8, 1500) + Number(3, 77))));
  EXPECT_EQ(before.message.timeout_us, 1'500'000u);
  const Decoded after = Request(before.Encoded(codec, {.id = 300, .timeout_us = 200'001}));
  EXPECT_EQ(after.message.timeout_us, 201'000u);
  EXPECT_EQ(after.Find("log_id"), "77");
  const Decoded none = Request(Frame(RequestMeta(Number(8, static_cast<uint64_t>(-1)))));
  EXPECT_EQ(none.message.timeout_us, 0u);
  EXPECT_EQ(none.Encoded(codec, {.id = 300, .timeout_us = 200'000}), none.bytes);
}

TEST(BrpcCodec, OneMalformedMessageCostsItsOwnCall) {
  const std::string id = Number(4, 300);
  for (const std::string& meta : {
           id + "\x0a\x7f",                                    // no protobuf
           id + Text(1, "\x0a\x7f"),                           // nor this
           id + Text(1, Text(1, "Service")),                   // no method
           id,                                                 // neither request nor response
           id + Text(1, kCall) + Text(1, kCall),               // two requests
           id + Text(1, kCall) + Number(5, 5),                 // attachment over the body
           id + Text(1, kCall) + Text(8, Number(1, 1)),        // a stream
           id + Text(1, kCall) + Text(7, "somebody"),          // authentication, not configured
           id + Text(1, kCall) + Text(9, "\x0a\x7f"),          // a broken entry
           id + Text(1, kCall) + Number(5, uint64_t{1} << 31)  // negative attachment
       }) {
    const Decoded request = Request(Frame(meta));
    EXPECT_EQ(request.result.status, Status::kUndecodable) << testing::PrintToString(meta);
    EXPECT_EQ(request.message.kind, MessageKind::kRequest);
    EXPECT_EQ(request.message.length, request.bytes.size());
    EXPECT_EQ(request.message.id, 300u);
  }
}

TEST(BrpcCodec, ForeignBytesAreToldAtOnce) {
  EXPECT_EQ(Request("G").result.status, Status::kError);
  EXPECT_EQ(Request("PRPG").result.status, Status::kError);
  EXPECT_EQ(Request("STRM\0\0\0\1\0\0\0\1"s).result.status, Status::kError);
  EXPECT_EQ(Request("PRPC\0\0\0\1\0\0\0\2"s).result.status, Status::kError);
  EXPECT_EQ(Request("PRPC\x80\0\0\0\0\0\0\0"s).result.status, Status::kError);
  EXPECT_EQ(Request("PR").result.status, Status::kNeedMore);
  EXPECT_EQ(Request("PR").result.need, 12u);
}

TEST(BrpcCodec, TakesLargeMessagesByTheirMeta) {
  const BrpcCodec codec;
  const std::string wire = Frame(RequestMeta(), std::string(1000, 'x'));
  const std::string head = wire.substr(0, 100);
  const Decoded whole(codec, Direction::kRequest, head);
  EXPECT_EQ(whole.result.need, wire.size());
  DecodeOptions streams;
  streams.allow_partial = true;
  const Decoded partial(codec, Direction::kRequest, head, nullptr, streams);
  EXPECT_EQ(partial.result.status, Status::kMessage);
  EXPECT_EQ(partial.message.length, wire.size());
  DecodeOptions small;
  small.max_message_bytes = 500;
  const Decoded large(codec, Direction::kRequest, head, nullptr, small);
  EXPECT_EQ(large.result.status, Status::kTooLarge);
  EXPECT_EQ(large.message.id, 300u);
  EXPECT_EQ(large.message.length, wire.size());
}

TEST(BrpcCodec, AnswersWithItsErrorCodes) {
  const BrpcCodec codec;
  const auto code = [&](LocalReply reply, std::string_view text) {
    std::string out;
    EXPECT_TRUE(codec.Reply({.id = 7}, reply, text, out));
    const Decoded response = Response(out);
    EXPECT_EQ(response.result.status, Status::kMessage);
    EXPECT_EQ(response.message.id, 7u);
    EXPECT_EQ(response.bytes.find(text) != std::string::npos, reply != LocalReply::kNoContent);
    return response.message.status_code;
  };
  EXPECT_EQ(code(LocalReply::kNoContent, "nothing"), 0);
  EXPECT_EQ(code(LocalReply::kNoRoute, "no route"), 1001);
  EXPECT_EQ(code(LocalReply::kTimeout, "too late"), 1008);
  EXPECT_EQ(code(LocalReply::kOverLimit, "too many"), 2004);
  EXPECT_EQ(code(LocalReply::kDenied, "denied"), 1004);
  EXPECT_EQ(code(LocalReply::kMalformed, "what?"), 1003);
}

TEST(BrpcCodec, AClientsAuthenticationGoesWithEachOfItsRequests) {
  const BrpcCodec codec({.authentication = true});
  EXPECT_TRUE(codec.traits().stateful);
  EXPECT_FALSE(BrpcCodec().traits().stateful);
  const auto ann = codec.NewDecodeState(Direction::kRequest);
  const auto bob = codec.NewDecodeState(Direction::kRequest);
  const std::string plain = Frame(RequestMeta());
  const std::string with = Frame(RequestMeta("", Text(7, "ann")));
  const Decoded first(codec, Direction::kRequest, with, ann.get());
  EXPECT_EQ(first.Encoded(codec, {.id = 300}), with);
  const Decoded second(codec, Direction::kRequest, plain, ann.get());
  EXPECT_EQ(second.Encoded(codec, {.id = 300}), with);
  const Decoded other(codec, Direction::kRequest, plain, bob.get());
  EXPECT_EQ(other.Encoded(codec, {.id = 300}), plain);
  const Decoded long_one(codec, Direction::kRequest,
                         Frame(RequestMeta("", Text(7, std::string(4097, 'x')))), bob.get());
  EXPECT_EQ(long_one.result.status, Status::kUndecodable);
}

TEST(BrpcCodec, OptionsAreRead) {
  EXPECT_FALSE(CreateBrpcCodec("").codec->traits().stateful);
  EXPECT_TRUE(CreateBrpcCodec(R"({"authentication": true})").codec->traits().stateful);
  EXPECT_NE(CreateBrpcCodec(R"({"authentication": 1})").error, "");
  EXPECT_NE(CreateBrpcCodec(R"({"stream": true})").error, "");
  EXPECT_NE(CreateBrpcCodec("[]").error, "");
}

std::string FromHex(std::string_view hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16));
  }
  return bytes;
}

TEST(BrpcCodec, ReadsWhatBrpcJavaWrites) {
  std::ifstream file("tests/vectors/brpc/java.txt");
  ASSERT_TRUE(file) << "tests run in the repository's root";
  size_t count = 0;
  uint64_t request_id = 0;
  for (std::string direction, hex; file >> direction;) {
    if (direction == "#") {
      std::getline(file, hex);
      continue;
    }
    file >> hex;
    const std::string wire = FromHex(hex);
    const bool is_request = direction == "request";
    const Direction side = is_request ? Direction::kRequest : Direction::kResponse;
    const Decoded decoded(BrpcCodec(), side, wire);
    ASSERT_EQ(decoded.result.status, Status::kMessage) << hex;
    EXPECT_EQ(decoded.message.length, wire.size());
    ++count;
    if (is_request) {
      request_id = decoded.message.id;
      EXPECT_EQ(decoded.Find("service"), "example.Greeter");
      EXPECT_EQ(decoded.Find("log_id"), "0");
      if (decoded.Find("method") == "Field") {
        EXPECT_EQ(decoded.Find("lane"), "theirs");
        EXPECT_EQ(decoded.Find("user"), "ann");
      }
    } else {
      EXPECT_EQ(decoded.message.id, request_id);  // each was captured behind its request
      EXPECT_TRUE(decoded.message.status_code == 0 || decoded.message.status_code == 2001);
    }
    ASSERT_EQ(CheckConformance(BrpcCodec(), side, wire).violation.value_or(""), "") << hex;
  }
  EXPECT_EQ(count, 16u);
}

TEST(BrpcCodec, KeepsTheRules) {
  const std::vector<std::string> requests = {
      Frame(RequestMeta()), Frame(RequestMeta(Number(8, 5), Entry(9, "a", "b"))),
      Frame(RequestMeta(Entry(7, "a", "b"))), Frame(RequestMeta(), "")};
  const std::vector<std::string> responses = {Frame(ResponseMeta(0)),
                                              Frame(ResponseMeta(1001, Entry(9, "a", "b")))};
  for (const bool authentication : {false, true}) {
    const BrpcCodec codec({.authentication = authentication});
    const auto check = [&](Direction direction, const std::string& wire) {
      ASSERT_EQ(CheckConformance(codec, direction, wire).violation.value_or(""), "");
      ASSERT_EQ(CheckConformance(codec, direction, wire + wire).violation.value_or(""), "");
      for (size_t i = 0; i < wire.size(); ++i) {
        for (const int byte : {0x00, 0x01, 0x7f, 0x80, 0xff, wire[i] ^ 1, wire[i] ^ 8}) {
          std::string broken = wire;
          broken[i] = static_cast<char>(byte);
          ASSERT_EQ(CheckConformance(codec, direction, broken).violation.value_or(""), "")
              << testing::PrintToString(broken);
        }
      }
    };
    for (const std::string& wire : requests) check(Direction::kRequest, wire);
    for (const std::string& wire : responses) check(Direction::kResponse, wire);
  }
}

}  // namespace
}  // namespace metaprotocol::brpc
