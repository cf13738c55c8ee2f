// Requests of servers and answers of clients, as declarations say them.
#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "tests/cpp/codecs/declared/declarations.h"
#include "tests/cpp/codecs/declared/seen.h"

namespace metaprotocol::declared {
namespace {

std::string Declaration(std::string_view kinds, std::string_view more) {
  return R"({"framing": {"length": {"fields": ["length"], "after": "length"}},
             "fields": [{"name": "length", "bytes": 4}, {"name": "type", "bytes": 1},
                        {"name": "id", "bytes": 4}],
             "kinds": [)" +
         std::string(kinds) + "]" + std::string(more) + "}";
}

constexpr std::string_view kKinds = R"(
  {"kind": "REQUEST", "when": [{"field": "type", "values": [0]}]},
  {"kind": "RESPONSE", "when": [{"field": "type", "values": [1]}]},
  {"kind": "REQUEST", "sentBy": "SERVER", "when": [{"field": "type", "values": [0]}]},
  {"kind": "ONE_WAY", "sentBy": "SERVER", "when": [{"field": "type", "values": [2]}]},
  {"kind": "RESPONSE", "sentBy": "CLIENT", "when": [{"field": "type", "values": [1]}]})";
constexpr std::string_view kBoth = R"(, "correlationId": "id", "stateful": true)";

std::string Frame(char type, size_t id) { return Be32(5) + std::string(1, type) + Be32(id); }

TEST(DeclaredServerRequests, AreKindsOfTheirOwnInEachDirection) {
  const auto codec = Make(Declaration(kKinds, kBoth));
  EXPECT_TRUE(codec->traits().server_requests);
  const auto kind = [&](Direction direction, char type) {
    const Seen seen(*codec, direction, Frame(type, 7));
    EXPECT_EQ(seen.Written({.id = 9}), Frame(type, 9));
    return seen.message.kind;
  };
  EXPECT_EQ(kind(Direction::kRequest, 0), MessageKind::kRequest);
  EXPECT_EQ(kind(Direction::kRequest, 1), MessageKind::kResponse);
  EXPECT_EQ(kind(Direction::kRequest, 2), MessageKind::kOther);
  EXPECT_EQ(kind(Direction::kResponse, 0), MessageKind::kRequest);
  EXPECT_EQ(kind(Direction::kResponse, 1), MessageKind::kResponse);
  EXPECT_EQ(kind(Direction::kResponse, 2), MessageKind::kOneWay);
}

TEST(DeclaredServerRequests, AreNoneWhereNoRuleSaysSo) {
  const auto codec = Make(Declaration(R"(
      {"kind": "REQUEST", "when": [{"field": "type", "values": [0]}]},
      {"kind": "RESPONSE", "when": [{"field": "type", "values": [1]}]})",
                                      kBoth));
  EXPECT_FALSE(codec->traits().server_requests);
  EXPECT_EQ(Seen(*codec, Direction::kResponse, Frame(0, 7)).message.kind, MessageKind::kOther);
  EXPECT_EQ(Seen(*codec, Direction::kRequest, Frame(1, 7)).message.kind, MessageKind::kOther);
}

TEST(DeclaredServerRequests, NeedAConnectionOfTheClientAndAnIdAndAnAnswer) {
  const auto error = [](std::string_view kinds, std::string_view more) {
    return CreateDeclaredCodec("test", Declaration(kinds, more)).error;
  };
  constexpr std::string_view kAsks =
      R"({"kind": "REQUEST", "sentBy": "SERVER", "when": [{"field": "type", "values": [0]}]})";
  constexpr std::string_view kTells =
      R"({"kind": "ONE_WAY", "sentBy": "SERVER", "when": [{"field": "type", "values": [0]}]})";
  EXPECT_EQ(error(kTells, R"(, "correlationId": "id")"),
            "declaration.kinds[0].sent_by: servers know clients by their connections then: this "
            "needs stateful");
  EXPECT_EQ(error(kTells, R"(, "stateful": true)"), "");
  EXPECT_EQ(error(kAsks, R"(, "stateful": true)"),
            "declaration.kinds[0].sent_by: needs a correlation_id, by which the client's answer is "
            "known");
  EXPECT_EQ(error(kAsks, kBoth),
            "declaration.kinds[0].sent_by: needs a rule for the responses that clients send");
}

}  // namespace
}  // namespace metaprotocol::declared
