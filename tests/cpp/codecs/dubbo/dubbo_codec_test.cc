// The Dubbo codec against hand-made frames: header, kinds, statuses, metadata, interest.
#include "codecs/dubbo/dubbo_codec.h"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "tests/cpp/codecs/dubbo/frames.h"
#include "tests/cpp/codecs/dubbo/round_trip.h"
#include "tests/cpp/codecs/dubbo/vectors.h"

namespace metaprotocol::dubbo {
namespace {

using namespace std::string_literals;
using ResultStatus = DecodeResult::Status;

TEST(DubboCodec, RefusesOtherProtocolsAtTheFirstWrongByte) {
  EXPECT_EQ(DecodeRequest("G").result.status, ResultStatus::kError);
  EXPECT_EQ(DecodeRequest("\xdaG").result.status, ResultStatus::kError);
  EXPECT_EQ(DecodeRequest(std::string(16, 'x')).result.status, ResultStatus::kError);
  EXPECT_EQ(DecodeRequest("\xda").result.status, ResultStatus::kNeedMore);
  EXPECT_EQ(DecodeRequest("").result.need, kHeaderBytes);
}

TEST(DubboCodec, TellsTheKindsOfRequestsApart) {
  const std::string body = HeadBody() + "HZ";
  const auto kind = [&](uint8_t flags, const std::string& content) {
    const Decoded decoded = DecodeRequest(Frame(flags, 0, 5, content));
    EXPECT_EQ(decoded.result.status, ResultStatus::kMessage);
    EXPECT_EQ(decoded.message.id, 5u);
    return decoded.message.kind;
  };
  EXPECT_EQ(kind(kTwoWayRequest | 2, body), MessageKind::kRequest);
  EXPECT_EQ(kind(kFlagRequest | 2, body), MessageKind::kOneWay);
  EXPECT_EQ(kind(kTwoWayRequest | kFlagEvent | 2, "N"), MessageKind::kHeartbeat);
  EXPECT_EQ(kind(kTwoWayRequest | kFlagEvent | 2, ""), MessageKind::kHeartbeat);
  EXPECT_EQ(kind(kFlagRequest | kFlagEvent | 2, "\1R"), MessageKind::kGoAway);
  EXPECT_EQ(kind(kFlagRequest | kFlagEvent | 2, "\1W"), MessageKind::kOther);
  EXPECT_EQ(kind(kFlagEvent | 2, "N"), MessageKind::kHeartbeatReply);
  EXPECT_EQ(kind(2, "\x92"), MessageKind::kResponse) << "a client's answer to a callback";
}

TEST(DubboCodec, TellsTheKindsOfServersMessagesApart) {
  const auto kind = [&](uint8_t flags, const std::string& content) {
    return Decode(Direction::kResponse, Frame(flags, 20, 5, content)).message.kind;
  };
  EXPECT_EQ(kind(2, "\x92"), MessageKind::kResponse);
  EXPECT_EQ(kind(kTwoWayRequest | kFlagEvent | 2, "N"), MessageKind::kHeartbeat);
  EXPECT_EQ(kind(kFlagRequest | kFlagEvent | 2, "\1R"), MessageKind::kGoAway);
  EXPECT_EQ(kind(kFlagEvent | 2, "N"), MessageKind::kHeartbeatReply);
  EXPECT_EQ(kind(kTwoWayRequest | 2, HeadBody() + "HZ"), MessageKind::kRequest) << "a callback";
  EXPECT_EQ(kind(kFlagRequest | 2, "what nobody reads"), MessageKind::kOneWay);
}

TEST(DubboCodec, CallbacksPassAsTheyAreButForTheirIds) {
  for (const auto& [direction, flags] :
       {std::pair{Direction::kResponse, uint8_t{kTwoWayRequest | 2}}, {Direction::kRequest, 2}}) {
    const std::string body = "what nobody reads";
    const std::string wire = Frame(flags, 0, 5, body);
    const Decoded decoded = Decode(direction, wire);
    ASSERT_EQ(decoded.result.status, ResultStatus::kMessage);
    std::string out;
    const Encoded encoded = DubboCodec().Encode(decoded.message, wire, {.id = 9}, out);
    EXPECT_EQ(out.append(encoded.Unchanged(wire)), Frame(flags, 0, 9, body));
  }
  EXPECT_TRUE(DubboCodec().traits().server_requests);
}

TEST(DubboCodec, AnEventWithALongBodyCostsNothingElse) {
  for (const Direction direction : {Direction::kRequest, Direction::kResponse}) {
    const std::string frame = Frame(kTwoWayRequest | kFlagEvent | 2, 0, 5, std::string(2000, 'x'));
    for (const size_t n : {size_t{16}, frame.size()}) {
      const Decoded decoded = Decode(direction, frame.substr(0, n));
      EXPECT_EQ(decoded.result.status, ResultStatus::kUndecodable);
      EXPECT_EQ(decoded.message.length, frame.size());
      EXPECT_EQ(decoded.message.kind, MessageKind::kHeartbeat)
          << "no reply, and no call of anybody";
    }
  }
}

TEST(DubboCodec, ReadsStatusAndTypeOfResponses) {
  const auto status = [](uint8_t wire_status, const std::string& body, uint8_t serialization = 2) {
    const Decoded d = Decode(Direction::kResponse, Frame(serialization, wire_status, 1, body));
    EXPECT_EQ(d.result.status, ResultStatus::kMessage);
    return d.message.status;
  };
  EXPECT_EQ(status(20, "\x90N"), ReplyStatus::kException);
  EXPECT_EQ(status(20, "\x91N"), ReplyStatus::kOk);
  EXPECT_EQ(status(20, "\x92"), ReplyStatus::kOk);
  EXPECT_EQ(status(20, "\x93NHZ"), ReplyStatus::kException);
  EXPECT_EQ(status(20, "\x94NHZ"), ReplyStatus::kOk);
  EXPECT_EQ(status(20, "\x95HZ"), ReplyStatus::kOk);
  EXPECT_EQ(status(20, "\xc8\x03N"), ReplyStatus::kException);
  EXPECT_EQ(status(20, "\x96"), ReplyStatus::kError);
  EXPECT_EQ(status(20, "\1x"), ReplyStatus::kError);
  EXPECT_EQ(status(20, ""), ReplyStatus::kOk);
  EXPECT_EQ(status(20, "0\n{}\n", 6), ReplyStatus::kException);
  EXPECT_EQ(status(20, "1\n{}\n", 6), ReplyStatus::kOk);
  EXPECT_EQ(status(20, "whatever", 3), ReplyStatus::kOk);
  for (const int wire : {25, 30, 31, 35, 40, 50, 60, 70, 80, 90, 100, 0, 1, 255}) {
    EXPECT_EQ(status(static_cast<uint8_t>(wire), "\1x"), ReplyStatus::kError) << wire;
  }
}

TEST(DubboCodec, NeedsOnlyHeaderAndTypeOfAStreamedResponse) {
  const std::string frame = Frame(2, 20, 1, "\x91" + std::string(1000, 'N'));
  const DecodeOptions options = Wanting({}, true);
  EXPECT_EQ(Decode(Direction::kResponse, frame.substr(0, 16), options).result.need, 17u);
  const Decoded decoded = Decode(Direction::kResponse, frame.substr(0, 17), options);
  EXPECT_EQ(decoded.result.status, ResultStatus::kMessage);
  EXPECT_EQ(decoded.message.length, frame.size());
  EXPECT_EQ(Decode(Direction::kResponse, frame.substr(0, 17)).result.need, frame.size());
}

TEST(DubboCodec, RefusesImpossibleAndTooLargeLengthsBeforeTheBodyComes) {
  std::string header = Request("").substr(0, 16);
  StoreBe32(&header[12], 0x80000000);
  Decoded decoded = DecodeRequest(header);
  EXPECT_EQ(decoded.result.status, ResultStatus::kError);
  EXPECT_EQ(decoded.message.id, 7u);
  EXPECT_EQ(decoded.message.kind, MessageKind::kRequest);
  StoreBe32(&header[12], 100);
  DecodeOptions options;
  options.max_message_bytes = 115;
  decoded = Decode(Direction::kRequest, header, options);
  EXPECT_EQ(decoded.result.status, ResultStatus::kTooLarge);
  EXPECT_EQ(decoded.message.kind, MessageKind::kRequest);
  EXPECT_EQ(decoded.message.tag, 2u);
  options.max_message_bytes = 116;
  EXPECT_EQ(Decode(Direction::kRequest, header, options).result.need, 116u);
}

TEST(DubboCodec, ReadsHeadAndAttachments) {
  const std::string frame =
      Request(HeadBody("2.0.2", "I") + "\x90H" + Text("group") + Text("blue") + Text("user") +
              Text("zoë 😀") + Text("n") + "\x95" + "\x91" + Text("x") + Text("null") + "NZ");
  const Decoded d = DecodeRequest(frame);
  ASSERT_EQ(d.result.status, ResultStatus::kMessage) << d.result.error;
  EXPECT_EQ(d.Value("interface"), "org.Demo");
  EXPECT_EQ(d.Value("method"), "hello");
  EXPECT_EQ(d.Value("version"), "1.0");
  EXPECT_EQ(d.Value("group"), "blue");
  EXPECT_EQ(d.Value("service"), "blue/org.Demo:1.0");
  EXPECT_EQ(d.Value("dubbo_version"), "2.0.2");
  EXPECT_EQ(d.Value("parameter_types"), "I");
  EXPECT_EQ(d.Value("serialization"), "hessian2");
  EXPECT_EQ(d.Value("user"), "zoë 😀");
  EXPECT_EQ(d.Value("n"), "<absent>");
  EXPECT_EQ(d.Value("null"), "<absent>");
}

TEST(DubboCodec, LetsNoAttachmentOverrideItsOwnKeys) {
  std::string map = "H";
  for (const char* key : {"interface", "method", "version", "service", "dubbo_version",
                          "parameter_types", "serialization"}) {
    map += Text(key) + Text("forged");
  }
  const std::string body =
      Text("2.0.2") + Text("org.Demo") + "N" + Text("hello") + "\x90" + map + "Z";
  const Decoded d = DecodeRequest(Request(body));
  ASSERT_EQ(d.result.status, ResultStatus::kMessage) << d.result.error;
  EXPECT_EQ(d.Value("interface"), "org.Demo");
  EXPECT_EQ(d.Value("method"), "hello");
  EXPECT_EQ(d.Value("version"), "");
  EXPECT_EQ(d.Value("service"), "org.Demo");
  EXPECT_EQ(d.Value("dubbo_version"), "2.0.2");
  EXPECT_EQ(d.Value("parameter_types"), "");
  EXPECT_EQ(d.Value("serialization"), "hessian2");
}

TEST(DubboCodec, TakesTheLastOfEqualAttachmentsAsJavaDoes) {
  std::string map = "H";
  for (int i = 0; i < 100; ++i) map += Text("user") + Text(std::to_string(i));
  EXPECT_EQ(DecodeRequest(Request(HeadBody() + map + "Z")).Value("user"), "99");
}

TEST(DubboCodec, BuildsTheServiceKeyAsDubboDoes) {
  const auto service = [](const std::string& version, const std::string& attachments) {
    const std::string body =
        Text("2.0.2") + Text("org.Demo") + version + Text("m") + Text("") + "H" + attachments + "Z";
    return Decode(Direction::kRequest, Request(body), Wanting({"service"})).Value("service");
  };
  const std::string group = Text("group") + Text("g");
  EXPECT_EQ(service(Text("1.0"), group), "g/org.Demo:1.0");
  EXPECT_EQ(service(Text("0.0.0"), group), "g/org.Demo");
  EXPECT_EQ(service("N", ""), "org.Demo");
  EXPECT_EQ(service(Text("1.0"), ""), "org.Demo:1.0");
}

TEST(DubboCodec, AsksForTheBodyOnlyForWhatLiesThere) {
  const auto head_suffices = [](const std::vector<std::string_view>& keys) {
    return Wanting(keys).interest.head_suffices;
  };
  EXPECT_TRUE(head_suffices({}));
  EXPECT_TRUE(head_suffices(
      {"interface", "method", "version", "dubbo_version", "parameter_types", "serialization"}));
  EXPECT_FALSE(head_suffices({"group"}));
  EXPECT_FALSE(head_suffices({"service"}));
  EXPECT_FALSE(head_suffices({"interface", "some-attachment"}));
}

TEST(DubboCodec, DecodesTheHeadOfAStreamedRequest) {
  const std::string head = HeadBody("2.0.2", "Ljava/lang/String;");
  const std::string frame = Request(head + Text(std::string(5000, 'x')) + "HZ");
  const DecodeOptions options = Wanting({"interface", "method"}, true);
  EXPECT_EQ(CheckIncremental(Direction::kRequest, frame, options), std::nullopt);
  // Up to and with the method, no further.
  const size_t enough = kHeaderBytes + 6 + 9 + 4 + 6;
  EXPECT_EQ(Decode(Direction::kRequest, frame.substr(0, enough - 1), options).result.need, enough);
  const Decoded decoded = Decode(Direction::kRequest, frame.substr(0, enough), options);
  ASSERT_EQ(decoded.result.status, ResultStatus::kMessage);
  EXPECT_EQ(decoded.message.length, frame.size());
  EXPECT_EQ(decoded.Value("method"), "hello");
  EXPECT_EQ(decoded.Value("version"), "<absent>");
  // With an attachment wanted there is no way around the body.
  EXPECT_EQ(Decode(Direction::kRequest, frame.substr(0, 200), Wanting({"user"}, true)).result.need,
            frame.size());
}

TEST(DubboCodec, GivesUpOnPartialHeadsThatAreVeryLong) {
  const std::string frame = Request(Text("2.0.2") + Text(std::string(60000, 'i')) + Text("1") +
                                    Text("m") + Text("") + "HZ");
  const DecodeOptions options = Wanting({"method"}, true);
  EXPECT_EQ(Decode(Direction::kRequest, frame.substr(0, 17000), options).result.need, frame.size());
  EXPECT_EQ(Decode(Direction::kRequest, frame, options).Value("method"), "m");
}

TEST(DubboCodec, RoutesOtherSerializationsOnTheHeaderAlone) {
  for (const auto& [id, name] : std::vector<std::pair<int, std::string>>{{3, "java"},
                                                                         {4, "compactedjava"},
                                                                         {7, "nativejava"},
                                                                         {8, "kryo"},
                                                                         {9, "fst"},
                                                                         {10, "native-hessian"},
                                                                         {11, "avro"},
                                                                         {12, "protostuff"},
                                                                         {16, "gson"},
                                                                         {21, "protobuf-json"},
                                                                         {22, "protobuf"},
                                                                         {25, "kryo2"},
                                                                         {27, "msgpack"},
                                                                         {0, "0"},
                                                                         {31, "31"}}) {
    const auto flags = static_cast<uint8_t>(kTwoWayRequest | id);
    const Decoded d = DecodeRequest(Frame(flags, 0, 3, "\xff garbage"));
    ASSERT_EQ(d.result.status, ResultStatus::kMessage) << name;
    EXPECT_EQ(d.Value("serialization"), name);
    EXPECT_EQ(d.message.metadata.Entries().size(), 1u);
  }
}

TEST(DubboCodec, UnderstandsDubboxWhichCountsItsArguments) {
  const std::string head = Text("2.8.4") + Text("org.Demo") + Text("1") + Text("hello");
  const std::string map = "H" + Text("user") + Text("u") + "Z";
  EXPECT_EQ(DecodeRequest(Request(head + "\x8f" + Text("I") + "\x91" + map)).Value("user"), "u");
  EXPECT_EQ(DecodeRequest(Request(head + "\x92" + "\x91NX"s.substr(0, 2) + map)).Value("user"),
            "u");
}

TEST(DubboCodec, TakesOldClientsWithoutAttachments) {
  for (const char* attachments : {"", "N", "HZ"}) {
    const Decoded d = DecodeRequest(Request(HeadBody() + attachments));
    EXPECT_EQ(d.result.status, ResultStatus::kMessage) << d.result.error;
    EXPECT_EQ(d.Value("group"), "<absent>");
  }
}

TEST(DubboCodec, RefusesMalformedBodies) {
  for (const std::string& body :
       {""s, "N"s, Text("2.0.2"), HeadBody("2.0.2", "Q") + "HZ", HeadBody("2.0.2", "Ljava") + "HZ",
        HeadBody("2.0.2", "[") + "HZ", HeadBody("2.0.2", "I"), HeadBody() + "H" + Text("a"),
        HeadBody() + "H" + Text("a") + "Z", HeadBody("2.0.2", "I") + "\x40HZ",
        Text("2.0.2") + "N" + Text("1") + Text("m") + Text(""),
        Text("2.0.2") + Text("i") + Text("1") + "N" + Text(""), HeadBody() + "\x40"}) {
    const Decoded d = DecodeRequest(Request(body));
    EXPECT_EQ(d.result.status, ResultStatus::kUndecodable) << testing::PrintToString(body);
    EXPECT_FALSE(d.result.error.empty());
    EXPECT_EQ(d.message.id, 7u);
    EXPECT_EQ(d.message.kind, MessageKind::kRequest);
  }
}

}  // namespace
}  // namespace metaprotocol::dubbo
