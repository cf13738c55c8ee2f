// What the Dubbo codec reads of a reply's attachments, where somebody wants them.
#include <gtest/gtest.h>

#include <string>

#include "tests/cpp/codecs/dubbo/frames.h"

namespace metaprotocol::dubbo {
namespace {

using namespace std::string_literals;
using ResultStatus = DecodeResult::Status;

Decoded DecodeReply(const std::string& frame) {
  return Decode(Direction::kResponse, frame, Wanting({"load", "zone"}));
}

TEST(DubboReplyAttachments, AreReadInEverySerializationThatIsRead) {
  for (const uint64_t serialization : {2u, 6u, 23u}) {
    std::string plain;
    ASSERT_TRUE(DubboCodec().Reply({7, serialization, ""}, LocalReply::kNoContent, "", plain));
    Decoded without = DecodeReply(plain);
    EXPECT_EQ(without.Value("load"), "<absent>");
    without.message.tag |= kTagReadsResponseAttachments;
    const Decoded with = DecodeReply(EncodeAll(without, plain, Set("Load", "7")));
    EXPECT_EQ(with.message.status, ReplyStatus::kOk);
    EXPECT_EQ(with.Value("load"), "7") << serialization << ", in another case";
    EXPECT_EQ(with.Value("zone"), "<absent>");
  }
}

TEST(DubboReplyAttachments, StandBehindWhateverTheValueIs) {
  const std::string entries = "H" + Text("load") + Text("1") + Text("load") + Text("2") + "Z";
  for (const std::string& before : {"\x93"s + "C\1a\x91\1b`\x90"s, "\x94\1x"s, "\x95"s}) {
    EXPECT_EQ(DecodeReply(Frame(2, 20, 1, before + entries)).Value("load"), "2") << "the last one";
  }
  // Types without attachments have none, whatever follows the value.
  EXPECT_EQ(DecodeReply(Frame(2, 20, 1, "\x92" + entries)).Value("load"), "<absent>");
  EXPECT_EQ(DecodeReply(Frame(2, 40, 1, "\x95" + entries)).Value("load"), "<absent>");
}

TEST(DubboReplyAttachments, SayNothingWhereTheyAreMalformed) {
  const std::string good = "H" + Text("load") + Text("1");
  for (const std::string& body : {"\x95" + good, "\x95" + good + "\xff", "\x94" + good + "Z"}) {
    const Decoded decoded = DecodeReply(Frame(2, 20, 1, body));
    EXPECT_EQ(decoded.result.status, ResultStatus::kMessage)
        << "the client is told what its server said";
    EXPECT_EQ(decoded.Value("load"), "<absent>");
  }
}

TEST(DubboReplyAttachments, AreWaitedForOnlyIfTheyAreWanted) {
  const std::string frame = Frame(2, 20, 1, "\x95H" + Text("load") + Text("1") + "Z");
  const std::string part = frame.substr(0, 20);
  const auto decode = [&](const std::vector<std::string_view>& keys) {
    return Decode(Direction::kResponse, part, Wanting(keys, true)).result;
  };
  EXPECT_EQ(decode({}).status, ResultStatus::kMessage);
  EXPECT_EQ(decode({"load"}).status, ResultStatus::kNeedMore);
  EXPECT_EQ(decode({"load"}).need, frame.size());
}

}  // namespace
}  // namespace metaprotocol::dubbo
