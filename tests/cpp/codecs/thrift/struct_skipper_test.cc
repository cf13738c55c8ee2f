// The structural skip: hostile nesting, counts and trickles. That it finds the ends of real structs
// is thrift_vectors_test's business.
#include "codecs/thrift/struct_skipper.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/cpp/codecs/thrift/messages.h"

namespace metaprotocol::thrift {
namespace {

using Status = DecodeResult::Status;
using std::string_literals::operator""s;

DecodeResult Skip(Protocol protocol, const std::string& bytes, size_t* end = nullptr) {
  StructSkipper skipper;
  skipper.Start(protocol, 0);
  const DecodeResult result = skipper.Run(bytes, SIZE_MAX);
  if (end) *end = skipper.position();
  return result;
}

// A binary struct with one field of that type and value.
std::string Field(int type, const std::string& value) {
  return std::string{static_cast<char>(type), '\0', '\1'} + value + '\0';
}

TEST(StructSkipper, StopsAtTheDepthItStates) {
  for (const Protocol protocol : {Protocol::kBinary, Protocol::kCompact}) {
    const std::string open = protocol == Protocol::kBinary ? "\x0C\0\1"s : "\x1C"s;
    for (const size_t depth : {size_t{1}, StructSkipper::kMaxDepth, StructSkipper::kMaxDepth + 1}) {
      std::string bytes;
      for (size_t i = 1; i < depth; ++i) bytes += open;
      bytes.append(depth, '\0');
      const DecodeResult result = Skip(protocol, bytes);
      if (depth <= StructSkipper::kMaxDepth) {
        EXPECT_EQ(result.status, Status::kMessage) << depth << result.error;
      } else {
        EXPECT_EQ(result.error, "Thrift structs and containers nested too deep");
      }
    }
  }
}

TEST(StructSkipper, CountsContainersAsDepthToo) {
  std::string bytes("\x0F\0\1", 3);
  for (size_t i = 0; i < 1000; ++i) bytes += '\x0F' + Be32(1);
  EXPECT_EQ(Skip(Protocol::kBinary, bytes).error, "Thrift structs and containers nested too deep");
}

TEST(StructSkipper, RefusesElementsOfNoSize) {
  // void (1), stop (0) and numbers that are no type, in lists, sets, maps and fields.
  for (const int type : {0, 1, 5, 7, 9, 17, 127, 255}) {
    const std::string t(1, static_cast<char>(type));
    for (const int list : {14, 15}) {
      EXPECT_EQ(Skip(Protocol::kBinary, Field(list, t + Be32(0x7FFFFFFF))).status, Status::kError);
    }
    EXPECT_EQ(Skip(Protocol::kBinary, Field(13, t + '\3' + Be32(2))).status, Status::kError);
    EXPECT_EQ(Skip(Protocol::kBinary, Field(13, '\3' + t + Be32(2))).status, Status::kError);
    if (type != 0) {
      EXPECT_EQ(Skip(Protocol::kBinary, Field(type, "")).status, Status::kError);
    }
  }
  for (const int type : {0, 14, 15}) {
    const std::string list = {'\x19', static_cast<char>(0x20 | type), '\0', '\0', '\0'};
    EXPECT_EQ(Skip(Protocol::kCompact, list).status, Status::kError);
  }
}

TEST(StructSkipper, TakesEmptyContainersOfNoType) {
  EXPECT_EQ(Skip(Protocol::kBinary, Field(15, '\0' + Be32(0))).status, Status::kMessage);
  EXPECT_EQ(Skip(Protocol::kBinary, Field(13, std::string(2, '\0') + Be32(0))).status,
            Status::kMessage);
  EXPECT_EQ(Skip(Protocol::kCompact, "\x1B\0\0"s).status, Status::kMessage);
  EXPECT_EQ(Skip(Protocol::kCompact, "\x19\0\0"s).status, Status::kMessage);
}

TEST(StructSkipper, RefusesNegativeSizes) {
  EXPECT_EQ(Skip(Protocol::kBinary, Field(11, Be32(0x80000000))).error,
            "negative length of a Thrift string");
  EXPECT_EQ(Skip(Protocol::kBinary, Field(15, '\x0B' + Be32(0xFFFFFFFF))).error,
            "negative size of a Thrift container");
  EXPECT_EQ(Skip(Protocol::kBinary, Field(13, "\x0B\x0B" + Be32(0x80000000))).error,
            "negative size of a Thrift container");
  EXPECT_EQ(Skip(Protocol::kCompact, "\x18" + Varint(0x80000000)).error,
            "negative length of a Thrift string");
  EXPECT_EQ(Skip(Protocol::kCompact, "\x19\xFC" + Varint(0x80000000)).error,
            "negative size of a Thrift container");
  EXPECT_EQ(Skip(Protocol::kCompact, "\x1B" + Varint(0x80000000) + "\x88").error,
            "negative size of a Thrift container");
}

TEST(StructSkipper, SaysAtOnceHowMuchABigContainerTakesAtLeast) {
  // Of empty structs, one byte each; of longs; of pairs.
  EXPECT_GE(Skip(Protocol::kBinary, Field(15, '\x0C' + Be32(0x7FFFFFFF))).need, 0x7FFFFFFFu);
  EXPECT_GE(Skip(Protocol::kBinary, Field(15, '\x0A' + Be32(0x7FFFFFFF))).need, 8 * 0x7FFFFFFFull);
  EXPECT_GE(Skip(Protocol::kBinary, Field(13, "\x0B\x0C" + Be32(0x7FFFFFFF))).need,
            2 * 0x7FFFFFFFull);
  EXPECT_GE(Skip(Protocol::kBinary, Field(13, "\x08\x0A" + Be32(0x7FFFFFFF))).need,
            12 * 0x7FFFFFFFull);
}

TEST(StructSkipper, RefusesVarintsThatDoNotEnd) {
  EXPECT_EQ(Skip(Protocol::kCompact, "\x15\x80\x80\x80\x80\x80").error,
            "a Thrift varint is too long");
  EXPECT_EQ(Skip(Protocol::kCompact, "\x16" + std::string(10, '\x80')).error,
            "a Thrift varint is too long");
  EXPECT_EQ(Skip(Protocol::kCompact, "\x05\x80\x80\x80").error, "a Thrift varint is too long");
}

TEST(StructSkipper, ReadsEachByteOnceHoweverTheyTrickleIn) {
  // A struct of a list of many small structs: a fresh start at each byte would take 10^10 steps.
  const uint32_t count = 50'000;
  std::string bytes = Field(15, '\x0C' + Be32(count));
  bytes.pop_back();
  for (uint32_t i = 0; i < count; ++i) bytes += Field(3, "x");
  bytes += '\0';
  StructSkipper skipper;
  skipper.Start(Protocol::kBinary, 0);
  size_t before = 0;
  for (size_t n = 0; n < bytes.size(); ++n) {
    ASSERT_EQ(skipper.Run(Bytes(bytes).substr(0, n), SIZE_MAX).status, Status::kNeedMore);
    ASSERT_GE(skipper.position(), before);
    ASSERT_GE(skipper.position() + 8, n)
        << "what has come is behind it, but for a piece of a token";
    before = skipper.position();
  }
  EXPECT_EQ(skipper.Run(bytes, SIZE_MAX).status, Status::kMessage);
  EXPECT_EQ(skipper.position(), bytes.size());
}

TEST(StructSkipper, EndsBeforeTheNextMessage) {
  size_t end = 0;
  const std::string one = Field(11, Be32(3) + "abc");
  EXPECT_EQ(Skip(Protocol::kBinary, one + "\x0C\x0C\x0C", &end).status, Status::kMessage);
  EXPECT_EQ(end, one.size());
}

}  // namespace
}  // namespace metaprotocol::thrift
