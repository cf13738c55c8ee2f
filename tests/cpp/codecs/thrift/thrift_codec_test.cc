// What the codec does with messages at the edges: limits, errors, detection, replies.
#include "codecs/thrift/thrift_codec.h"

#include <gtest/gtest.h>

#include "tests/cpp/codecs/thrift/messages.h"
#include "tests/cpp/codecs/thrift/vectors.h"

namespace metaprotocol::thrift {
namespace {

using Status = DecodeResult::Status;
using std::string_literals::operator""s;

Decoded Response(Bytes bytes) { return DecodeOnce(bytes, Direction::kResponse); }

void ExpectError(const std::string& bytes, std::string_view why,
                 Direction direction = Direction::kRequest) {
  const Decoded decoded = DecodeOnce(bytes, direction);
  EXPECT_EQ(decoded.result.status, Status::kError);
  EXPECT_EQ(decoded.result.error, why);
}

// --- traits and interest

TEST(ThriftCodec, SaysThatServersAnswerOneCallAfterTheOther) {
  const ThriftCodec codec;
  EXPECT_EQ(codec.traits().name, "thrift");
  EXPECT_EQ(codec.traits().id_bits, 32);
  EXPECT_FALSE(codec.traits().multiplexed);
  EXPECT_TRUE(codec.traits().ordered_replies);
  EXPECT_TRUE(codec.traits().mutation_in_head);
}

TEST(ThriftCodec, GivesOnlyTheMetadataOfInterest) {
  const ThriftCodec codec;
  const std::string wire = Header(Infos(0, {{"user", "ann"}}), 1, Binary(kCall, "echo", 1));
  using Entries = std::vector<std::pair<std::string, std::string>>;
  const auto of = [&](std::vector<std::string_view> wanted) {
    MetadataKeys keys(codec.traits().metadata_keys);
    for (const std::string_view key : wanted) keys.Want(key);
    DecodeOptions options;
    options.interest = codec.InterestIn(keys);
    EXPECT_TRUE(options.interest.head_suffices);
    const Decoded decoded = Request(wire, options);
    Entries entries;
    for (const auto& [key, value] : decoded.message.metadata.Entries()) {
      entries.emplace_back(key, value);
    }
    return entries;
  };
  EXPECT_EQ(of({}), Entries{});
  EXPECT_EQ(of({"method"}), (Entries{{"method", "echo"}}));
  EXPECT_EQ(of({"user", "nobody"}), (Entries{{"user", "ann"}}));
  EXPECT_EQ(of({"method", "transport", "user"}),
            (Entries{{"method", "echo"}, {"transport", "header"}, {"user", "ann"}}));
  EXPECT_EQ(Request(wire).message.metadata.Entries().size(), 5u);
}

TEST(ThriftCodec, NoHeaderStandsInForAKeyOfTheProtocol) {
  const std::string infos = Infos(
      0,
      {{"method", "x"}, {"service", "x"}, {"Method", "x"}, {"transport", "x"}, {"protocol", "x"}});
  const Decoded plain = Request(Header(infos, 1, Binary(kCall, "echo", 1)));
  EXPECT_EQ(plain.message.metadata.Find("method"), "echo");
  EXPECT_EQ(plain.message.metadata.Find("Method"), "echo");
  EXPECT_EQ(plain.message.metadata.Find("transport"), "header");
  EXPECT_EQ(plain.message.metadata.Find("service"), std::nullopt) << "there is none";
  const Decoded multiplexed = Request(Header(infos, 1, Binary(kCall, "Orders:echo", 1)));
  EXPECT_EQ(multiplexed.message.metadata.Find("service"), "Orders");
}

TEST(ThriftCodec, AMultiplexedMethodIsAlsoWrittenWithItsService) {
  MetadataKeys keys(ThriftCodec().traits().metadata_keys);
  const uint32_t method = keys.Want("method");
  DecodeOptions options;
  options.interest = ThriftCodec().InterestIn(keys);
  for (const std::string& wire :
       {Framed(Binary(kCall, "Orders:echo", 1)), Compact(kCall, "Orders:echo", 1),
        Header(Infos(0, {}), 1, Binary(kCall, "Orders:echo", 1))}) {
    const Decoded decoded = Request(wire, options);
    EXPECT_EQ(decoded.message.metadata.Get(method), "echo");
    EXPECT_EQ(decoded.message.metadata.Alternative(method), "Orders:echo");
  }
  const Decoded plain = Request(Framed(Binary(kCall, "echo", 1)), options);
  EXPECT_EQ(plain.message.metadata.Alternative(method), std::nullopt);
}

TEST(ThriftCodec, CallsOfNamedMethodsAreOneWay) {
  const auto codec = CreateThriftCodec(R"({"one_way_methods": ["note", "Orders:tell"]})").codec;
  ASSERT_NE(codec, nullptr);
  const auto kind = [&](const std::string& wire, Direction direction = Direction::kRequest) {
    Message message;
    EXPECT_EQ(codec->Decode(nullptr, direction, wire, {}, message).status, Status::kMessage);
    return message.kind;
  };
  EXPECT_EQ(kind(Framed(Binary(kCall, "note", 1))), MessageKind::kOneWay);
  EXPECT_EQ(kind(Compact(kCall, "note", 1)), MessageKind::kOneWay);
  EXPECT_EQ(kind(Framed(Binary(kCall, "Any:note", 1))), MessageKind::kOneWay);
  EXPECT_EQ(kind(Framed(Binary(kCall, "Orders:tell", 1))), MessageKind::kOneWay);
  EXPECT_EQ(kind(Framed(Binary(kCall, "Stock:tell", 1))), MessageKind::kRequest);
  EXPECT_EQ(kind(Framed(Binary(kCall, "tell", 1))), MessageKind::kRequest);
  EXPECT_EQ(kind(Framed(Binary(kReply, "note", 1)), Direction::kResponse), MessageKind::kResponse);
  for (const char* bad : {R"({"one_way_methods": "note"})", R"({"one_way_methods": [""]})",
                          R"({"one_way_methods": [1]})", R"({"one_way_methods": {"a": "b"}})"}) {
    EXPECT_EQ(CreateThriftCodec(bad).codec, nullptr) << bad;
    EXPECT_EQ(CreateThriftCodec(bad).error.find("one_way_methods is a list of names"), 0u) << bad;
  }
}

TEST(ThriftCodec, RefusesOtherDialectsByTheirFirstBytes) {
  const std::string json = "[1,\"echo\",1,1,{\"1\":{\"str\":\"x\"}}]";
  for (const std::string& body : {json, std::string("a\0b", 3)}) {
    for (const uint32_t length : {uint32_t{32}, uint32_t{4096}}) {
      const Decoded decoded = Request(Be32(length) + body.substr(0, 2));
      EXPECT_EQ(decoded.result.status, Status::kError) << body;
      EXPECT_EQ(decoded.message.kind, MessageKind::kOther) << "no reply could be read";
    }
  }
  EXPECT_NE(Request(Be32(32) + json).result.error.find("JSON"), std::string::npos);
}

TEST(ThriftCodec, AnswersFramesOfUnknownProtocolsInFrames) {
  for (const char* begin : {"\x80\x02", "\x82\x3f", "\x90\x01", "\xc1x", "\xfe\xff"}) {
    for (const uint32_t length : {uint32_t{32}, uint32_t{4097}}) {
      const Decoded decoded = Request(Be32(length) + begin);
      EXPECT_EQ(decoded.result.status, Status::kError);
      EXPECT_EQ(decoded.message.kind, MessageKind::kRequest);
      const std::string reply = ReplyTo(decoded, LocalReply::kMalformed, "no");
      EXPECT_EQ(LoadBe32(reply.data()) + 4, reply.size());
      EXPECT_EQ(reply.substr(4, 2), "\x80\x01");
    }
  }
}

TEST(ThriftCodec, TellsTheNumberOfAnException) {
  const std::string binary("\x0B\0\1\0\0\0\2no\x08\0\2\0\0\0\6\0", 17);
  const std::string compact("\x18\2no\x15\x0c\0", 7);
  const auto code = [](const std::string& wire) {
    const Decoded decoded = DecodeOnce(wire, Direction::kResponse);
    EXPECT_EQ(decoded.result.status, Status::kMessage) << decoded.result.error;
    EXPECT_EQ(decoded.message.status, ReplyStatus::kError);
    return decoded.message.status_code;
  };
  EXPECT_EQ(code(Framed(Binary(kException, "echo", 1, binary))), 6);
  EXPECT_EQ(code(Framed(Compact(kException, "echo", 1, compact))), 6);
  EXPECT_EQ(code(Framed(Binary(kException, "echo", 1))), 0) << "an empty struct";
}

TEST(ThriftCodec, TakesCheckFramesAsAnOption) {
  for (const char* good :
       {"", "{}", " { } ", "{\"check_frames\": true}", "{\"check_frames\": false}"}) {
    EXPECT_NE(CreateThriftCodec(good).codec, nullptr) << good;
  }
  const std::pair<const char*, const char*> bad[] = {
      {"{\"a\": 1}",
       "the thrift codec has no option \"a\"; there are check_frames and one_way_methods"},
      {"{\"check_frames\": 1}", "check_frames is true or false, not 1"},
      {"{\"check_frames\": \"no\"}", "check_frames is true or false, not \"no\""},
      {"{\"check_frames\": null}", "check_frames is true or false, not null"},
      {"[]", "the thrift codec's options are a JSON object, not []"},
      {"{", "the thrift codec's options are a JSON object, not {"}};
  for (const auto& [options, error] : bad) {
    EXPECT_EQ(CreateThriftCodec(options).codec, nullptr) << options;
    EXPECT_EQ(CreateThriftCodec(options).error, error);
  }
}

TEST(ThriftCodec, NeverWaitsForMoreThanTheShortestMessage) {
  for (const std::string& wire : {
           Compact(kCall, "", 1),
           Binary(kCall, "", 1),
           OldBinary(kCall, "", 1),
           OldBinary(kCall, "a", 1),
           Framed(Compact(kCall, "", 1)),
           Framed(Binary(kCall, "", 1)),
           Framed(OldBinary(kCall, "", 1)),
           Header(Infos(2, {}), 1, Compact(kCall, "", 1)),
       }) {
    for (size_t n = 0; n < wire.size(); ++n) {
      const Decoded decoded = Request(Bytes(wire).substr(0, n));
      ASSERT_EQ(decoded.result.status, Status::kNeedMore) << decoded.result.error;
      EXPECT_LE(decoded.result.need, wire.size());
    }
    EXPECT_EQ(Request(wire).result.status, Status::kMessage);
    EXPECT_EQ(Request(wire).message.length, wire.size());
  }
}

TEST(ThriftCodec, TellsOldBinaryNamesFromFrameLengths) {
  // As long as the frame of the other could be, and with names that look like other things.
  for (const std::string name : {"a", "ping", "GET /",
                                 "\x0F"
                                 "a",
                                 "\xC3\xA9t\xC3\xA9"}) {
    EXPECT_EQ(Request(OldBinary(kCall, name, 7)).message.metadata.Find("transport"), "unframed");
    const Decoded framed = Request(Framed(OldBinary(kCall, name, 7)));
    EXPECT_EQ(framed.message.metadata.Find("transport"), "framed");
    EXPECT_EQ(framed.message.metadata.Find("protocol"), "binary/non-strict");
    EXPECT_EQ(framed.message.metadata.Find("method"), name);
  }
}

TEST(ThriftCodec, RefusesWhatIsNotThrift) {
  for (const std::string& wire :
       {"GET / HTTP/1.1\r\n"s, "\x16\x03\x01\x02\x00\x01\x00\x01\xFC\x03"s,
        "\xDA\xBB\xC2\x00\x00\x00"s, "PRPC...."s, "\x80\x02\x00\x01"s, "\x82\x22\x01\x00"s,
        "\xFF\xFF\xFF\xFF"s}) {
    const Decoded decoded = Request(wire);
    EXPECT_EQ(decoded.result.status, Status::kError);
  }
}

TEST(ThriftCodec, HasNoReplyForAClientOfUnknownDialect) {
  const Decoded decoded = Request("\xFF\xFF\xFF\xFF");
  EXPECT_EQ(decoded.message.kind, MessageKind::kOther);
  std::string out;
  EXPECT_FALSE(ThriftCodec().Reply({1, decoded.message.tag, ""}, LocalReply::kMalformed, "", out));
  EXPECT_EQ(out, "");
}

TEST(ThriftCodec, HoldsAClientToItsFirstDialect) {
  const ThriftCodec codec;
  const std::string dialects[] = {
      Framed(Binary(kCall, "a", 1)),
      Framed(OldBinary(kCall, "a", 1)),
      Framed(Compact(kCall, "a", 1)),
      Binary(kCall, "a", 1),
      OldBinary(kCall, "a", 1),
      Compact(kCall, "a", 1),
      Header(Infos(0, {}), 1, Binary(kCall, "a", 1)),
      Header(Infos(2, {}), 1, Compact(kCall, "a", 1)),
  };
  for (const std::string& first : dialects) {
    for (const std::string& second : dialects) {
      const auto state = codec.NewDecodeState(Direction::kRequest);
      ASSERT_EQ(Request(first, {}, state.get()).result.status, Status::kMessage);
      const Decoded decoded = Request(second, {}, state.get());
      if (first == second) {
        EXPECT_EQ(decoded.result.status, Status::kMessage);
      } else {
        EXPECT_EQ(decoded.result.error, "the client changed its Thrift transport or protocol");
      }
    }
  }
}

TEST(ThriftCodec, LetsAServerAnswerEveryClientInItsOwnDialect) {
  const auto state = ThriftCodec().NewDecodeState(Direction::kResponse);
  for (const std::string& wire :
       {Framed(Binary(kReply, "a", 1)), Compact(kReply, "a", 1), OldBinary(kReply, "a", 1)}) {
    EXPECT_EQ(DecodeOnce(wire, Direction::kResponse, {}, state.get()).result.status,
              Status::kMessage);
  }
}

// --- heads

TEST(ThriftCodec, SplitsMultiplexedNamesAtTheirColon) {
  const Decoded decoded = Request(Framed(Binary(kCall, "svc:a", 1)));
  EXPECT_EQ(decoded.message.metadata.Find("service"), "svc");
  EXPECT_EQ(decoded.message.metadata.Find("method"), "a");
  EXPECT_EQ(decoded.message.reply_name, "a");
}

// Apache's servers for C++ and c_glib drop empty parts, the one for Node.js what follows a second
// colon, and those for Java, Go and Python neither: each would call `a` for some of these.
TEST(ThriftCodec, RefusesNamesThatServersReadInSeveralWays) {
  for (const std::string name :
       {":", "::", ":a", "a:", "svc::a", "svc:a:", ":svc:a", "svc:a:b", "svc:a::"}) {
    for (const std::string& wire : {Framed(Binary(kCall, name, 7)), Compact(kCall, name, 7),
                                    Framed(Binary(kOneWay, name, 7)), OldBinary(kCall, name, 7)}) {
      const Decoded decoded = Request(wire);
      EXPECT_EQ(decoded.result.status, Status::kUndecodable) << name;
      EXPECT_EQ(decoded.message.length, wire.size()) << "it costs its own call";
    }
    // A server may repeat it when it says what is wrong.
    EXPECT_EQ(DecodeOnce(Framed(Binary(kReply, name, 7)), Direction::kResponse).result.status,
              Status::kMessage);
  }
}

TEST(ThriftCodec, RefusesBrokenHeads) {
  const std::string binary = Framed(Binary(kCall, "ab", 1));
  ExpectError(Framed(Binary(0, "a", 1)), "unknown Thrift message type");
  ExpectError(Framed(Binary(5, "a", 1)), "unknown Thrift message type");
  ExpectError(Framed(Binary(0x81, "a", 1)), "unknown Thrift message type");
  ExpectError(Framed(OldBinary(9, "a", 1)), "unknown Thrift message type");
  ExpectError(Framed(Compact(0, "a", 1)), "unknown Thrift message type");
  ExpectError(Compact(7, "a", 1), "unknown Thrift message type");
  ExpectError(Framed(Binary(kCall, "\xFF", 1)), "Thrift method name is not UTF-8");
  ExpectError(Framed(Binary(kCall, "a\xC0\x80", 1)), "Thrift method name is not UTF-8");
  ExpectError(Compact(kCall, "\xED\xA0\x80", 1), "Thrift method name is not UTF-8");
  ExpectError(OldBinary(kCall, "a\xE2\x82", 1), "Thrift method name is not UTF-8");
  const std::string_view zero = "Thrift method name with a zero byte";
  ExpectError(Framed(Binary(kCall, std::string("\0a", 2), 1)), zero);
  ExpectError(OldBinary(kCall, std::string("Service:\0a", 10), 1), zero);
  ExpectError(Framed(Be32(0x80010001) + Be32(0xFFFFFFFF) + "abcdefgh"),
              "negative length of a Thrift method name");
  ExpectError(Framed(Binary(kCall, std::string(4097, 'a'), 1)), "Thrift method name too long");
  ExpectError(Compact(kCall, std::string(4097, 'a'), 1), "Thrift method name too long");
  ExpectError(
      "\x82\x21\x80\x80\x80\x80\x10\x01"
      "a\0"s,
      "a Thrift varint does not fit 32 bits");
  ExpectError(
      "\x82\x21\x80\x80\x80\x80\x80\x01"
      "a\0"s,
      "a Thrift varint does not fit 32 bits");
  ExpectError(Header(Infos(2, {}), 1, Binary(kCall, "a", 1)),
              "bad version of the Thrift compact protocol");
  ExpectError(Header(Infos(0, {}), 1, Compact(kCall, "a", 1)),
              "bad version of the Thrift binary protocol");
}

TEST(ThriftCodec, KnowsWhomToTellOfAnUnknownMessageType) {
  for (const std::string& message :
       {Binary(9, "shop:buy", 7), OldBinary(9, "shop:buy", 7), Compact(6, "shop:buy", 7)}) {
    for (const std::string& wire : {Framed(message), message}) {
      const Decoded decoded = Request(wire);
      EXPECT_EQ(decoded.result.error, "unknown Thrift message type");
      EXPECT_EQ(decoded.message.kind, MessageKind::kRequest);
      EXPECT_EQ(decoded.message.reply_name, "buy");
      EXPECT_EQ(decoded.message.id, 7u);
    }
    // Nobody waits for the rest of it.
    const std::string wire = Framed(message);
    for (size_t n = 8; n < wire.size(); ++n) {
      const Decoded decoded = Request(Bytes(wire).substr(0, n));
      if (decoded.result.status == Status::kNeedMore) {
        EXPECT_LT(n, size_t{4 + 4 + 8 + 1}) << "the type has not come: old binary";
      } else {
        EXPECT_EQ(decoded.result.error, "unknown Thrift message type");
      }
    }
  }
}

TEST(ThriftCodec, RefusesHeadsThatDoNotFitTheirFrame) {
  for (const std::string& message :
       {Binary(kCall, "abcd", 1), OldBinary(kCall, "abcd", 1), Compact(kCall, "abcd", 1)}) {
    for (size_t n = 2; n < message.size(); ++n) {
      // The rest is there, but behind the frame.
      const Decoded decoded =
          Request(Be32(static_cast<uint32_t>(n)) + message + "and some more bytes");
      const bool head_fits = n + 1 == message.size();  // and no struct follows
      EXPECT_EQ(decoded.result.status, head_fits ? Status::kUndecodable : Status::kError) << n;
    }
  }
}

TEST(ThriftCodec, TakesLongestNames) {
  const std::string name(4096, 'a');
  EXPECT_EQ(Request(OldBinary(kCall, name, 1)).message.metadata.Find("method"), name);
  EXPECT_EQ(Request(Framed(Compact(kCall, name, 1))).message.metadata.Find("method"), name);
}

TEST(ThriftCodec, ReadsFbthriftsSecondCompactVersionInFramesOnly) {
  const std::string wire = Compact(kCall, "echo", 300, kEmptyStruct, 2);
  const Decoded decoded = Request(Framed(wire));
  ASSERT_EQ(decoded.result.status, Status::kMessage);
  EXPECT_EQ(decoded.message.id, 300u);
  EXPECT_EQ(EncodeWhole(decoded.message, Framed(wire), 1),
            Framed(Compact(kCall, "echo", 1, kEmptyStruct, 2)));
  EXPECT_EQ(Request(wire).result.status, Status::kError);
}

TEST(ThriftCodec, TellsMessagesOfTheWrongSideAsWhatTheyAre) {
  EXPECT_EQ(Request(Framed(Binary(kReply, "a", 1))).message.kind, MessageKind::kResponse);
  EXPECT_EQ(Response(Framed(Binary(kCall, "a", 1))).message.kind, MessageKind::kRequest);
  EXPECT_EQ(Response(Framed(Binary(kOneWay, "a", 1))).message.kind, MessageKind::kOneWay);
}

TEST(ThriftCodec, TellsDeclaredExceptionsByTheirFieldInBothFormsOfCompact) {
  const auto status = [](const std::string& body) {
    return Response(Framed(Compact(kReply, "a", 1, body))).message.status;
  };
  EXPECT_EQ(status("\0"s), ReplyStatus::kOk);                   // void
  EXPECT_EQ(status("\x05\0\x02\0"s), ReplyStatus::kOk);         // i32 in field 0
  EXPECT_EQ(status("\x1C\0\0"s), ReplyStatus::kException);      // struct in field 1
  EXPECT_EQ(status("\x0C\x28\0\0"s), ReplyStatus::kException);  // in field 20
}

// --- sizes

TEST(ThriftCodec, SaysTooLargeByTheAnnouncedLengthAndKnowsWhomToTell) {
  DecodeOptions options;
  options.max_message_bytes = 1000;
  const std::string wire = Be32(100'000) + Binary(kCall, "svc:echo", 77);
  for (const bool partial : {false, true}) {
    options.allow_partial = partial;
    const Decoded decoded = Request(wire, options);
    EXPECT_EQ(decoded.result.status, Status::kTooLarge);
    EXPECT_EQ(decoded.message.kind, MessageKind::kRequest);
    EXPECT_EQ(decoded.message.id, 77u);
    EXPECT_EQ(ReplyTo(decoded, LocalReply::kTooLarge, "big"),
              Framed(Binary(kException, "echo", 77, "\x0B\0\x01\0\0\0\3big\x08\0\x02\0\0\0\7\0"s)));
  }
  // Until the head is there it is not known whom to tell.
  EXPECT_EQ(Request(Bytes(wire).substr(0, 20), options).result.status, Status::kNeedMore);
}

TEST(ThriftCodec, TakesMessagesOfExactlyTheLimit) {
  for (const std::string& wire : {Framed(Binary(kCall, "a", 1)), Binary(kCall, "a", 1),
                                  Header(Infos(0, {{"a", "b"}}), 1, Binary(kCall, "a", 1))}) {
    DecodeOptions options;
    options.max_message_bytes = wire.size();
    EXPECT_EQ(Request(wire, options).result.status, Status::kMessage);
    options.max_message_bytes = wire.size() - 1;
    EXPECT_EQ(Request(wire, options).result.status, Status::kTooLarge);
  }
}

TEST(ThriftCodec, RefusesFramesLongerThanAnyoneWrites) {
  DecodeOptions options;
  options.max_message_bytes = SIZE_MAX;
  EXPECT_EQ(Request(Be32(0x40000000) + Binary(kCall, "a", 1), options).result.status,
            Status::kTooLarge);
  EXPECT_EQ(Request(Be32(0x3FFFFFFF) + Binary(kCall, "a", 1), options).result.status,
            Status::kNeedMore);
}

TEST(ThriftCodec, DoesNotWaitForTheHeadOfWhatIsTooLargeAnyway) {
  DecodeOptions options;
  options.max_message_bytes = 100;
  const std::string infos = Infos(0, {{"k", std::string(500, 'v')}});
  const std::string wire = Header(infos, 5, Binary(kCall, "a", 5));
  const Decoded decoded = Request(Bytes(wire).substr(0, 14), options);
  EXPECT_EQ(decoded.result.status, Status::kTooLarge);
  EXPECT_EQ(decoded.message.id, 5u);
}

TEST(ThriftCodec, KnowsWhomToTellWhenAnUnframedMessageGrowsTooLarge) {
  DecodeOptions options;
  options.max_message_bytes = 64;
  const auto state = ThriftCodec().NewDecodeState(Direction::kRequest);
  // A string of 1000 bytes in field 1, after another field that is there.
  const std::string wire =
      Binary(kCall, "echo", 9, "\x03\0\x02\x07"s + "\x0B\0\x01\0\0\x03\xE8"s + "aaaa");
  bool too_large = false;
  for (size_t n = 0; n <= wire.size() && !too_large; ++n) {
    const Decoded decoded = Request(Bytes(wire).substr(0, n), options, state.get());
    if (decoded.result.status == Status::kNeedMore) continue;
    EXPECT_EQ(decoded.result.status, Status::kTooLarge);
    EXPECT_EQ(decoded.message.id, 9u);
    EXPECT_EQ(decoded.message.reply_name, "echo");
    EXPECT_EQ(n, wire.size() - 4) << "as soon as the string's length is there";
    too_large = true;
  }
  EXPECT_TRUE(too_large);
}

// --- replies

TEST(ThriftCodec, RepliesWithTheExceptionTypesOfApache) {
  const Decoded request = Request(Framed(Binary(kCall, "a", 1)));
  const auto type = [&](LocalReply reply) {
    const std::string wire = ReplyTo(request, reply);
    return LoadBe32(wire.data() + wire.size() - 5);
  };
  EXPECT_EQ(type(LocalReply::kTooLarge), 7u);  // protocol error
  EXPECT_EQ(type(LocalReply::kMalformed), 7u);
  for (const LocalReply reply :
       {LocalReply::kNoRoute, LocalReply::kBadResponse, LocalReply::kClusterNotFound,
        LocalReply::kNoHealthyUpstream, LocalReply::kTimeout, LocalReply::kOverLimit,
        LocalReply::kDenied, LocalReply::kFault, LocalReply::kUpstreamLost,
        LocalReply::kShuttingDown}) {
    EXPECT_EQ(type(reply), 6u);  // internal error
  }
}

TEST(ThriftCodec, NoContentIsAVoidResult) {
  const auto reply = [](const std::string& wire) {
    return ReplyTo(Request(wire), LocalReply::kNoContent);
  };
  EXPECT_EQ(reply(Framed(Binary(kCall, "s:a", 1))), Framed(Binary(kReply, "a", 1)));
  EXPECT_EQ(reply(OldBinary(kCall, "a", 1)), OldBinary(kReply, "a", 1));
  EXPECT_EQ(reply(Compact(kCall, "a", 300)), Compact(kReply, "a", 300));
}

TEST(ThriftCodec, RepliesWithTheReasonsNameWhereTheTextIsEmptyOrNotText) {
  const Decoded request = Request(Framed(Binary(kCall, "a", 1)));
  EXPECT_NE(ReplyTo(request, LocalReply::kTimeout, "").find("timeout"), std::string::npos);
  EXPECT_NE(ReplyTo(request, LocalReply::kTimeout, "\xFF").find("timeout"), std::string::npos);
}

TEST(ThriftCodec, HasNoHeartbeatsAndNoGoAway) {
  const ThriftCodec codec;
  std::string out;
  const std::string wire = Framed(Binary(kCall, "a", 1));
  const Decoded decoded = Request(wire);
  const Message& request = decoded.message;
  EXPECT_FALSE(codec.HeartbeatReply(request, wire, out));
  EXPECT_FALSE(codec.GoAway({request.id, request.tag, "a"}, out));
  EXPECT_EQ(out, "");
}

// Compact has more than one way to write a number; found by fuzzing.
TEST(ThriftCodec, LeavesASequenceIdThatStaysAsItsPeerWroteIt) {
  const ThriftCodec codec;
  for (const std::string& head : {"\x82\x21\x7F"s, "\x82\x21\xFF\x00"s, "\x82\x21\xFF\x80\x00"s}) {
    for (const std::string& wire : {head + "\1a\0"s, Framed(head + "\1a\0"s)}) {
      const Decoded decoded = Request(wire);
      ASSERT_EQ(decoded.result.status, Status::kMessage);
      EXPECT_EQ(decoded.message.id, 127u);
      std::string out;
      const Encoded same = codec.Encode(decoded.message, wire, {.id = 127}, out);
      EXPECT_EQ(out.append(same.Unchanged(wire)), wire);
      out.clear();
      const Encoded other = codec.Encode(decoded.message, wire, {.id = 1}, out);
      out.append(other.Unchanged(wire));
      EXPECT_EQ(out, wire.size() == head.size() + 3 ? Compact(kCall, "a", 1)
                                                    : Framed(Compact(kCall, "a", 1)));
    }
  }
}

// A reply repeats what is behind the first colon, and is read by the same rules; found by fuzzing.
TEST(ThriftCodec, RefusesNamesToWhichNoReplyCouldBeRead) {
  for (const std::string& name : {"\0a"s, "s:\0a"s, "s:a:\0b"s, "s:a:b:\0"s, "s:a\0b"s, "ab\0"s}) {
    ExpectError(Framed(Binary(kCall, name, 1)), "Thrift method name with a zero byte");
    ExpectError(Compact(kCall, name, 1), "Thrift method name with a zero byte");
  }
  for (const std::string& name : {"s:[1"s, "s:a:[1"s}) {
    ExpectError(Framed(Binary(kCall, name, 1)), "Thrift method name begins like JSON");
  }
  for (const std::string& name : {"s:a"s, "a"s, ""s}) {
    const std::string wire = Compact(kCall, name, 1);
    EXPECT_EQ(Request(wire).result.status, Status::kMessage) << name;
  }
}

}  // namespace
}  // namespace metaprotocol::thrift
