#include "src/config/json_value.h"

#include <gtest/gtest.h>

#include <string>

namespace metaprotocol {
namespace {

// The text after reading and writing; "error: ..." if it could not be read.
std::string RoundTrip(std::string_view text, const JsonLimits& limits = {}) {
  JsonValue value;
  std::string error;
  if (!ParseJson(text, limits, value, error)) return "error: " + error;
  std::string written;
  value.AppendTo(written);
  return written;
}

TEST(JsonValue, KeepsOrderNumbersAndText) {
  const std::string text =
      R"({"b":[1,-2,18446744073709551615,1.50,1e400000],"a":{"x":null,"y":true},"c":"q\"\\\n"})";
  EXPECT_EQ(RoundTrip(R"({"b":[1,-2,18446744073709551615,1.50,1e3],"a":{"x":null},"c":"q\"\\\n"})"),
            R"({"b":[1,-2,18446744073709551615,1.50,1e3],"a":{"x":null},"c":"q\"\\\n"})");
  EXPECT_EQ(RoundTrip(text).substr(0, 6), "error:");  // no double holds that number
}

TEST(JsonValue, EscapesControlCharacters) {
  EXPECT_EQ(RoundTrip(R"("\u0000\u001f\u007f\u00e9")"), "\"\\u0000\\u001f\\u007f\xC3\xA9\"");
}

TEST(JsonValue, SaysWhereTextIsNotJson) {
  EXPECT_EQ(RoundTrip("{\n  \"a\": 1,\n}").substr(0, 33), "error: not JSON: line 3, column 1");
  EXPECT_EQ(RoundTrip("").substr(0, 33), "error: not JSON: line 1, column 1");
  EXPECT_EQ(RoundTrip("{} {}").substr(0, 33), "error: not JSON: line 1, column 4");
  EXPECT_EQ(RoundTrip("[\"\xff\"]").substr(0, 15), "error: not JSON");
}

TEST(JsonValue, RefusesAKeyThatIsThereTwice) {
  EXPECT_EQ(RoundTrip(R"([{"a":1,"b":2,"a":3}])"), "error: an object has the key \"a\" twice");
  EXPECT_EQ(RoundTrip(R"([{"a":1},{"a":2}])"), R"([{"a":1},{"a":2}])");
}

TEST(JsonValue, BoundsDepth) {
  const JsonLimits limits{.max_depth = 3};
  EXPECT_EQ(RoundTrip("[[[1]]]", limits), "[[[1]]]");
  EXPECT_EQ(RoundTrip("[[[[1]]]]", limits), "error: nested deeper than 3 levels");
  EXPECT_EQ(RoundTrip(std::string(1000000, '[')), "error: nested deeper than 64 levels");
}

TEST(JsonValue, BoundsSizeAndCount) {
  EXPECT_EQ(RoundTrip("[1,2]", {.max_bytes = 4}), "error: larger than 4 bytes");
  EXPECT_EQ(RoundTrip("[1,2]", {.max_values = 3}), "[1,2]");
  EXPECT_EQ(RoundTrip("[1,2,3]", {.max_values = 3}), "error: more than 3 values");
}

TEST(JsonValue, WritesNoMoreThanWanted) {
  JsonValue value;
  std::string error;
  ASSERT_TRUE(ParseJson("[" + std::string(1000, ' ') + "\"" + std::string(100000, 'x') + "\",1]",
                        {}, value, error));
  std::string written;
  value.AppendTo(written, 10);
  EXPECT_LE(written.size(), 20u);
}

}  // namespace
}  // namespace metaprotocol
