// The Hessian 2 skip parser and string writer (codecs/dubbo/hessian2.h).
#include "codecs/dubbo/hessian2.h"

#include <gtest/gtest.h>

#include <string>

#include "codecs/dubbo/java_utf8.h"
#include "tests/cpp/support/cpu_time.h"

namespace metaprotocol::dubbo {
namespace {

using namespace std::string_literals;

// How many bytes the first value takes; 0 if it does not parse.
size_t Skipped(const std::string& bytes) {
  Hessian2Reader reader(bytes);
  return reader.SkipValue() ? reader.position() : 0;
}

// The value is skipped exactly, and every shorter prefix is recognized as cut short.
void ExpectWhole(const std::string& bytes) {
  EXPECT_EQ(Skipped(bytes + "Z?"), bytes.size());
  for (size_t n = 0; n < bytes.size(); ++n) {
    Hessian2Reader reader(Bytes(bytes).substr(0, n));
    EXPECT_FALSE(reader.SkipValue()) << n;
    EXPECT_TRUE(reader.truncated()) << n << ": " << reader.error();
    EXPECT_GT(reader.need(), n);
    EXPECT_LE(reader.need(), bytes.size());
  }
}

void ExpectMalformed(const std::string& bytes) {
  Hessian2Reader reader(bytes);
  EXPECT_FALSE(reader.SkipValue());
  EXPECT_FALSE(reader.truncated()) << reader.error();
  EXPECT_FALSE(reader.error().empty());
}

std::string Encoded(std::string_view text) {
  std::string out;
  AppendHessianString(out, text);
  return out;
}

std::string ReadBack(const std::string& bytes) {
  Hessian2Reader reader(bytes);
  HessianString text;
  EXPECT_TRUE(reader.ReadString(text)) << reader.error();
  EXPECT_TRUE(reader.AtEnd());
  return text.Text();
}

TEST(Hessian2Reader, SkipsEveryScalar) {
  for (const std::string& value : {"N"s,
                                   "T"s,
                                   "F"s,
                                   "\x80"s,
                                   "\xbf"s,
                                   "\xc8\x30"s,
                                   "\xd4\x12\x34"s,
                                   "I\0\0\0\1"s,
                                   "\xd8"s,
                                   "\xef"s,
                                   "\xf8\x01"s,
                                   "\x3c\x01\x02"s,
                                   "\x59\0\0\0\1"s,
                                   "L\0\0\0\0\0\0\0\1"s,
                                   "\x5b"s,
                                   "\x5c"s,
                                   "\x5d\x80"s,
                                   "\x5e\x80\x00"s,
                                   "\x5f\0\0\1\2"s,
                                   "D\0\0\0\0\0\0\0\0"s,
                                   "\x4a\0\0\0\0\0\0\0\0"s,
                                   "\x4b\0\0\0\0"s,
                                   "\0"s,
                                   "\5hello"s,
                                   "\x30\3abc"s,
                                   "S\0\2hi"s,
                                   "R\0\1aS\0\1b"s,
                                   "R\0\1a\1b"s,
                                   "R\0\0R\0\0\0"s,
                                   "\x20"s,
                                   "\x23xyz"s,
                                   "\x34\2xy"s,
                                   "B\0\2xy"s,
                                   "A\0\1x\x21y"s,
                                   "A\0\1xB\0\1y"s}) {
    ExpectWhole(value);
  }
}

TEST(Hessian2Reader, SkipsEveryContainer) {
  for (const std::string& value :
       {"\x78"s, "\x7a\x90\x91"s, "\x58\x92\x90\x91"s, "\x57\x90\x91Z"s, "\x72\4[int\x90\x91"s,
        "\x70\x90"s, "V\4[int\x92\x90\x91"s, "\x55\4[int\x90Z"s, "HZ"s, "H\1a\x90Z"s,
        "H\x78\x90NNZ"s, "M\3mapZ"s, "M\x90\1a\x90Z"s, "Q\x90"s, "C\3Foo\x92\1a\1b\x60\x90\x91"s,
        "C\3Foo\x90O\x90"s, "C\1A\x91\1xC\1B\x91\1y\x60\x61\x60N"s, "\x7a\x79\x78HZ"s,
        "C\1A\x92\1x\1y\x60\x79\x60\x90\x91\x60\x90\x91"s}) {
    ExpectWhole(value);
  }
}

TEST(Hessian2Reader, CountsFieldsOfObjectsWithoutAny) { EXPECT_EQ(Skipped("C\1A\x90\x60"), 5u); }

TEST(Hessian2Reader, RefusesWhatNoWriterMakes) {
  for (const std::string& value :
       {"\x40"s,    "E"s,        "G"s,         "P"s,
        "X"s + "N", "Z"s,        "\x60"s,      "O\x90"s,
        "O\x8f"s,   "H\1aZ"s,    "QN"s,        "\x58\x8f"s,
        "V\1aN"s,   "C\1A\x8f"s, "C\1A\x91N"s, "\x2xy"s.substr(0, 1) + "\x80\x80",
        "\1\xff"s,  "\1\x80"s,   "R\0\1aN"s,   "A\0\1aN"s,
        "\x70N"s}) {
    ExpectMalformed(value);
  }
}

TEST(Hessian2Reader, StopsAtTheEndWhateverLengthIsDeclared) {
  for (const std::string& value :
       {"\x58I\x7f\xff\xff\xff\x90"s, "V\1aI\x7f\xff\xff\xff\x90"s, "C\1AI\x7f\xff\xff\xff\1a"s}) {
    Hessian2Reader reader(value);
    EXPECT_FALSE(reader.SkipValue());
    EXPECT_TRUE(reader.truncated());
  }
}

TEST(Hessian2Reader, AllowsNestingUpToItsLimitAndNotBeyond) {
  // One-element variable lists: the end marker keeps every level open.
  const auto nested = [](size_t depth) {
    return std::string(depth, '\x57') + std::string(depth, 'Z');
  };
  EXPECT_EQ(Skipped(nested(kMaxHessianDepth)), 2 * kMaxHessianDepth);
  ExpectMalformed(nested(kMaxHessianDepth + 2));
}

TEST(Hessian2Reader, FollowsChainsOfAnyLengthInTheLastField) {
  std::string chain = "C\4Node\x92\4name\4next";
  for (int i = 0; i < 100000; ++i) chain += "\x60\1a";
  chain += "N";
  EXPECT_EQ(Skipped(chain), chain.size());
}

TEST(Hessian2Reader, LimitsClassDefinitions) {
  std::string classes;
  for (size_t i = 0; i < kMaxHessianClasses; ++i) classes += "C\1A\x90";
  EXPECT_EQ(Skipped(classes + "N"), classes.size() + 1);
  EXPECT_EQ(Skipped(classes + "O\xc8\x20"), classes.size() + 3);
  ExpectMalformed("C\1A\x90" + classes + "N");
}

TEST(Hessian2Reader, TakesTimeInProportionToTheBytes) {
  // Wide objects of one class, the densest work per byte.
  const auto skipping = [](size_t objects) {
    std::string wide = "C\1A\xd4\x10\x00"s;
    for (int i = 0; i < 4096; ++i) wide += '\0';
    for (size_t i = 0; i < objects; ++i) wide += "\x60" + std::string(4095, 'N');
    for (size_t i = 0; i < objects; ++i) wide += 'N';
    return [wide, objects] { EXPECT_GT(Skipped(wide), objects * 4096); };
  };
  EXPECT_LT(test::GrowthOfUnitCost(16, skipping), test::kLinear);
}

TEST(Hessian2Reader, CountsWhatCanBeAndWhatIsReferredTo) {
  const std::string bytes = "\x7b\x71\3[in\x90\x71\x90\x91Q\x91";
  Hessian2Reader reader(bytes);
  ASSERT_TRUE(reader.SkipValue());
  EXPECT_EQ(reader.references_used(), 2u);  // the type and the value
  EXPECT_EQ(reader.referables_made(), 4u);  // three lists and a type
}

TEST(Hessian2String, CountsUtf16UnitsAndWritesSurrogateHalves) {
  EXPECT_EQ(Encoded("ab"), "\2ab");
  EXPECT_EQ(Encoded("é世"), "\2\xc3\xa9\xe4\xb8\x96");
  EXPECT_EQ(Encoded("😀"), "\2\xed\xa0\xbd\xed\xb8\x80");
  EXPECT_EQ(Encoded(""), "\0"s);
  EXPECT_EQ(Encoded("\xff"), "\1\xef\xbf\xbd");
}

TEST(Hessian2String, ChoosesTheShortestLengthForm) {
  EXPECT_EQ(Encoded(std::string(31, 'a')).size(), 32u);
  EXPECT_EQ(Encoded(std::string(32, 'a')).substr(0, 2), "\x30\x20");
  EXPECT_EQ(Encoded(std::string(1023, 'a')).substr(0, 2), "\x33\xff");
  EXPECT_EQ(Encoded(std::string(1024, 'a')).substr(0, 3), "S\x04\x00"s);
  EXPECT_EQ(Encoded(std::string(0x8000, 'a')).substr(0, 3), "S\x80\x00"s);
  EXPECT_EQ(Encoded(std::string(0x8001, 'a')).substr(0, 3), "R\x80\x00"s);
}

TEST(Hessian2String, NeverSplitsAPairBetweenChunks) {
  std::string text(0x7fff, 'a');
  for (int i = 0; i < 40000; ++i) text += "😀";
  const std::string encoded = Encoded(text);
  EXPECT_EQ(encoded.substr(0, 3), "R\x7f\xff");
  EXPECT_EQ(ReadBack(encoded), text);
}

TEST(Hessian2String, ReadsBackWhatItWrites) {
  for (const size_t size : {0u, 1u, 31u, 32u, 1023u, 1024u, 32767u, 32768u, 32769u, 70000u}) {
    std::string text;
    while (text.size() < size) text += "aé世😀z";
    EXPECT_EQ(ReadBack(Encoded(text)), text) << size;
  }
}

TEST(Hessian2String, IsAViewOfTheWireWhereThatIsUtf8) {
  Metadata owner;
  for (const std::string& bytes : {"\5hello"s, "\3gr\xc3\xbc"s, "\x30\1x"s}) {
    Hessian2Reader reader(bytes);
    HessianString text;
    ASSERT_TRUE(reader.ReadString(text));
    const std::string_view view = text.Text(owner);
    EXPECT_EQ(view.data() + view.size(), bytes.data() + bytes.size());
  }
}

TEST(Hessian2String, IsAsciiOrNotWhereverTheOddCharacterStands) {
  for (const size_t length : {0, 1, 7, 8, 9, 15, 16, 17, 30, 31, 32, 40, 1022, 1023, 1024}) {
    const std::string plain(length, 'x');
    EXPECT_EQ(ReadBack(Encoded(plain)), plain);
    for (size_t at = 0; at<length; at += length> 100 ? 93 : 1) {
      const std::string odd = plain.substr(0, at) + "\u00e9" + plain.substr(at + 1);
      const std::string bytes = Encoded(odd);
      Hessian2Reader reader(bytes);
      HessianString text;
      ASSERT_TRUE(reader.ReadString(text)) << reader.error();
      EXPECT_TRUE(reader.AtEnd());
      EXPECT_FALSE(text.ascii) << length << " with an odd one at " << at;
      EXPECT_EQ(text.Text(), odd);
    }
  }
}

TEST(Hessian2String, KnowsThatItIsCutShort) {
  for (const size_t length : {0, 1, 31, 32, 300, 1023, 1024}) {
    const std::string bytes = Encoded(std::string(length, 'x'));
    for (size_t n = 0; n < bytes.size(); ++n) {
      Hessian2Reader reader(Bytes(bytes).substr(0, n));
      HessianString text;
      EXPECT_FALSE(reader.ReadString(text)) << n;
      EXPECT_TRUE(reader.truncated()) << n << ": " << reader.error();
      EXPECT_GT(reader.need(), n);
      EXPECT_LE(reader.need(), bytes.size());
    }
  }
}

TEST(Hessian2String, JoinsPairsThatStraddleChunks) {
  EXPECT_EQ(ReadBack("R\0\1\xed\xa0\xbd\1\xed\xb8\x80"s), "😀");
}

TEST(Hessian2String, TurnsLoneHalvesIntoTheReplacementCharacter) {
  EXPECT_EQ(ReadBack("\3a\xed\xa0\xbd"
                     "b"),
            "a\xef\xbf\xbd"
            "b");
  EXPECT_EQ(ReadBack("\3a\xed\xb8\x80"
                     "b"),
            "a\xef\xbf\xbd"
            "b");
}

TEST(Hessian2String, SeesWhatJavaSeesInOverlongAndBrokenForms) {
  EXPECT_EQ(ReadBack("\1\xc1\x81"), "A");         // Java does not mind overlong forms
  EXPECT_EQ(ReadBack("\1\xc3\x29"), "\xc3\xa9");  // nor does it check continuation bytes
}

TEST(Hessian2String, CountsFourByteSequencesOnceAsTheirWritersDo) {
  EXPECT_EQ(ReadBack("\1\xf0\x9f\x98\x80"), "😀");
}

TEST(Hessian2String, MayBeNull) {
  Hessian2Reader reader("N");
  HessianString text;
  ASSERT_TRUE(reader.ReadString(text));
  EXPECT_TRUE(text.null);
  EXPECT_EQ(text.Text(), "");
}

TEST(Hessian2Int, ReadsEveryForm) {
  const std::pair<std::string, int32_t> cases[] = {{"\x80", -16},
                                                   {"\x90", 0},
                                                   {"\xbf", 47},
                                                   {"\xc0\x00"s, -2048},
                                                   {"\xcf\xff", 2047},
                                                   {"\xd0\x00\x00"s, -262144},
                                                   {"\xd7\xff\xff", 262143},
                                                   {"I\x80\x00\x00\x00"s, INT32_MIN},
                                                   {"I\x7f\xff\xff\xff", INT32_MAX},
                                                   {"\xc8\x30", 48},
                                                   {"\xd4\x08\x00"s, 2048}};
  for (const auto& [bytes, expected] : cases) {
    Hessian2Reader reader(bytes);
    int32_t value = 0;
    ASSERT_TRUE(reader.ReadInt(value));
    EXPECT_EQ(value, expected);
    EXPECT_TRUE(reader.AtEnd());
  }
}

TEST(Utf8, TellsStrictFromBroken) {
  EXPECT_TRUE(IsUtf8("aé世😀"));
  for (const char* bad : {"\x80", "\xc1\x81", "\xc3", "\xe0\x80\x80", "\xed\xa0\xbd",
                          "\xf4\x90\x80\x80", "\xf0\x80\x80\x80", "\xff", "\xe4\xb8"}) {
    EXPECT_FALSE(IsUtf8(bad)) << bad;
  }
  EXPECT_TRUE(IsAscii("0123456789"));
  EXPECT_FALSE(IsAscii("0123456\xc3\xa9"));
  EXPECT_FALSE(IsAscii("01234567\xc3"));
}

// Strings are looked at many bytes at a time: a character of two bytes takes one more than its
// string's length says, wherever it stands.
TEST(Hessian2, ACharacterThatIsNotAsciiIsSeenWhereverItStands) {
  for (size_t units = 1; units <= 300; ++units) {
    const std::string head = {static_cast<char>(0x30 + (units >> 8)), static_cast<char>(units)};
    EXPECT_EQ(Skipped(head + std::string(units, 'a') + "Z"), head.size() + units);
    for (size_t at = 0; at < units; ++at) {
      const std::string text = std::string(at, 'a') + "\xc3\xa9" + std::string(units - at - 1, 'a');
      EXPECT_EQ(Skipped(head + text + "Z"), head.size() + text.size()) << units << ", " << at;
    }
  }
}

}  // namespace
}  // namespace metaprotocol::dubbo
