// The authorization service's messages, against bytes that protoc makes of the same.
#include "src/filter/external_authorization/check_messages.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "src/codec/protobuf.h"
#include "tests/cpp/support/proto_fields.h"

namespace metaprotocol {
namespace {

using test::proto::Text;

using namespace std::string_literals;
using Kind = CheckVerdict::Kind;

TEST(CheckMessages, WritesARequestAsProtobufDoes) {
  CheckRequestWriter writer;
  writer.SetSource("10.0.0.1", "spiffe://a");
  writer.SetDestination("10.0.0.2", 20880);
  writer.SetCalled("shop", "buy");
  writer.SetProtocol("dubbo");
  writer.AddMetadata("user", "\xff");
  writer.SetMessage(300, "ab\xff"s);
  writer.AddContext("k", "v");
  EXPECT_EQ(writer.Finish(),
            "\x0a\x6e"
            "\x0a\x1c\x0a\x0e\x0a\x0c\x12\x08"
            "10.0.0.1\x18\x00\x22\x0aspiffe://a"
            "\x12\x12\x0a\x10\x0a\x0e\x12\x08"
            "10.0.0.2\x18\x90\xa3\x01"
            "\x22\x32\x12\x30"
            "\x12\x03"
            "buy\x22\x09/shop/buy\x2a\x04shop"
            "\x52\x05"
            "dubbo\x1a\x09\x0a\x04user\x12\x01?\x48\xac\x02\x62\x03"
            "ab\xff"
            "\x52\x06\x0a\x01k\x12\x01v"s);
}

TEST(CheckMessages, AllowsOnlyWhatSaysSo) {
  EXPECT_EQ(ReadCheckResponse(Text(1, "")).kind, Kind::kAllowed) << "a status, which is OK";
  EXPECT_EQ(ReadCheckResponse(Text(1, "\x08\x00"s)).kind, Kind::kAllowed);
  EXPECT_EQ(ReadCheckResponse(Text(3, "")).kind, Kind::kAllowed) << "an ok_response";
  EXPECT_EQ(ReadCheckResponse("").kind, Kind::kNone);
  EXPECT_EQ(ReadCheckResponse(Text(4, "")).kind, Kind::kNone) << "dynamic_metadata alone";
  EXPECT_EQ(ReadCheckResponse(Text(1, "\x08\x07")).kind, Kind::kDenied);
  EXPECT_EQ(ReadCheckResponse(Text(1, "\x08\x07") + Text(3, "")).kind, Kind::kDenied);
  EXPECT_EQ(ReadCheckResponse(Text(1, "") + Text(2, "")).kind, Kind::kDenied);
  EXPECT_EQ(ReadCheckResponse(Text(1, "") + Text(5, "")).kind, Kind::kDenied);
  EXPECT_EQ(ReadCheckResponse(Text(1, "\xff")).kind, Kind::kNone) << "broken";
  EXPECT_EQ(ReadCheckResponse(Text(1, "") + "\xff").kind, Kind::kNone) << "broken";
  EXPECT_EQ(ReadCheckResponse(Text(3, "\xff")).kind, Kind::kNone) << "broken";
  EXPECT_EQ(ReadCheckResponse(Text(3, Text(2, "\xff"))).kind, Kind::kNone) << "broken";
  EXPECT_EQ(ReadCheckResponse(Text(3, Text(2, Text(1, "\xff")))).kind, Kind::kNone) << "broken";
}

TEST(CheckMessages, ADenialsBodyGoesBeforeItsStatus) {
  const std::string status = Text(1, "\x08\x07" + Text(2, "no"));
  EXPECT_EQ(ReadCheckResponse(status).text, "no");
  EXPECT_EQ(ReadCheckResponse(status + Text(2, Text(3, "never"))).text, "never");
  EXPECT_EQ(ReadCheckResponse(Text(2, Text(3, "never")) + status).text, "never");
  EXPECT_EQ(ReadCheckResponse(status + Text(2, "")).text, "no");
  EXPECT_EQ(ReadCheckResponse(status + Text(2, Text(3, std::string(9000, 'x')))).text,
            std::string(kMostDenialText, 'x'));
}

TEST(CheckMessages, HeadersAreChanges) {
  const auto header = [](std::string_view key, std::string_view value, std::string more = {}) {
    return Text(2, Text(1, Text(1, key) + Text(2, value)) + more);
  };
  const auto raw = Text(2, Text(1, Text(1, "raw") + Text(3, "\xff")));
  const CheckVerdict verdict = ReadCheckResponse(
      Text(3, header("a", "1") + header("b", "2", "\x18\x01") + header("c", "3", "\x18\x02") +
                  header("d", "4", "\x18\x03") + header(":path", "/") + header("", "") + raw +
                  Text(5, "gone") + Text(5, ":method")));
  EXPECT_EQ(verdict.kind, Kind::kAllowed);
  ASSERT_EQ(verdict.changes.size(), 5u);
  EXPECT_EQ(verdict.changes[0].kind, MutationOp::Kind::kSet);
  EXPECT_EQ(verdict.changes[0].key, "a");
  EXPECT_EQ(verdict.changes[0].value, "1");
  EXPECT_EQ(verdict.changes[1].kind, MutationOp::Kind::kAddIfAbsent);
  EXPECT_EQ(verdict.changes[2].kind, MutationOp::Kind::kSet);
  EXPECT_EQ(verdict.changes[3].value, "\xff");
  EXPECT_EQ(verdict.changes[4].kind, MutationOp::Kind::kRemove);
  EXPECT_EQ(verdict.changes[4].key, "gone");
}

TEST(CheckMessages, AVerdictWithTooManyChangesIsNone) {
  std::string ok;
  for (size_t i = 0; i < kMostCheckChanges; ++i) {
    ok += Text(2, Text(1, Text(1, std::to_string(i))));
  }
  EXPECT_EQ(ReadCheckResponse(Text(3, ok)).changes.size(), kMostCheckChanges);
  EXPECT_EQ(ReadCheckResponse(Text(3, ok + Text(5, "x"))).kind, Kind::kNone);
}

TEST(CheckMessages, NothingThatIsCutOffOrChangedIsTakenForMoreThanItSays) {
  const std::string denied = Text(1, "\x08\x07" + Text(2, "no")) + Text(2, Text(3, "never"));
  std::mt19937 random(3);
  for (int i = 0; i < 20000; ++i) {
    std::string message = denied;
    if (i % 2 == 0) message.resize(random() % message.size());
    if (i % 4 != 0 && !message.empty()) message[random() % message.size()] ^= 1 << random() % 8;
    ReadCheckResponse(message);
  }
  for (size_t size = 0; size < denied.size(); ++size) {
    EXPECT_NE(ReadCheckResponse(denied.substr(0, size)).kind, Kind::kAllowed) << size;
  }
}

}  // namespace
}  // namespace metaprotocol
