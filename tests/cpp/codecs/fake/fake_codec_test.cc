// The fake codec is what engine tests stand on, so it is tested like a real one.
#include "tests/cpp/support/fake_codec.h"

#include <gtest/gtest.h>

namespace metaprotocol::test {
namespace {

TEST(FakeCodec, ReadsWhatFakeMessageWrites) {
  const FakeCodec codec;
  const std::string bytes =
      FakeMessage('Q', 7, {{"interface", "a.B"}, {"name", "hello"}, {"tag", "9"}}, "body");
  const MetadataKeys everything = MetadataKeys::Everything(codec.traits().metadata_keys);
  const DecodeOptions options{.interest = codec.InterestIn(everything)};
  Message message;
  message.Clear(&everything);
  EXPECT_EQ(codec.Decode(nullptr, Direction::kRequest, bytes, options, message).status,
            DecodeResult::Status::kMessage);
  EXPECT_EQ(message.kind, MessageKind::kRequest);
  EXPECT_EQ(message.id, 7u);
  EXPECT_EQ(message.tag, 9u);
  EXPECT_EQ(message.reply_name, "hello");
  EXPECT_EQ(message.length, bytes.size());
  EXPECT_EQ(message.metadata.Find("interface"), "a.B");
  EXPECT_EQ(message.metadata.Find("body"), "body");
}

TEST(FakeCodec, AsksForMoreUntilTheMessageIsWholeAndAlwaysForMoreThanItHas) {
  const FakeCodec codec;
  const std::string bytes = FakeMessage('Q', 7, {{"a", "b"}}, "body");
  for (size_t n = 0; n < bytes.size(); ++n) {
    for (const bool partial : {false, true}) {
      DecodeOptions options;
      options.allow_partial = partial;
      Message message;
      const DecodeResult result =
          codec.Decode(nullptr, Direction::kRequest, Bytes(bytes).substr(0, n), options, message);
      if (result.status == DecodeResult::Status::kMessage) {
        EXPECT_TRUE(partial);
        EXPECT_GE(n, bytes.size() - 4);
        EXPECT_EQ(message.length, bytes.size());
      } else {
        ASSERT_EQ(result.status, DecodeResult::Status::kNeedMore);
        EXPECT_GT(result.need, n);
        EXPECT_LE(result.need, bytes.size());
      }
    }
  }
}

TEST(FakeCodec, EncodesAnotherIdAndMutationsInFrontOfTheSameBody) {
  const FakeCodec codec;
  const std::string bytes = FakeMessage('Q', 7, {{"a", "1"}, {"b", "2"}}, "body");
  Message message;
  ASSERT_EQ(codec.Decode(nullptr, Direction::kRequest, bytes, {}, message).status,
            DecodeResult::Status::kMessage);
  std::string plain;
  plain += Bytes(bytes).substr(codec.Encode(message, bytes, {.id = 8}, plain).head);
  EXPECT_EQ(plain, FakeMessage('Q', 8, {{"a", "1"}, {"b", "2"}}, "body"));

  const Mutation mutation = {{MutationOp::Kind::kSet, "a", "x"},
                             {MutationOp::Kind::kAddIfAbsent, "b", "y"},
                             {MutationOp::Kind::kRemove, "c", ""},
                             {MutationOp::Kind::kAddIfAbsent, "d", "z"}};
  std::string mutated;
  mutated += Bytes(bytes).substr(
      codec.Encode(message, bytes, {.id = 8, .mutation = mutation}, mutated).head);
  EXPECT_EQ(mutated, FakeMessage('Q', 8, {{"b", "2"}, {"a", "x"}, {"d", "z"}}, "body"));
}

TEST(FakeCodec, RepliesWithTheContextOfTheRequest) {
  const FakeCodec codec;
  std::string out;
  ASSERT_TRUE(codec.Reply({5, 9, "hello"}, LocalReply::kNoRoute, "text", out));
  ASSERT_TRUE(codec.Reply({6, 0, ""}, LocalReply::kNoContent, "text", out));
  EXPECT_EQ(out, FakeMessage('E', 5, {{"name", "hello"}, {"tag", "9"}}, "no_route") +
                     FakeMessage('R', 6, {}, "no_content"));
  const FakeCodec without_ids(FakePipelined());
  out.clear();
  ASSERT_TRUE(without_ids.Reply({0, 0, ""}, LocalReply::kTimeout, "", out));
  EXPECT_EQ(out, FakeMessage('E', std::nullopt, {}, "timeout"));
}

TEST(FakeCodec, RefusesMessagesTheWrongSideSendsAndStatesOfTheWrongDirection) {
  const FakeCodec codec;
  Message message;
  EXPECT_EQ(codec.Decode(nullptr, Direction::kResponse, FakeMessage('Q', 1), {}, message).status,
            DecodeResult::Status::kError);
  const auto state = codec.NewDecodeState(Direction::kResponse);
  EXPECT_EQ(codec.Decode(state.get(), Direction::kRequest, FakeMessage('Q', 1), {}, message).status,
            DecodeResult::Status::kError);
}

TEST(FakeCodec, ReplacesTheChecksumBehindWhatItLeavesUnchanged) {
  const FakeCodec codec(FakeWithChecksum());
  EXPECT_TRUE(codec.traits().whole_to_encode);
  const std::string bytes = FakeChecked(FakeMessage('Q', 7, {{"a", "1"}}, "body"));
  Message message;
  ASSERT_EQ(codec.Decode(nullptr, Direction::kRequest, bytes, {}, message).status,
            DecodeResult::Status::kMessage);
  for (const Mutation& mutation : {Mutation{}, Mutation{{MutationOp::Kind::kSet, "b", "22"}}}) {
    std::string out = "before";
    const Encoded encoded = codec.Encode(message, bytes, {.id = 900, .mutation = mutation}, out);
    EXPECT_EQ(encoded.Unchanged(bytes).substr(encoded.Unchanged(bytes).size() - 4), "body");
    out.append(encoded.Unchanged(bytes)).append(encoded.Tail());
    FakeKv kv = {{"a", "1"}};
    if (!mutation.empty()) kv.emplace_back("b", "22");
    EXPECT_EQ(out, "before" + FakeChecked(FakeMessage('Q', 900, kv, "body")));
  }
  std::string broken = bytes;
  broken[20] ^= 1;
  EXPECT_EQ(codec.Decode(nullptr, Direction::kRequest, broken, {}, message).status,
            DecodeResult::Status::kUndecodable);
}

TEST(FakeCodec, TellsTheMessagesOfStreamsByTheirId) {
  const FakeCodec codec(FakeStreams());
  struct Case {
    char kind;
    MessageKind expected;
    bool end;
  };
  for (const Case& c : {Case{'S', MessageKind::kStreamOpen, false},
                        {'D', MessageKind::kStreamData, false},
                        {'L', MessageKind::kStreamData, true},
                        {'F', MessageKind::kStreamEnd, true},
                        {'Z', MessageKind::kStreamReset, true},
                        {'W', MessageKind::kStreamWindow, false}}) {
    const std::string bytes = FakeMessage(c.kind, 7, {}, "65536");
    Message message;
    ASSERT_EQ(codec.Decode(nullptr, Direction::kRequest, bytes, {}, message).status,
              DecodeResult::Status::kMessage);
    EXPECT_EQ(message.kind, c.expected);
    EXPECT_EQ(message.end_stream, c.end);
    EXPECT_EQ(message.stream_id, 7u);
    EXPECT_EQ(message.id, 0u);
    EXPECT_EQ(message.window, c.kind == 'W' ? 65536u : 0u);
    std::string out;
    const Encoded encoded = codec.Encode(message, bytes, {.id = 1, .stream_id = 8}, out);
    EXPECT_EQ(out.append(encoded.Unchanged(bytes)), FakeMessage(c.kind, 8, {}, "65536"));
  }
  ReplyContext stream;
  stream.stream_id = 9;
  std::string out;
  EXPECT_TRUE(codec.ResetStream(stream, Direction::kRequest, LocalReply::kTimeout, "", out));
  EXPECT_TRUE(codec.GrantWindow(stream, Direction::kResponse, 10, out));
  EXPECT_EQ(out, FakeMessage('Z', 9, {}, "timeout") + FakeMessage('W', 9, {}, "10"));
  EXPECT_FALSE(FakeCodec().GrantWindow(stream, Direction::kResponse, 10, out));
}

TEST(FakeCodec, SaysTooLargeWithTheIdKnown) {
  const FakeCodec codec;
  DecodeOptions options;
  options.max_message_bytes = 20;
  Message message;
  EXPECT_EQ(
      codec
          .Decode(nullptr, Direction::kRequest,
                  Bytes(FakeMessage('Q', 3, {}, "0123456789")).substr(0, 13), options, message)
          .status,
      DecodeResult::Status::kTooLarge);
  EXPECT_EQ(message.id, 3u);
  EXPECT_EQ(message.kind, MessageKind::kRequest);
}

TEST(FakeCodec, ParsesStreamsBackAndKeepsLeftovers) {
  const std::string stream =
      FakeMessage('Q', 1, {{"a", "b"}}, "x") + FakeMessage('R', 2) + std::string("junk");
  const auto parsed = ParseFakeMessages(stream);
  ASSERT_EQ(parsed.size(), 3u);
  EXPECT_EQ(parsed[0], (FakeParsed{'Q', 1, {{"a", "b"}}, "x"}));
  EXPECT_EQ(parsed[1], (FakeParsed{'R', 2, {}, ""}));
  EXPECT_EQ(parsed[2], (FakeParsed{0, 0, {}, "junk"}));
}

TEST(FakeCodec, RegistersEveryPreset) {
  CodecRegistry registry;
  RegisterFakeCodecs(registry);
  for (const char* name : {"fake_multiplexed", "fake_pipelined", "fake_pipelined_ids",
                           "fake_exclusive", "fake_stateful"}) {
    const CodecOrError made = registry.Create(name, "");
    ASSERT_NE(made.codec, nullptr) << name;
    EXPECT_EQ(made.codec->traits().name, name);
  }
}

}  // namespace
}  // namespace metaprotocol::test
