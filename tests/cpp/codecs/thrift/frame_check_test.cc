// What stands behind the message in its frame is found, whole or in pieces, and nothing else is.
#include "codecs/thrift/frame_check.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "tests/cpp/codecs/thrift/messages.h"
#include "tests/cpp/codecs/thrift/vectors.h"

namespace metaprotocol::thrift {
namespace {

using Status = DecodeResult::Status;
using std::string_literals::operator""s;

// One field of each kind that has a length of its own, in each protocol.
const std::string kBinaryStruct = "\x0B\0\1"s + Be32(5) + "hello" + "\x0F\0\2\x08"s + Be32(2) +
                                  Be32(1) + Be32(2) + "\x0D\0\3\x0B\x0A"s + Be32(1) + Be32(1) +
                                  "k" + std::string(8, 'v') + "\x0C\0\4\0\0"s;
const std::string kCompactStruct =
    "\x18\5hello\x19\x25\x80\x80\x80\x80\1\3\x1B\1\x86\1k\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\1"s
    "\x1C\0\0"s;

std::vector<std::string> Messages() {
  return {Binary(kCall, "buy", 1, kBinaryStruct), OldBinary(kCall, "buy", 1, kBinaryStruct),
          Compact(kCall, "buy", 1, kCompactStruct), Binary(kOneWay, "buy", 1),
          Compact(kCall, "", 1)};
}

std::string InFrame(const std::string& message, bool header) {
  if (!header) return Framed(message);
  return Header(Infos(message[0] == '\x82' ? 2 : 0, {{"user", "ann"}}), 1, message);
}

// Decodes `wire` as it comes in parts that end at `cuts`, passing on what it can.
DecodeResult InParts(const ThriftCodec& codec, Bytes wire, const std::vector<size_t>& cuts) {
  const auto state = codec.NewDecodeState(Direction::kRequest);
  DecodeOptions options;
  options.allow_partial = true;
  DecodeResult result;
  size_t passed = 0;
  for (const size_t cut : cuts) {
    if (passed != 0) {
      const auto part = std::make_unique<char[]>(cut - passed);
      std::copy(wire.begin() + passed, wire.begin() + cut, part.get());
      const std::string_view wrong = codec.CheckBody(state.get(), {part.get(), cut - passed});
      if (!wrong.empty()) return DecodeResult::Undecodable(wrong);
      passed = cut;
      continue;
    }
    Message message;
    result = codec.Decode(state.get(), Direction::kRequest, wire.substr(0, cut), options, message);
    if (result.status == Status::kMessage) passed = cut;
    if (result.status == Status::kUndecodable) return result;
  }
  return result;
}

TEST(FrameCheck, RefusesAnythingBehindTheMessageInEveryProtocol) {
  for (const std::string& message : Messages()) {
    for (const bool header : {false, true}) {
      if (header && message[0] == '\0') continue;  // THeader has no old binary
      EXPECT_EQ(DecodeOnce(InFrame(message, header), Direction::kRequest).result.status,
                Status::kMessage);
      for (const std::string& behind : {"\0"s, "x"s, message, std::string(5000, '\0')}) {
        const Decoded decoded = DecodeOnce(InFrame(message + behind, header), Direction::kRequest);
        EXPECT_EQ(decoded.result.error, "more than one message in a Thrift frame");
        EXPECT_EQ(decoded.result.status, Status::kUndecodable);
        EXPECT_EQ(decoded.message.id, 1u) << "known for the reply";
        EXPECT_EQ(decoded.message.length, InFrame(message + behind, header).size())
            << "and so is where the next one begins";
      }
    }
  }
}

TEST(FrameCheck, RefusesStructsThatDoNotEndInTheirFrame) {
  for (const std::string& message : Messages()) {
    const std::string cut = message.substr(0, message.size() - 1);
    EXPECT_EQ(DecodeOnce(Framed(cut) + "\0\0\0"s, Direction::kRequest).result.status,
              Status::kUndecodable)
        << "even if more is there";
  }
  const std::string liar = Binary(kCall, "a", 1, "\x0B\0\1"s + Be32(1000) + "abc");
  EXPECT_EQ(DecodeOnce(Framed(liar), Direction::kRequest).result.error,
            "a Thrift struct runs over the end of its frame");
}

TEST(FrameCheck, LetsEverythingPassWhenSwitchedOff) {
  const ThriftCodec codec({.check_frames = false});
  const std::string wire = Framed(Binary(kCall, "a", 1) + Binary(kCall, "b", 2));
  Message message;
  EXPECT_EQ(codec.Decode(nullptr, Direction::kRequest, wire, {}, message).status, Status::kMessage);
  EXPECT_EQ(message.length, wire.size());
  EXPECT_EQ(InParts(codec, wire, {20, wire.size()}).status, Status::kMessage);
}

TEST(FrameCheck, LeavesRepliesAlone) {
  EXPECT_EQ(DecodeOnce(Framed(Binary(kReply, "a", 1) + "more"), Direction::kResponse).result.status,
            Status::kMessage);
}

TEST(FrameCheck, TakesEveryCapturedRequestHoweverItIsCut) {
  const ThriftCodec codec;
  std::mt19937 random(1);
  for (const Vector& vector : ReadVectors()) {
    if (!vector.is_request() || vector.transport == "unframed") continue;
    for (size_t cut = 1; cut < vector.wire.size(); ++cut) {
      EXPECT_EQ(InParts(codec, vector.wire, {cut, vector.wire.size()}).status, Status::kMessage)
          << vector.Describe() << " cut at " << cut;
    }
    std::vector<size_t> every;
    for (size_t n = 1; n <= vector.wire.size(); ++n) every.push_back(n);
    EXPECT_EQ(InParts(codec, vector.wire, every).status, Status::kMessage) << vector.Describe();
  }
}

TEST(FrameCheck, FindsWhatIsHiddenHoweverTheFrameIsCut) {
  const ThriftCodec codec;
  for (const std::string& message : Messages()) {
    const std::string wire = Framed(message + message);
    std::vector<size_t> every;
    for (size_t n = 1; n <= wire.size(); ++n) every.push_back(n);
    EXPECT_EQ(InParts(codec, wire, every).error, "more than one message in a Thrift frame");
    for (size_t a = 1; a < wire.size(); ++a) {
      EXPECT_EQ(InParts(codec, wire, {a, wire.size()}).status, Status::kUndecodable) << a;
      for (size_t b = a + 1; b < wire.size(); ++b) {
        EXPECT_EQ(InParts(codec, wire, {a, b, wire.size()}).status, Status::kUndecodable)
            << a << " " << b;
      }
    }
  }
}

TEST(FrameCheck, RefusesThePartThatWouldPassTheEndOfTheStruct) {
  const std::string message = Binary(kCall, "a", 1, kBinaryStruct);
  const std::string wire = Framed(message + message);
  FrameCheck check;
  const size_t body = 4 + message.size() - kBinaryStruct.size();
  const size_t end = 4 + message.size();
  EXPECT_EQ(check.Start(Protocol::kBinary, body, Bytes(wire).substr(0, body), wire.size()), "");
  EXPECT_EQ(check.Continue(Bytes(wire).substr(body, end - body - 1)), "");
  EXPECT_EQ(check.Continue(Bytes(wire).substr(end - 1, 1)),
            "more than one message in a Thrift frame")
      << "the struct's last byte, with more announced";
}

}  // namespace
}  // namespace metaprotocol::thrift
