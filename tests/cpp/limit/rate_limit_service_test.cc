// The rate limit service's messages, against bytes that protoc makes of the same.
#include "src/limit/rate_limit_service.h"

#include <gtest/gtest.h>

#include <string>

namespace metaprotocol {
namespace {

using namespace std::string_literals;

TEST(RateLimitService, WritesARequestAsProtobufDoes) {
  RateLimitRequestWriter writer;
  writer.AddDescriptor("method", "get");
  writer.AddDescriptor("user", "");
  EXPECT_EQ(writer.Finish("prod"),
            "\x0a\x04prod"  // domain
            "\x12\x0f"      // a descriptor
            "\x0a\x0d\x0a\x06method\x12\x03get"
            "\x12\x0a"  // another
            "\x0a\x08\x0a\x04user\x12\x00"
            "\x18\x01"s);  // hits_addend
}

TEST(RateLimitService, WritesLengthsOfSeveralBytes) {
  RateLimitRequestWriter writer;
  writer.AddDescriptor("k", std::string(300, 'v'));
  const std::string message = writer.Finish("d");
  EXPECT_EQ(message.substr(0, 12),
            "\x0a\x01"
            "d\x12\xb5\x02\x0a\xb2\x02\x0a\x01k"s);
  EXPECT_EQ(message.substr(12, 3), "\x12\xac\x02");
}

TEST(RateLimitService, WritesOnlyUtf8) {
  const auto value = [](const std::string& text) {
    RateLimitRequestWriter writer;
    writer.AddDescriptor("", text);
    const std::string message = writer.Finish("");
    return message.substr(10, message.size() - 12);
  };
  for (const char* good : {"", "plain", "é€😀", "\xf4\x8f\xbf\xbf", "\xed\x9f\xbf"}) {
    EXPECT_EQ(value(good), good);
  }
  EXPECT_EQ(value("a\xff"
                  "b"),
            "a?b");
  EXPECT_EQ(value("\xc3"), "?") << "cut";
  EXPECT_EQ(value("\xe2\x82"), "??") << "cut";
  EXPECT_EQ(value("\xc0\x80"), "??") << "overlong";
  EXPECT_EQ(value("\xe0\x80\x80"), "???") << "overlong";
  EXPECT_EQ(value("\xf0\x80\x80\x80"), "????") << "overlong";
  EXPECT_EQ(value("\xed\xa0\x80"), "???") << "a surrogate";
  EXPECT_EQ(value("\xf4\x90\x80\x80"), "????") << "beyond the last character";
  EXPECT_EQ(value("\xf8\x88\x80\x80\x80"), "?????");
}

TEST(RateLimitService, ReadsTheVerdictAmongOtherFields) {
  EXPECT_EQ(ReadRateLimitResponse("\x08\x01"s), RateLimitVerdict::kOk);
  EXPECT_EQ(ReadRateLimitResponse("\x08\x02"s), RateLimitVerdict::kOverLimit);
  // statuses, a varint, a fixed64 and a fixed32 of unknown fields around it.
  EXPECT_EQ(ReadRateLimitResponse("\x12\x02\x08\x02\x50\xff\x01\x08\x01"s
                                  "\x59"
                                  "12345678"
                                  "\x5d"
                                  "1234"s),
            RateLimitVerdict::kOk);
  EXPECT_EQ(ReadRateLimitResponse("\x08\x01\x08\x02"s), RateLimitVerdict::kOverLimit)
      << "the last one counts";
}

TEST(RateLimitService, WhatIsNoVerdictIsNone) {
  for (const std::string& message :
       {""s, "\x08"s, "\x08\x00"s, "\x08\x03"s, "\x08\x81"s,
        "\x12\x05"
        "ab"s,
        "\x0b"s,
        "\x59"
        "123"s,
        "\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"s, "\x08\x02\x12"s,
        "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"s}) {
    EXPECT_EQ(ReadRateLimitResponse(message), RateLimitVerdict::kNone);
  }
}

}  // namespace
}  // namespace metaprotocol
