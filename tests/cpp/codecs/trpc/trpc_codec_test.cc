// The trpc codec: what it reads of frames, and what it writes into them.
#include "codecs/trpc/trpc_codec.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "codecs/trpc/heads.h"
#include "src/codec/conformance.h"
#include "src/codec/protobuf.h"
#include "tests/cpp/support/proto_fields.h"

namespace metaprotocol::trpc {
namespace {

using test::proto::Entry;
using test::proto::Number;
using test::proto::Text;

using Status = DecodeResult::Status;
using Kind = MutationOp::Kind;
using std::string_literals::operator""s;

struct Head {
  int type = 0;
  int stream_type = 0;
  uint32_t id = 0;
  int version = 1;
};

std::string Frame(const Head& of, const std::string& head, const std::string& body = "body") {
  std::string out = "\x09\x30";
  out += static_cast<char>(of.type);
  out += static_cast<char>(of.stream_type);
  AppendBe32(out, static_cast<uint32_t>(16 + head.size() + body.size()));
  AppendBe16(out, static_cast<uint16_t>(head.size()));
  AppendBe32(out, of.id);
  out += static_cast<char>(of.version);
  return out + '\0' + head + body;
}
std::string Unary(const std::string& head, uint32_t frame_id = 300, int version = 1) {
  return Frame({.id = frame_id, .version = version}, head);
}
std::string Stream(int type, const std::string& body) {
  return Frame({.type = 1, .stream_type = type, .id = 9}, "", body);
}

std::string Request(const std::string& more = "") {
  return Number(3, 300) + Text(5, "trpc.app.client.Service") + Text(6, "trpc.app.server.Greeter") +
         Text(7, "/pkg.Greeter/SayHello") + more;
}
const std::string kInitRequest =
    Text(1, Text(1, "me") + Text(2, "you") + Text(3, "/pkg.Greeter/Talk") + Entry(5, "k", "v")) +
    Number(3, 65535);

struct Decoded {
  std::string bytes;
  TrpcCodec codec;
  MetadataKeys keys = MetadataKeys::Everything(codec.traits().metadata_keys);
  Message message;
  DecodeResult result;

  Decoded(Direction direction, std::string wire, DecodeOptions options = {})
      : bytes(std::move(wire)) {
    options.interest = codec.InterestIn(keys);
    message.Clear(&keys);
    result = codec.Decode(nullptr, direction, bytes, options, message);
  }

