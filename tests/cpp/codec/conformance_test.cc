// Every codec of this build keeps the rules of src/codec/conformance.h, with captured messages and
// with each byte of them broken; and the rules find codecs that do not.
#include "src/codec/conformance.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "codecs/dubbo/dubbo_codec.h"
#include "codecs/thrift/thrift_codec.h"
#include "tests/cpp/codecs/declared/declarations.h"
#include "tests/cpp/codecs/dubbo/vectors.h"

namespace metaprotocol {
namespace {

std::vector<std::string> Broken(const std::string& message) {
  std::vector<std::string> all;
  for (size_t i = 0; i < message.size() && i < 400; ++i) {
    for (const int byte : {0x00, 0x7f, 0x80, 0xff, message[i] ^ 1}) {
      std::string broken = message;
      broken[i] = static_cast<char>(byte);
      all.push_back(std::move(broken));
    }
  }
  return all;
}

void Check(const Codec& codec, Direction direction, const std::string& message) {
  ASSERT_EQ(CheckConformance(codec, direction, message).violation.value_or(""), "");
  ASSERT_EQ(CheckConformance(codec, direction, message + message).violation.value_or(""), "");
  for (const std::string& broken : Broken(message)) {
    const auto result = CheckConformance(codec, direction, broken);
    ASSERT_EQ(result.violation.value_or(""), "") << testing::PrintToString(broken);
  }
}

TEST(ConformanceTest, DeclaredCodecsKeepTheRules) {
  using namespace declared;
  const std::string request = AcmeRequest(7, "shop", "get", {{"user", "ann"}, {"zone", "b"}});
  const std::string rest(6, '\0');
  for (const Direction direction : {Direction::kRequest, Direction::kResponse}) {
    Check(*Make(kAcme), direction, request);
    Check(*Make(kAcme), direction, AcmeFrame(2, 0, 7, rest));
    Check(*Make(kAcme), direction, AcmeFrame(5, 1, 7, "body"));
    Check(*Make(kLines), direction, "AX1 42 shop.get user=ann;b the body\n");
    Check(*Make(kNullable), direction,
          std::string("\0\0\0\x0e\0\x03\xff\xff\0\x02\x01"
                      "a\x01"
                      "1\x01"
                      "b\0",
                      18));
    Check(*Make(kSizes), direction, std::string(20, '\0'));
  }
}

TEST(ConformanceTest, TheDubboCodecKeepsTheRules) {
  const dubbo::DubboCodec codec;
  size_t i = 0;
  for (const dubbo::Vector& vector : dubbo::AllVectors()) {
    SCOPED_TRACE(vector.full_name());
    const auto result = CheckConformance(codec, vector.direction(), vector.bytes);
    ASSERT_EQ(result.violation.value_or(""), "");
    EXPECT_EQ(result.messages, 1u);
    if (i++ % 16 != 0) continue;
    for (const std::string& broken : Broken(vector.bytes)) {
      ASSERT_EQ(CheckConformance(codec, vector.direction(), broken).violation.value_or(""), "")
          << testing::PrintToString(broken);
    }
  }
}

// Kitex numbers its headers apart from its messages.
TEST(ConformanceTest, TheThriftCodecKeepsTheRulesWithAnIdInTheHeaderAndOneInTheMessage) {
  const std::string ttheader(
      "\0\0\0\x2c\x10\0\0\0\0\0\0\x07\0\x01\0\0\0\0"
      "\0\0\0\x1a\x80\x01\0\x01\0\0\0\x04"
      "echo\0\0\xf2\x07\x0b\0\x01\0\0\0\x02"
      "hi\0",
      48);
  Check(thrift::ThriftCodec(), Direction::kRequest, ttheader);
  std::string reply = ttheader;
  reply[25] = 2;
  Check(thrift::ThriftCodec(), Direction::kResponse, reply);
}

TEST(ConformanceTest, TheRulesCountWhatTheyHaveSeen) {
  using namespace declared;
  const std::string request = AcmeRequest(7, "shop", "get");
  const auto result = CheckConformance(*Make(kAcme), Direction::kRequest, request + request);
  EXPECT_EQ(result.messages, 2u);
  EXPECT_NE(result.features, 0u);
}

// A declared codec with something wrong about it.
class Wrong : public Codec {
 public:
  explicit Wrong(std::shared_ptr<const Codec> right) : right_(std::move(right)) {}
  const CodecTraits& traits() const override { return right_->traits(); }
  Interest InterestIn(const MetadataKeys& keys) const override { return right_->InterestIn(keys); }
  DecodeResult Decode(DecodeState* state, Direction direction, Bytes bytes,
                      const DecodeOptions& options, Message& message) const override {
    return right_->Decode(state, direction, bytes, options, message);
  }
  Encoded Encode(const Message& message, Bytes bytes, const EncodeOptions& options,
                 std::string& out) const override {
    return right_->Encode(message, bytes, options, out);
  }
  bool Reply(const ReplyContext& request, LocalReply reply, std::string_view text,
             std::string& out) const override {
    return right_->Reply(request, reply, text, out);
  }

