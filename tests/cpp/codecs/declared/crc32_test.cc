// Declared protocols whose messages end with a checksum.
#include "codecs/declared/crc32.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "src/codec/conformance.h"
#include "tests/cpp/codecs/declared/declarations.h"

namespace metaprotocol::declared {
namespace {

using Status = DecodeResult::Status;

TEST(Crc32Test, IsThatOfZlib) {
  EXPECT_EQ(Crc32(""), 0u);
  EXPECT_EQ(Crc32("123456789"), 0xcbf43926u);  // the check value of the CRC catalogue
  const std::string text = "The quick brown fox jumps over the lazy dog";
  EXPECT_EQ(Crc32(text), 0x414fa339u);
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    EXPECT_EQ(Crc32(Bytes(text).substr(cut), Crc32(Bytes(text).substr(0, cut))), Crc32(text));
  }
}

std::string Checked(uint32_t id, std::string_view method, std::string_view body) {
  std::string message(1, '\1');
  AppendBe32(message, id);
  message += Be16(1 + method.size() + body.size());
  message += static_cast<char>(method.size());
  message.append(method).append(body);
  return message + Be32(Crc32(message));
}

class CheckedTest : public testing::Test {
 protected:
  Status Decode(Bytes bytes, bool partial = false) {
    message_.Clear();
    DecodeOptions options;
    options.allow_partial = partial;
    result_ = codec_->Decode(nullptr, Direction::kRequest, bytes, options, message_);
    return result_.status;
  }
  std::string Encode(Bytes bytes, const EncodeOptions& options) {
    std::string out;
    const Encoded encoded = codec_->Encode(message_, bytes, options, out);
    return out.append(encoded.Unchanged(bytes)).append(encoded.Tail());
  }

  const std::shared_ptr<const DeclaredCodec> codec_ = Make(kChecked);
  Message message_;
  DecodeResult result_;
};

TEST_F(CheckedTest, AMessageThatItsChecksumFitsIsReadAndOneThatItDoesNotIsAnswered) {
  const std::string good = Checked(7, "get", "body");
  ASSERT_EQ(Decode(good), Status::kMessage) << result_.error;
  EXPECT_EQ(message_.length, good.size());
  for (size_t i = 8; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x10);
    ASSERT_EQ(Decode(bad), Status::kUndecodable) << i;
    EXPECT_EQ(message_.kind, MessageKind::kRequest);
    EXPECT_EQ(message_.id, 7u);
    EXPECT_EQ(message_.length, good.size());  // the next one can be found
  }
}

TEST_F(CheckedTest, IsWaitedForAsAWholeHoweverLarge) {
  EXPECT_TRUE(codec_->traits().whole_to_encode);
  const std::string large = Checked(7, "get", std::string(50000, 'x'));
  ASSERT_EQ(Decode(Bytes(large).substr(0, 100), true), Status::kNeedMore);
  EXPECT_EQ(result_.need, large.size());
}

TEST_F(CheckedTest, WhatIsChangedGetsAnotherChecksum) {
  const std::string message = Checked(7, "get", "body");
  ASSERT_EQ(Decode(message), Status::kMessage);
  EXPECT_EQ(Encode(message, {.id = 0x01020304}), Checked(0x01020304, "get", "body"));
  const std::vector<MutationOp> ops = {{MutationOp::Kind::kSet, "method", "remove"}};
  EXPECT_EQ(Encode(message, {.id = 9, .mutation = ops}), Checked(9, "remove", "body"));
  EXPECT_EQ(Encode(message, {.id = 7}), message);
}

TEST_F(CheckedTest, MessagesWithoutOneStayWithout) {
  std::string message = Checked(7, "get", "body");
  message[0] = '\0';
  message.resize(message.size() - kCrc32Bytes);
  ASSERT_EQ(Decode(message), Status::kMessage) << result_.error;
  EXPECT_EQ(message_.length, message.size());
  message[4] = '\x08';
  EXPECT_EQ(Encode(message, {.id = 8}), message);
}

TEST_F(CheckedTest, RepliesHaveOneIfWhatTheyCopyFromTheRequestSaysSo) {
  const std::string message = Checked(7, "get", "body");
  ASSERT_EQ(Decode(message), Status::kMessage);
  std::string out;
  ASSERT_TRUE(codec_->Reply({.id = 7, .tag = message_.tag}, LocalReply::kNoRoute, "no way", out));
  EXPECT_EQ(out, Checked(7, "no_route", "no way"));
}

TEST_F(CheckedTest, HoldsWhatCodecsPromise) {
  const std::string two = Checked(7, "get", "body") + Checked(8, "put", "");
  for (const Direction direction : {Direction::kRequest, Direction::kResponse}) {
    const auto result = CheckConformance(*codec_, direction, two);
    EXPECT_FALSE(result.violation) << *result.violation;
    EXPECT_EQ(result.messages, 2u);
  }
}

TEST(DeclaredCrc32Test, WhatIsWrongIsTold) {
  const auto error = [](std::string_view json) { return CreateDeclaredCodec("test", json).error; };
  EXPECT_EQ(error(R"({"framing": {"delimiter": "\n"}, "crc32": {}})"),
            "declaration.crc32: needs framing by a length: behind a delimiter is the next message");
  EXPECT_EQ(error(R"({"framing": {"length": {"fields": ["n"]}}, "fields": [
      {"name": "n", "bytes": 2}, {"name": "t", "lengthPrefix": 1}, {"name": "f", "bytes": 1}],
      "crc32": {"when": [{"field": "f", "values": [1]}]}})"),
            "declaration.crc32.when[0].field: \"f\": is not at a fixed place: the fields before it "
            "must have fixed sizes");
}

}  // namespace
}  // namespace metaprotocol::declared
