// fastjson bodies (codecs/dubbo/json_values.h).
#include "codecs/dubbo/json_values.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace metaprotocol::dubbo {
namespace {

std::string Text(const std::string& token) {
  std::string text;
  return JsonText(token, text) ? text : "<not a string>";
}

std::vector<std::string> Members(const std::string& line, bool& well_formed) {
  std::vector<std::string> found;
  JsonObjectReader object(line);
  well_formed = object.Begin();
  if (!well_formed) return found;
  JsonMember member;
  while (object.Next(member)) {
    found.push_back(std::string(member.key) + "=" + std::string(member.value));
  }
  well_formed = !object.malformed();
  return found;
}

TEST(JsonValues, CutsAtEitherSeparatorAndKeepsAnUnfinishedLineBack) {
  Bytes line;
  JsonValues partial("a\r\nb\nc", false);
  ASSERT_TRUE(partial.Next(line));
  EXPECT_EQ(line, "a");
  ASSERT_TRUE(partial.Next(line));
  EXPECT_EQ(line, "b");
  EXPECT_FALSE(partial.Next(line));
  JsonValues complete("c", true);
  ASSERT_TRUE(complete.Next(line));
  EXPECT_EQ(line, "c");
  EXPECT_FALSE(complete.Next(line));
}

TEST(JsonText, UndoesEveryEscape) {
  EXPECT_EQ(Text(R"("plain")"), "plain");
  EXPECT_EQ(Text(R"("\"\\\/\b\f\n\r\t'")"), "\"\\/\b\f\n\r\t'");
  EXPECT_EQ(Text(R"("\u00e9\u4e16\ud83d\ude00")"), "é世😀");
  EXPECT_EQ(Text(R"("\ud83dx")"), "\xef\xbf\xbdx");
  EXPECT_EQ(Text("\"a\xff\""), "a\xef\xbf\xbd");
}

TEST(JsonText, RefusesWhatIsNoString) {
  for (const char* token :
       {"", "\"", "x", "\"a", "\"a\"b\"", R"("\")", R"("\u12")", R"("\x")", "1"}) {
    EXPECT_EQ(Text(token), "<not a string>") << token;
  }
}

TEST(JsonText, IsAViewWhereNothingIsEscaped) {
  Metadata owner;
  std::string_view text;
  const std::string token = "\"hello\"";
  ASSERT_TRUE(JsonText(token, owner, text));
  EXPECT_EQ(text.data(), token.data() + 1);
}

TEST(JsonObjectReader, FindsMembersAndStepsOverAnyValue) {
  bool well_formed = false;
  EXPECT_EQ(
      Members(R"({"a":"1" , "b" : {"x":[1,"}"]}, "c":-1.5e3,"d":null,"e":[[],{}]})", well_formed),
      (std::vector<std::string>{"\"a\"=\"1\"", "\"b\"={\"x\":[1,\"}\"]}", "\"c\"=-1.5e3",
                                "\"d\"=null", "\"e\"=[[],{}]"}));
  EXPECT_TRUE(well_formed);
  EXPECT_TRUE(Members("{}", well_formed).empty());
  EXPECT_TRUE(well_formed);
}

TEST(JsonObjectReader, NoticesMalformedObjects) {
  for (const char* line : {"[]", "{", "{\"a\"}", "{\"a\":}", "{\"a\":1", "{\"a\":1,}", "{a:1}",
                           "{\"a\":[1}", "{\"a\":1 2}", "{\"a:1}"}) {
    bool well_formed = true;
    Members(line, well_formed);
    EXPECT_FALSE(well_formed) << line;
  }
}

TEST(JsonString, EscapesWhatJsonDemands) {
  std::string out;
  AppendJsonString(out, "a\"\\\n\x01é😀\xff");
  EXPECT_EQ(out, "\"a\\\"\\\\\\u000a\\u0001é😀\xef\xbf\xbd\"");
  EXPECT_EQ(Text(out), "a\"\\\n\x01é😀\xef\xbf\xbd");
}

}  // namespace
}  // namespace metaprotocol::dubbo