 protected:
  const std::shared_ptr<const Codec> right_;
};

std::string ViolationOf(const Codec& codec) {
  return CheckConformance(codec, Direction::kRequest, declared::AcmeRequest(7, "shop", "get"))
      .violation.value_or("");
}

TEST(ConformanceTest, ACodecThatAsksForLessThanItHasIsFound) {
  struct Stuck final : Wrong {
    using Wrong::Wrong;
    DecodeResult Decode(DecodeState* state, Direction direction, Bytes bytes,
                        const DecodeOptions& options, Message& message) const override {
      if (bytes.size() < 40) return DecodeResult::NeedMore(1);
      return Wrong::Decode(state, direction, bytes, options, message);
    }
  };
  EXPECT_EQ(ViolationOf(Stuck(declared::Make(declared::kAcme))),
            "decoding: wants 1 bytes in all, and has got 37");
}

TEST(ConformanceTest, ACodecThatTellsPiecesFromTheWholeIsFound) {
  struct Hasty final : Wrong {
    using Wrong::Wrong;
    DecodeResult Decode(DecodeState* state, Direction direction, Bytes bytes,
                        const DecodeOptions& options, Message& message) const override {
      if (bytes.size() == 30) return DecodeResult::Error("no");
      return Wrong::Decode(state, direction, bytes, options, message);
    }
  };
  EXPECT_NE(ViolationOf(Hasty(declared::Make(declared::kAcme))).find("cut into pieces"),
            std::string::npos);
}

TEST(ConformanceTest, ACodecWhoseEncodingChangesMoreThanTheIdIsFound) {
  struct Sloppy final : Wrong {
    using Wrong::Wrong;
    Encoded Encode(const Message& message, Bytes bytes, const EncodeOptions& options,
                   std::string& out) const override {
      const Encoded encoded = Wrong::Encode(message, bytes, options, out);
      if (options.id != message.id) out[4] = '\x01';  // the status
      return encoded;
    }
  };
  EXPECT_NE(ViolationOf(Sloppy(declared::Make(declared::kAcme))), "");
}

TEST(ConformanceTest, AReplyWithAnotherIdIsFound) {
  struct Mistaken final : Wrong {
    using Wrong::Wrong;
    bool Reply(const ReplyContext& request, LocalReply reply, std::string_view text,
               std::string& out) const override {
      ReplyContext other = request;
      ++other.id;
      return Wrong::Reply(other, reply, text, out);
    }
  };
  EXPECT_EQ(ViolationOf(Mistaken(declared::Make(declared::kAcme))), "a reply has another id");
}

TEST(ConformanceTest, AReplyThatIsNoMessageIsFound) {
  struct Silent final : Wrong {
    using Wrong::Wrong;
    bool Reply(const ReplyContext&, LocalReply, std::string_view, std::string& out) const override {
      out.append("sorry");
      return true;
    }
  };
  EXPECT_EQ(ViolationOf(Silent(declared::Make(declared::kAcme))),
            "a reply is no message of the protocol");
}

}  // namespace
}  // namespace metaprotocol
