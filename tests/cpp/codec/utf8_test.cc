// Strict UTF-8, against a list of what is and what is not.
#include "src/codec/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace metaprotocol {
namespace {

using namespace std::string_literals;

TEST(Utf8, TakesWhatRfc3629TakesAndNothingElse) {
  for (const std::string& text :
       {""s, "plain"s, "\0"s, "\x7f"s, "\xc2\x80"s, "\xdf\xbf"s, "\xe0\xa0\x80"s, "\xed\x9f\xbf"s,
        "\xee\x80\x80"s, "\xef\xbf\xbf"s, "\xf0\x90\x80\x80"s, "\xf4\x8f\xbf\xbf"s, "zoë 😀"s}) {
    for (const size_t shift : {0, 1, 7, 8, 9}) {
      EXPECT_TRUE(IsUtf8(std::string(shift, 'a') + text + "a")) << testing::PrintToString(text);
    }
  }
  for (const std::string& text :
       {"\x80"s, "\xbf"s, "\xc0\x80"s, "\xc1\xbf"s, "\xc2"s, "\xc2\x41"s, "\xe0\x9f\xbf"s,
        "\xe0\xa0"s, "\xed\xa0\x80"s, "\xed\xbf\xbf"s, "\xf0\x8f\xbf\xbf"s, "\xf0\x90\x80"s,
        "\xf4\x90\x80\x80"s, "\xf5\x80\x80\x80"s, "\xff"s}) {
    for (const size_t shift : {0, 1, 7, 8, 9}) {
      EXPECT_FALSE(IsUtf8(std::string(shift, 'a') + text)) << testing::PrintToString(text);
      EXPECT_FALSE(IsUtf8(std::string(shift, 'a') + text + "abc")) << testing::PrintToString(text);
    }
  }
}

TEST(Utf8, WritesEveryCharacterThatItReads) {
  for (uint32_t c = 0; c <= 0x110000; c += c < 0x3000 ? 1 : 97) {
    std::string text;
    AppendUtf8(text, c);
    const bool surrogate = c >= 0xD800 && c <= 0xDFFF;
    const CodePoint read = Utf8At(text, 0);
    ASSERT_EQ(read.value, surrogate || c > 0x10FFFF ? kReplacementCharacter : c);
    ASSERT_EQ(read.width, text.size());
    ASSERT_TRUE(IsUtf8(text));
  }
}

TEST(Utf8, BrokenBytesComeOutOneByOne) {
  Utf8Iterator it("a\xc3\x28\xe2\x82z");
  std::u32string all;
  while (!it.Done()) all.push_back(static_cast<char32_t>(it.Next()));
  EXPECT_EQ(all, U"a\uFFFD(\uFFFD\uFFFDz");
}

TEST(Utf8, AsciiIsWhatHasNoHighBit) {
  for (size_t size = 0; size < 40; ++size) {
    std::string text(size, 'x');
    EXPECT_TRUE(IsAscii(text));
    for (size_t i = 0; i < size; ++i) {
      text[i] = '\x80';
      EXPECT_FALSE(IsAscii(text)) << i << " of " << size;
      text[i] = 'x';
    }
  }
}

}  // namespace
}  // namespace metaprotocol