  std::string Encoded(const EncodeOptions& options) const {
    std::string out;
    const auto encoded = codec.Encode(message, bytes, options, out);
    return out.append(encoded.Unchanged(bytes)).append(encoded.Tail());
  }
  std::string Find(std::string_view key) const {
    return std::string(message.metadata.Find(key).value_or("(absent)"));
  }
};

Decoded FromClient(const std::string& wire) { return {Direction::kRequest, wire}; }
Decoded FromServer(const std::string& wire) { return {Direction::kResponse, wire}; }

TEST(TrpcCodec, ReadsCallerCalleeFuncAndTransInfo) {
  const Decoded request = FromClient(Unary(Request(Entry(9, "user", "ann") + Number(4, 1500))));
  ASSERT_EQ(request.result.status, Status::kMessage);
  EXPECT_EQ(request.message.kind, MessageKind::kRequest);
  EXPECT_EQ(request.message.id, 300u);
  EXPECT_EQ(request.message.timeout_us, 1'500'000u);
  EXPECT_EQ(request.Find("caller"), "trpc.app.client.Service");
  EXPECT_EQ(request.Find("callee"), "trpc.app.server.Greeter");
  EXPECT_EQ(request.Find("func"), "/pkg.Greeter/SayHello");
  EXPECT_EQ(request.Find("user"), "ann");
  const Decoded forged = FromClient(Unary(Request(Entry(9, "func", "other"))));
  EXPECT_EQ(forged.Find("func"), "/pkg.Greeter/SayHello");
}

TEST(TrpcCodec, ReadsServiceAndMethodFromFunc) {
  struct Case {
    std::string func, service, method;
  };
  for (const auto& [func, service, method] : std::vector<Case>{
           {"/pkg.Greeter/SayHello", "pkg.Greeter", "SayHello"},
           {"xpkg.Greeter/SayHello", "pkg.Greeter", "SayHello"},  // the same for trpc-java
           {"/api/v1/hello", "api/v1", "hello"},
           {"/hello", "", "hello"},
           {"/a/", "a", ""},
           {"/", "", ""},
           {"hello", "(absent)", "hello"},
           {"", "(absent)", ""},
       }) {
    const std::string forged = Entry(9, "service", "other") + Entry(9, "method", "other");
    const Decoded request = FromClient(Unary(Request(Text(7, func) + forged)));
    ASSERT_EQ(request.result.status, Status::kMessage) << func;
    EXPECT_EQ(request.Find("func"), func) << "the last of two is the one that servers read";
    EXPECT_EQ(request.Find("service"), service) << func;
    EXPECT_EQ(request.Find("method"), method) << func;
    const Decoded open =
        FromClient(Stream(1, Text(1, Text(3, func) + Entry(5, "method", "other"))));
    EXPECT_EQ(open.Find("method"), method) << func;
    const std::string with_slash = "/" + (func.empty() ? "" : func.substr(1));
    const bool another = !func.starts_with('/') && func.find('/') != std::string::npos;
    EXPECT_EQ(request.message.metadata.has_alternative(), another) << func;
    if (another) {
      EXPECT_EQ(request.message.metadata.Alternative(kFuncKey), with_slash);
      EXPECT_EQ(open.message.metadata.Alternative(kFuncKey), with_slash);
    }
  }
  EXPECT_EQ(FromClient(Unary(Number(3, 1) + Entry(9, "method", "other"))).Find("method"),
            "(absent)");
}

TEST(TrpcCodec, CallsWithoutReplyAreOneWay) {
  EXPECT_EQ(FromClient(Unary(Request(Number(2, 1)))).message.kind, MessageKind::kOneWay);
}

TEST(TrpcCodec, TellsTheFrameworksErrorsFromTheServices) {
  const auto response = [](const std::string& more) {
    return FromServer(Unary(Number(3, 300) + more)).message;
  };
  EXPECT_EQ(response("").status, ReplyStatus::kOk);
  EXPECT_EQ(response(Number(4, 21)).status, ReplyStatus::kError);
  EXPECT_EQ(response(Number(4, 21)).status_code, 21);
  EXPECT_EQ(response(Number(5, 10001)).status, ReplyStatus::kException);
  EXPECT_EQ(response(Number(5, static_cast<uint64_t>(-7))).status_code, -7);
}

TEST(TrpcCodec, ChangesTheIdInBothPlacesWhereTheFrameHasItToo) {
  const Decoded both = FromClient(Unary(Request()));
  EXPECT_EQ(both.Encoded({.id = 300}), both.bytes);
  EXPECT_EQ(LoadBe32(both.Encoded({.id = 7}).data() + 10), 7u);
  const Decoded version_0 = FromClient(Unary(Request(), 0, 0));
  const std::string encoded = version_0.Encoded({.id = 70'000});
  EXPECT_EQ(LoadBe32(encoded.data() + 10), 0u);
  EXPECT_EQ(FromClient(encoded).message.id, 70'000u);
  EXPECT_EQ(FromClient(encoded).message.length, encoded.size());
  EXPECT_EQ(FromClient(encoded).Encoded({.id = 300}), version_0.bytes);
  const Decoded absent = FromClient(Unary(Text(7, "/f"), 0));
  EXPECT_EQ(FromClient(absent.Encoded({.id = 5})).message.id, 5u);
}

TEST(TrpcCodec, MutatesTransInfo) {
  const Mutation mutation = {{Kind::kSet, "lane", "blue"}, {Kind::kRemove, "user", ""}};
  const auto entries = [](uint32_t number) {
    return Entry(number, "user", "ann") + Entry(number, "kept", "yes");
  };
  for (const Direction side : {Direction::kRequest, Direction::kResponse}) {
    const bool is_request = side == Direction::kRequest;
    const std::string head = is_request ? Request(entries(9)) : Number(3, 300) + entries(8);
    const Decoded after(side, Decoded(side, Unary(head)).Encoded({.id = 5, .mutation = mutation}));
    ASSERT_EQ(after.result.status, Status::kMessage);
    EXPECT_EQ(after.message.length, after.bytes.size());
    EXPECT_EQ(after.message.id, 5u);
    EXPECT_EQ(after.Find("lane"), "blue");
    EXPECT_EQ(after.Find("user"), "(absent)");
    EXPECT_EQ(after.Find("kept"), "yes");
    EXPECT_EQ(after.bytes.substr(after.bytes.size() - 4), "body");
  }
}

TEST(TrpcCodec, AMutationThatNoHeadCanHoldIsLeftOut) {
  const Mutation mutation = {{Kind::kSet, "lane", std::string(65'000, 'x')}};
  const Decoded before = FromClient(Unary(Request(Entry(9, "user", std::string(1000, 'y')))));
  EXPECT_EQ(before.Encoded({.id = 300, .mutation = mutation}), before.bytes);
  const Decoded full = FromClient(Unary(Request(Entry(9, "user", std::string(65'440, 'y')))));
  EXPECT_EQ(full.result.status, Status::kUndecodable);
}

TEST(TrpcCodec, ARequestWithoutRoomForWhatIsRequiredGoesNowhere) {
  // What the client says of itself is to go, and the client leaves no room for what is to come.
  Mutation mutation = {{Kind::kRemove, "user", "", true},
                       {Kind::kSet, "role", std::string(200, 'g'), true}};
  const auto impossible = [&](const Decoded& request) {
    std::string out = "before";
    const auto encoded =
        request.codec.Encode(request.message, request.bytes, {.id = 5, .mutation = mutation}, out);
    EXPECT_EQ(encoded.impossible, out == "before");
    return encoded.impossible;
  };
  const std::string forged = Entry(9, "user", "root");
  const auto padded = [&](size_t n) {
    return Unary(Request(forged + Entry(9, "pad", std::string(n, 'y'))));
  };
  const Decoded full = FromClient(padded(65'410));
  ASSERT_EQ(full.result.status, Status::kMessage) << full.result.error;
  EXPECT_TRUE(impossible(full));
  EXPECT_FALSE(impossible(FromClient(padded(65'000))));
  for (MutationOp& op : mutation) op.required = false;
  EXPECT_FALSE(impossible(full));
}

TEST(TrpcCodec, PassesAShorterTimeoutOn) {
  const Decoded before = FromClient(Unary(Request(Number(4, 1500))));
  const Decoded after = FromClient(before.Encoded({.id = 300, .timeout_us = 200'001}));
  EXPECT_EQ(after.message.timeout_us, 201'000u);
}

TEST(TrpcCodec, OneMalformedFrameCostsItsOwnCall) {
  for (const std::string& wire : {
           Unary("\x0a\x7f"), Unary(Number(3, 300) + Text(9, "\x0a\x7f")),
           Unary(Request(Number(12, 5))),  // attachment over the body
       }) {
    const Decoded request = FromClient(wire);
    EXPECT_EQ(request.result.status, Status::kUndecodable) << testing::PrintToString(wire);
    EXPECT_EQ(request.message.length, wire.size());
  }
  std::string head_over_frame = Unary(Request());
  StoreBe16(&head_over_frame[8], 5000);
  EXPECT_EQ(FromClient(head_over_frame).result.status, Status::kUndecodable);
  EXPECT_EQ(FromClient(head_over_frame).message.id, 300u);
  for (const int type : {1, 3, 4}) {
    EXPECT_EQ(FromClient(Stream(type, "\x0a\x7f")).result.status, Status::kUndecodable);
  }
  EXPECT_EQ(FromClient(Stream(5, "")).result.status, Status::kUndecodable);
  EXPECT_EQ(FromClient(Frame({.type = 1, .stream_type = 2}, "")).result.status,
            Status::kUndecodable);
}

TEST(TrpcCodec, ForeignBytesAreToldAtOnce) {
  EXPECT_EQ(FromClient("G").result.status, Status::kError);
  EXPECT_EQ(FromClient("\x09").result.need, 16u);
  EXPECT_EQ(
      FromClient(std::string("\x09\x30\0\0\0\0\0\x0f", 8) + std::string(8, '\0')).result.status,
      Status::kError);
  EXPECT_EQ(FromClient(Frame({.type = 2}, "")).result.status, Status::kError);
}

TEST(TrpcCodec, TakesLargeFramesByTheirHead) {
  const std::string wire = Frame({.id = 300}, Request(), std::string(1000, 'x'));
  DecodeOptions streams;
  streams.allow_partial = true;
  EXPECT_EQ(Decoded(Direction::kRequest, wire.substr(0, 150), streams).result.status,
            Status::kMessage);
  EXPECT_EQ(FromClient(wire.substr(0, 150)).result.need, wire.size());
  DecodeOptions small;
  small.max_message_bytes = 500;
  const Decoded large(Direction::kRequest, wire.substr(0, 150), small);
  EXPECT_EQ(large.result.status, Status::kTooLarge);
  EXPECT_EQ(large.message.id, 300u);
}

TEST(TrpcCodec, AnswersWithRetCodes) {
  const TrpcCodec codec;
  const auto ret = [&](const Decoded& request, LocalReply reply) {
    std::string out;
    EXPECT_TRUE(
        codec.Reply({.id = request.message.id, .tag = request.message.tag}, reply, "why", out));
    const Decoded response = FromServer(out);
    EXPECT_EQ(response.message.id, 300u);
    EXPECT_EQ(LoadBe32(out.data() + 10), LoadBe32(request.bytes.data() + 10));
    EXPECT_EQ(out[14], request.bytes[14]);
    EXPECT_EQ(out.find("why") != std::string::npos, reply != LocalReply::kNoContent);
    return response.message.status_code;
  };
  for (const Decoded& request :
       {FromClient(Unary(Request())), FromClient(Unary(Request(), 0, 0))}) {
    EXPECT_EQ(ret(request, LocalReply::kNoContent), 0);
    EXPECT_EQ(ret(request, LocalReply::kNoRoute), 11);
    EXPECT_EQ(ret(request, LocalReply::kTimeout), 21);
    EXPECT_EQ(ret(request, LocalReply::kOverLimit), 23);
    EXPECT_EQ(ret(request, LocalReply::kDenied), 41);
    EXPECT_EQ(ret(request, LocalReply::kMalformed), 1);
    EXPECT_EQ(ret(request, LocalReply::kUpstreamLost), 31);
  }
}

TEST(TrpcCodec, ReadsTheFramesOfStreams) {
  const Decoded open = FromClient(Stream(1, kInitRequest));
  EXPECT_EQ(open.message.kind, MessageKind::kStreamOpen);
  EXPECT_EQ(open.message.stream_id, 9u);
  EXPECT_EQ(open.message.id, 0u);
  EXPECT_EQ(open.Find("func"), "/pkg.Greeter/Talk");
  EXPECT_EQ(open.Find("k"), "v");
  const auto kind = [](Direction side, const std::string& wire) {
    return Decoded(side, wire).message.kind;
  };
  EXPECT_EQ(kind(Direction::kResponse, Stream(1, Text(2, ""))), MessageKind::kStreamData);
  EXPECT_EQ(kind(Direction::kResponse, Stream(1, Text(2, Number(1, 12)))),
            MessageKind::kStreamReset);
  for (const Direction side : {Direction::kRequest, Direction::kResponse}) {
    EXPECT_EQ(kind(side, Stream(2, "data")), MessageKind::kStreamData);
    EXPECT_EQ(kind(side, Stream(4, "")), MessageKind::kStreamEnd);
    EXPECT_EQ(kind(side, Stream(4, Number(1, 1))), MessageKind::kStreamReset);
    EXPECT_EQ(kind(side, Stream(4, Number(2, 31))), MessageKind::kStreamReset);
    const Decoded window(side, Stream(3, Number(1, 4096)));
    EXPECT_EQ(window.message.kind, MessageKind::kStreamWindow);
    EXPECT_EQ(window.message.window, 4096u);
  }
}

TEST(TrpcCodec, WritesTheFramesOfStreams) {
  const TrpcCodec codec;
  const ReplyContext stream{.stream_id = 9};
  std::string out;
  ASSERT_TRUE(codec.ResetStream(stream, Direction::kResponse, LocalReply::kNoRoute, "why", out));
  EXPECT_EQ(FromServer(out).message.kind, MessageKind::kStreamReset);
  EXPECT_EQ(FromServer(out).message.status_code, 11);
  EXPECT_EQ(FromServer(out).message.stream_id, 9u);
  out.clear();
  ASSERT_TRUE(codec.GrantWindow(stream, Direction::kRequest, 77, out));
  EXPECT_EQ(FromClient(out).message.window, 77u);
  const Mutation mutation = {{Kind::kSet, "lane", "blue"}};
  for (const std::string& init : {kInitRequest, std::string()}) {
    const std::string changed =
        FromClient(Stream(1, init)).Encoded({.id = 5, .stream_id = 5, .mutation = mutation});
    const Decoded open = FromClient(changed);
    ASSERT_EQ(open.result.status, Status::kMessage);
    EXPECT_EQ(open.message.length, changed.size());
    EXPECT_EQ(open.message.stream_id, 5u);
    EXPECT_EQ(open.Find("lane"), "blue");
    EXPECT_EQ(open.Find("func"), init.empty() ? "(absent)" : "/pkg.Greeter/Talk");
  }
}

TEST(TrpcCodec, HasNoOptions) {
  EXPECT_NE(CreateTrpcCodec("{}").codec, nullptr);
  EXPECT_NE(CreateTrpcCodec(R"({"a": 1})").error, "");
}

TEST(TrpcCodec, KeepsTheRules) {
  const TrpcCodec codec;
  const auto check = [&](Direction side, const std::string& wire) {
    ASSERT_EQ(CheckConformance(codec, side, wire).violation.value_or(""), "")
        << testing::PrintToString(wire);
    ASSERT_EQ(CheckConformance(codec, side, wire + wire).violation.value_or(""), "");
    for (size_t i = 0; i < wire.size(); ++i) {
      for (const int byte : {0x00, 0x01, 0x7f, 0x80, 0xff, wire[i] ^ 1, wire[i] ^ 8}) {
        std::string broken = wire;
        broken[i] = static_cast<char>(byte);
        ASSERT_EQ(CheckConformance(codec, side, broken).violation.value_or(""), "")
            << testing::PrintToString(broken);
      }
    }
  };
  check(Direction::kRequest, Unary(Request(Entry(9, "a", "b") + Number(4, 5))));
  check(Direction::kRequest, Unary(Request(), 0, 0));
  check(Direction::kResponse, Unary(Number(3, 300) + Number(4, 1) + Entry(8, "a", "b")));
  check(Direction::kRequest, Stream(1, kInitRequest));
  for (const Direction side : {Direction::kRequest, Direction::kResponse}) {
    check(side, Stream(2, "data"));
    check(side, Stream(3, Number(1, 5)));
    check(side, Stream(4, Number(1, 1) + Number(2, 31) + Text(3, "text")));
  }
}

}  // namespace
}  // namespace metaprotocol::trpc
