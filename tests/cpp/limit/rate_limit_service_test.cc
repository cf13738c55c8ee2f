// The rate limit service's messages, against bytes that protoc makes of the same.
#include "src/limit/rate_limit_service.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "tests/cpp/support/proto_fields.h"

namespace metaprotocol {
namespace {

using namespace std::string_literals;
namespace proto = test::proto;

TEST(RateLimitService, WritesARequestAsProtobufDoes) {
  RateLimitRequestWriter writer;
  writer.BeginDescriptor();
  writer.AddEntry("method", "get");
  writer.BeginDescriptor();
  writer.AddEntry("user", "");
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
  writer.BeginDescriptor();
  writer.AddEntry("k", std::string(300, 'v'));
  const std::string message = writer.Finish("d");
  EXPECT_EQ(message.substr(0, 12),
            "\x0a\x01"
            "d\x12\xb5\x02\x0a\xb2\x02\x0a\x01k"s);
  EXPECT_EQ(message.substr(12, 3), "\x12\xac\x02");
}

TEST(RateLimitService, WritesOnlyUtf8) {
  const auto value = [](const std::string& text) {
    RateLimitRequestWriter writer;
    writer.BeginDescriptor();
    writer.AddEntry("", text);
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

// A DescriptorStatus under field 2.
std::string Status(const std::string& limit, uint64_t remaining, uint64_t reset) {
  return proto::Text(2, proto::Number(1, 1) + proto::Text(2, limit) + proto::Number(3, remaining) +
                            proto::Text(4, proto::Number(1, reset)));
}

std::string Limit(uint64_t requests, uint64_t unit, std::string_view name = {}) {
  return proto::Number(1, requests) + proto::Number(2, unit) +
         (name.empty() ? "" : proto::Text(3, name));
}

TEST(RateLimitState, IsThatOfTheLimitWithFewestRequestsLeft) {
  const RateLimitState state = ReadRateLimitState(
      Status(Limit(9, 1), 5, 1) + Status(Limit(8, 4, "a\"\\\n\xc3\xa9"), 2, 7) +
      Status(Limit(7, 99), 2, 5) + proto::Text(2, proto::Number(1, 1) + proto::Number(3, 0)));
  EXPECT_EQ(state.limit, "8, 9;w=1, 8;w=86400;name=\"a?????\"");
  EXPECT_EQ(state.remaining, 2u);
  EXPECT_EQ(state.reset_seconds, 7u);
  for (const auto& [unit, seconds] :
       {std::pair{2, 60}, {3, 3600}, {5, 2592000}, {6, 31536000}, {7, 604800}}) {
    EXPECT_EQ(ReadRateLimitState(Status(Limit(1, static_cast<uint64_t>(unit)), 0, 0)).limit,
              "1, 1;w=" + std::to_string(seconds));
  }
  EXPECT_EQ(ReadRateLimitState(Status("", 0, 0)).limit, "0");
}

TEST(RateLimitState, WhatSaysNothingOfALimitTellsNothing) {
  for (const std::string& message :
       {std::string(), proto::Number(1, 1), proto::Text(2, ""), proto::Text(2, "\x08"),
        proto::Text(2, proto::Text(2, "") + "\x0b"), "\x12\x7f"s}) {
    EXPECT_EQ(ReadRateLimitState(message).limit, "");
    EXPECT_TRUE(ReadRateLimitState(message).entries.empty());
  }
}

TEST(RateLimitState, IsBoundedWhateverTheServiceSays) {
  std::string message;
  for (int i = 0; i < 1000; ++i) {
    message += Status(Limit(UINT64_MAX, 7, std::string(1000, 'n')), UINT64_MAX, UINT64_MAX);
    message += proto::Entry(3, "key", "value");
    message += proto::Entry(3, "", "value");
    message += proto::Entry(3, std::string(257, 'k'), "value");
    message += proto::Entry(3, "key", std::string(257, 'v'));
  }
  const RateLimitState state = ReadRateLimitState(message);
  EXPECT_LT(state.limit.size(), kMostLimitsTold * (kMostLimitText + 64));
  EXPECT_EQ(state.entries.size(), kMostLimitEntries);
  for (const MutationOp& entry : state.entries) EXPECT_EQ(entry.value, "value");
}

}  // namespace
}  // namespace metaprotocol
