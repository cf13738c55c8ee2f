// Declared protocols whose messages have several forms.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "src/codec/conformance.h"
#include "tests/cpp/codecs/declared/declarations.h"
#include "tests/cpp/codecs/declared/seen.h"

namespace metaprotocol::declared {
namespace {

using Status = DecodeResult::Status;

std::string Form(char form, const std::string& rest) {
  return std::string("M") + form + Be32(rest.size()) + rest;
}
std::string JsonForm(const std::string& head, const std::string& body = "body") {
  return Form(9, static_cast<char>(head.size()) + head + body);
}
std::string BytesForm(uint32_t id, const std::string& rest) { return Form(1, Be32(id) + rest); }

const std::shared_ptr<const DeclaredCodec>& Twofold() {
  static const auto codec = Make(kForms);
  return codec;
}

const std::string kTags = Be16(8) + "\4user\2an";

TEST(DeclaredFormsTest, EachMessageIsReadInItsForm) {
  EXPECT_EQ(Twofold()->traits().id_bits, 32);
  const Seen bytes(*Twofold(), Direction::kRequest, BytesForm(7, "\2\3get" + kTags + "body"));
  ASSERT_EQ(bytes.result.status, Status::kMessage) << bytes.result.error;
  const Seen json(*Twofold(), Direction::kRequest,
                  JsonForm(R"({"method":"get","id":7,"level":"high","tags":{"user":"an"}})"));
  ASSERT_EQ(json.result.status, Status::kMessage) << json.result.error;
  for (const Seen* seen : {&bytes, &json}) {
    EXPECT_EQ(seen->message.id, 7u);
    EXPECT_EQ(seen->Find("method"), "get");
    EXPECT_EQ(seen->Find("level"), "high");
    EXPECT_EQ(seen->Find("user"), "an");
  }
  EXPECT_EQ(bytes.Find("form"), "1");
  EXPECT_EQ(json.Find("form"), "9");
}

TEST(DeclaredFormsTest, MessagesKeepTheirForm) {
  const std::vector<MutationOp> ops = {{MutationOp::Kind::kSet, "user", "bo"}};
  const Seen bytes(*Twofold(), Direction::kRequest, BytesForm(7, "\2\3get" + kTags + "body"));
  EXPECT_EQ(bytes.Written({.id = 8, .mutation = ops}),
            BytesForm(8, "\2\3get" + Be16(8) + "\4user\2bobody"));
  const Seen json(*Twofold(), Direction::kRequest, JsonForm(R"({"id":7,"tags":{"user":"an"}})"));
  EXPECT_EQ(json.Written({.id = 80}), JsonForm(R"({"id":80,"tags":{"user":"an"}})"));
  EXPECT_EQ(json.Written({.id = 80, .mutation = ops}),
            JsonForm(R"({"id":80,"tags":{"user":"bo"}})"));
}

TEST(DeclaredFormsTest, RepliesHaveTheFormOfTheirRequest) {
  const Seen bytes(*Twofold(), Direction::kRequest, BytesForm(7, "\2\3get" + kTags + "body"));
  const Seen json(*Twofold(), Direction::kRequest, JsonForm(R"({"id":7})"));
  std::string out;
  ASSERT_TRUE(
      Twofold()->Reply({.id = 7, .tag = bytes.message.tag}, LocalReply::kDenied, "no", out));
  EXPECT_EQ(out, BytesForm(7, "\3\2nodenied"));
  out.clear();
  ASSERT_TRUE(Twofold()->Reply({.id = 7, .tag = json.message.tag}, LocalReply::kDenied, "no", out));
  EXPECT_EQ(out, JsonForm(R"({"id":7,"status":3,"text":"no"})", "denied"));
  const Seen reply(*Twofold(), Direction::kResponse, out);
  EXPECT_EQ(reply.message.id, 7u);
  EXPECT_EQ(reply.message.status, ReplyStatus::kError);
}

TEST(DeclaredFormsTest, WhatHasNoFormIsNotOfThisProtocol) {
  const auto status = [](const std::string& bytes) {
    return Seen(*Twofold(), Direction::kRequest, bytes).result;
  };
  EXPECT_EQ(status("N").status, Status::kError);
  EXPECT_EQ(status("M").status, Status::kNeedMore);
  EXPECT_EQ(status("M").need, 2u);
  EXPECT_EQ(status("M\2").status, Status::kError);
  EXPECT_EQ(status("M\2").error, "has none of the protocol's forms");
  EXPECT_EQ(status("M\1").status, Status::kNeedMore);
}

TEST(DeclaredFormsTest, PeopleSeeTheFieldsOfAMessagesForm) {
  std::string_view error;
  const auto shown = [&](const std::string& bytes) {
    std::string names;
    for (const auto& field : Twofold()->Explain(Direction::kRequest, bytes, error)) {
      names += field.name + "=" + field.value + ";";
    }
    return names;
  };
  EXPECT_EQ(shown(JsonForm(R"({"id":7})", "")),
            "magic=77;form=9;length=9;head_bytes=8;head=8 bytes;id=7;");
  EXPECT_EQ(error, "");
  EXPECT_EQ(shown(BytesForm(7, "\2\3get" + Be16(0))),
            "magic=77;form=1;length=11;id=7;level=2 (high);method=get;tags=;");
  EXPECT_EQ(error, "");
  EXPECT_EQ(shown("M\5abcdefgh"), "magic=77;form=5;");
  EXPECT_EQ(error, "it has none of the protocol's forms");
}

TEST(DeclaredFormsTest, HoldWhatCodecsPromise) {
  const std::string bytes = BytesForm(7, "\2\3get" + kTags + "body");
  const std::string json = JsonForm(R"({"id":7,"method":"x","tags":{"user":"\u0041n"}})");
  std::mt19937 random(11);
  for (int i = 0; i < 400; ++i) {
    std::string both = bytes + json + bytes;
    if (i > 0) both[random() % both.size()] = static_cast<char>(random());
    for (const Direction direction : {Direction::kRequest, Direction::kResponse}) {
      const auto result = CheckConformance(*Twofold(), direction, both, {.seed = 3});
      ASSERT_FALSE(result.violation) << *result.violation << ": " << testing::PrintToString(both);
    }
  }
}

// --- what is wrong with declarations

std::string FormsError(const std::string& fields, const std::string& forms,
                       const std::string& more = "") {
  return CreateDeclaredCodec("test", R"({"framing": {"length": {"fields": ["n"], "after": "n"}},
      "fields": [)" + fields + R"(], "forms": {"field": "f", "forms": [)" +
                                         forms + "]}" + more + "}")
      .error;
}

TEST(DeclaredFormsTest, WhatIsWrongIsToldByFieldValueAndFix) {
  const std::string fields = R"({"name": "n", "bytes": 4}, {"name": "f", "bytes": 1})";
  const std::string two = R"({"name": "one", "value": 1, "fields": [{"name": "a", "bytes": 4}]},
                             {"name": "two", "value": 2, "fields": [{"name": "b", "bytes": 4}]})";
  EXPECT_EQ(FormsError(fields, two), "");
  EXPECT_EQ(FormsError(fields, two, R"(, "correlationId": "a")"),
            "declaration.correlation_id: \"a\": is no field of requests of the form \"two\"; there "
            "are n, f, b");
  EXPECT_EQ(
      FormsError(fields, two, R"(, "requestFields": [{"name": "c", "bytes": 1}])"),
      "declaration.request_fields: cannot be given together with forms, each of which has its "
      "own");
  EXPECT_EQ(FormsError(fields, R"({"name": "x", "value": 256})"),
            "declaration.forms.forms[0].value: 256: does not fit into f, which is at most 255");
  EXPECT_EQ(FormsError(fields, R"({"name": "x", "value": 1}, {"name": "y", "value": 1})"),
            "declaration.forms.forms[1].value: 1: is that of another form");
  EXPECT_EQ(
      FormsError(R"({"name": "n", "bytes": 4})", two),
      "declaration.forms.field: \"f\": is no field of requests of the form \"one\"; there are "
      "n, a");
  EXPECT_EQ(FormsError(R"({"name": "n", "bytes": 4}, {"name": "t", "lengthPrefix": 1},
                          {"name": "f", "bytes": 1})",
                       R"({"name": "x", "value": 1})"),
            "declaration.forms.field: \"f\": must be one of the declaration's own fields, and at a "
            "fixed place: the fields before it must have fixed sizes");
  EXPECT_EQ(FormsError(R"({"name": "n", "bytes": 4}, {"name": "f", "bytes": 1, "value": 3})",
                       R"({"name": "x", "value": 1})"),
            "declaration.forms.field: \"f\": must be neither a constant, a length nor the "
            "correlation id");
  EXPECT_EQ(
      FormsError(fields, R"({"name": "x", "value": 1, "fields": [{"name": "n", "bytes": 1}]})"),
      "declaration.forms.forms[0].fields[0].name: \"n\": is the name of another field; names "
      "must be unique");
}

}  // namespace
}  // namespace metaprotocol::declared
