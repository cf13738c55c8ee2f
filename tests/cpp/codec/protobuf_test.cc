// Protobuf's wire format, read and written. The bytes are those of the encoding guide
// (https://protobuf.dev/programming-guides/encoding/) where a comment says so.
#include "src/codec/protobuf.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace metaprotocol {
namespace {

using std::string_literals::operator""s;

std::vector<ProtoField> Fields(Bytes message) {
  std::vector<ProtoField> fields;
  ProtoReader reader(message);
  for (ProtoField field; reader.Next(field);) fields.push_back(field);
  EXPECT_FALSE(reader.broken());
  return fields;
}

bool IsBroken(Bytes message) {
  ProtoReader reader(message);
  ProtoField field;
  while (reader.Next(field)) {
  }
  return reader.broken();
}

TEST(Protobuf, ReadsTheEncodingGuidesExamples) {
  const auto number = Fields("\x08\x96\x01");  // Test1: a = 150
  ASSERT_EQ(number.size(), 1u);
  EXPECT_TRUE(number[0].is(1, WireType::kVarint));
  EXPECT_EQ(number[0].value, 150u);
  const auto text = Fields("\x12\x07testing");  // Test2: b = "testing"
  ASSERT_EQ(text.size(), 1u);
  EXPECT_TRUE(text[0].is(2, WireType::kLength));
  EXPECT_EQ(text[0].bytes, "testing");
  const auto nested = Fields("\x1a\x03\x08\x96\x01");  // Test3: c {a: 150}
  ASSERT_EQ(nested.size(), 1u);
  EXPECT_EQ(Fields(nested[0].bytes)[0].value, 150u);
  const auto minus_two = Fields("\x08\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01");
  EXPECT_EQ(static_cast<int64_t>(minus_two.at(0).value), -2);
}

TEST(Protobuf, PassesOverWhatItDoesNotKnowAndSaysWhereItLies) {
  const std::string message = "\x0d\1\2\3\4\x11\1\2\3\4\5\6\7\x08\x08\x05"s;
  const auto fields = Fields(message);
  ASSERT_EQ(fields.size(), 3u);
  EXPECT_TRUE(fields[0].is(1, WireType::kFixed32));
  EXPECT_TRUE(fields[1].is(2, WireType::kFixed64));
  EXPECT_EQ(fields[2].value, 5u);
  EXPECT_EQ(fields[1].begin, 5u);
  EXPECT_EQ(fields[1].end, 14u);
}

TEST(Protobuf, FindsEveryKindOfBrokenMessage) {
  EXPECT_TRUE(IsBroken("\x08"));                                          // no value
  EXPECT_TRUE(IsBroken("\x80"));                                          // half a tag
  EXPECT_TRUE(IsBroken("\x00\x01"s));                                     // field 0
  EXPECT_TRUE(IsBroken("\x0b\x0c"));                                      // a group
  EXPECT_TRUE(IsBroken("\x0e"));                                          // no wire type
  EXPECT_TRUE(IsBroken("\x0d\1\2\3"s));                                   // three of four bytes
  EXPECT_TRUE(IsBroken("\x0a\x05test"));                                  // longer than the message
  EXPECT_TRUE(IsBroken("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"));  // longer than memory
  EXPECT_TRUE(IsBroken("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"));  // eleven bytes
  EXPECT_TRUE(IsBroken("\x88\x80\x80\x80\x80\x00\x01"s));                     // a tag of six bytes
  EXPECT_TRUE(IsBroken("\xf8\xff\xff\xff\x1f\x01"));                          // over 32 bits
}

TEST(Protobuf, ReadsMapEntriesInAnyOrderAndWithPartsAbsent) {
  const auto entry = [](Bytes bytes) {
    const auto read = ReadProtoEntry(bytes);
    return read ? std::string(read->key) + "=" + std::string(read->value) : "broken";
  };
  EXPECT_EQ(entry("\x0a\x01k\x12\x01v"), "k=v");
  EXPECT_EQ(entry("\x12\x01v\x0a\x01k"), "k=v");
  EXPECT_EQ(entry("\x0a\x01k"), "k=");
  EXPECT_EQ(entry(""), "=");
  EXPECT_EQ(entry("\x0a\x01k\x12\x01v\x12\x01w\x18\x01"), "k=w");
  EXPECT_EQ(entry("\x0a\x02k"), "broken");
}

TEST(Protobuf, WritesWhatItReads) {
  std::string message;
  AppendProtoVarint(message, 1, 150);
  AppendProtoBytes(message, 2, "testing");
  EXPECT_EQ(message, "\x08\x96\x01\x12\x07testing");
  message.clear();
  AppendProtoEntry(message, 9, "k", "v");
  EXPECT_EQ(message, "\x4a\x06\x0a\x01k\x12\x01v");
}

TEST(Protobuf, TheLengthOfAMessageIsMadeGoodHoweverManyBytesItTakes) {
  for (const size_t size : {0, 1, 127, 128, 16383, 16384, 3000000}) {
    const std::string content(size, 'x');
    std::string at_once = "before";
    AppendProtoBytes(at_once, 300, content);
    std::string made_good = "before";
    EXPECT_EQ(AppendProtoMessage(made_good, 300, [&] { made_good += content; }), size);
    EXPECT_EQ(made_good, at_once) << size;
  }
}

}  // namespace
}  // namespace metaprotocol
