// What heads in JSON cost with the best that an attacker can do.
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "codecs/declared/json_text.h"
#include "tests/cpp/codecs/declared/declarations.h"
#include "tests/cpp/support/cpu_time.h"

namespace metaprotocol::declared {
namespace {

using Status = DecodeResult::Status;

// What reading and changing this costs for each byte does not grow with their number.
void ExpectLinear(const char* what, const std::function<std::string(size_t)>& head, Status wanted) {
  const auto codec = Make(R"({
    "framing": {"length": {"fields": ["length"], "after": "length"}},
    "fields": [
      {"name": "length", "bytes": 4}, {"name": "head_bytes", "bytes": 4},
      {"name": "head", "message": {"format": "JSON", "sizedBy": "head_bytes", "members": [
        {"name": "id", "path": "id", "type": "INT32"}, {"name": "text", "path": "text"},
        {"name": "tags", "path": "tags", "type": "ENTRIES"}]}}],
    "correlationId": "id"})");
  MetadataKeys keys(codec->traits().metadata_keys);
  keys.Want("user");
  keys.Want("text");
  const std::vector<MutationOp> ops = {{MutationOp::Kind::kSet, "user", "x"},
                                       {MutationOp::Kind::kRemove, "a", ""}};
  const auto decoding_and_encoding = [&](size_t bytes) {
    const std::string json = head(bytes);
    return [&, wire = Be32(4 + json.size()) + Be32(json.size()) + json] {
      Message message;
      message.Clear(&keys);
      DecodeOptions options;
      options.interest = codec->InterestIn(keys);
      options.max_message_bytes = size_t{64} << 20;
      const auto result = codec->Decode(nullptr, Direction::kRequest, wire, options, message);
      EXPECT_EQ(result.status, wanted) << what << ": " << result.error;
      std::string out;
      codec->Encode(message, wire, {.id = 9, .mutation = ops}, out);
    };
  };
  EXPECT_LT(test::GrowthOfUnitCost(size_t{64} << 10, decoding_and_encoding), test::kLinear) << what;
}

std::string Repeated(const std::string& before, const std::string& part, size_t bytes,
                     const std::string& after) {
  std::string out = before;
  while (out.size() < bytes) out += part;
  return out + after;
}

TEST(DeclaredJsonCostTest, DeepNestingIsRefusedAtOnceAndCostsNoStack) {
  ExpectLinear(
      "lists in lists",
      [](size_t n) { return R"({"id":1,"a":)" + std::string(n, '[') + std::string(n, ']') + "}"; },
      Status::kUndecodable);
  ExpectLinear(
      "objects in objects",
      [](size_t n) { return Repeated(R"({"id":1,"a":)", R"({"a":)", n, "1}"); },
      Status::kUndecodable);
  ExpectLinear(
      "many that are as deep as may be",
      [](size_t n) {
        const std::string one =
            std::string(kMaxJsonDepth - 1, '[') + std::string(kMaxJsonDepth - 1, ']');
        return Repeated(R"({"id":1,"a":[)", one + ",", n, "1]}");
      },
      Status::kMessage);
}

TEST(DeclaredJsonCostTest, ManyKeysCostWhatTheirBytesDo) {
  const auto keys = [](const std::string& before, const std::string& after) {
    return [=](size_t n) {
      std::string out = before;
      for (size_t i = 0; out.size() < n; ++i) out += "\"" + std::to_string(i) + "\":1,";
      return out + after;
    };
  };
  ExpectLinear("unknown", keys(R"({"id":1,)", R"("z":1})"), Status::kMessage);
  ExpectLinear("entries", keys(R"({"id":1,"tags":{)", R"("z":1}})"), Status::kMessage);
  const auto same = [](const std::string& entry) {
    return [=](size_t n) { return Repeated(R"({"id":1,"tags":{)", entry, n, R"("z":"1"}})"); };
  };
  ExpectLinear("the same entry", same(R"("user":"\u0041",)"), Status::kMessage);
  ExpectLinear("entries that all go", same(R"("a":"",)"), Status::kMessage);
  ExpectLinear(
      "the same member",
      [](size_t n) { return Repeated(R"({"id":1)", R"(,"text":"\u0041")", n, "}"); },
      Status::kUndecodable);
  ExpectLinear(
      "keys that nearly are known ones",
      [](size_t n) {
        return Repeated(R"({"id":1)", R"(,"tex_":1,"____________________________________":1)", n,
                        "}");
      },
      Status::kMessage);
  ExpectLinear(
      "one key that is nothing for long",
      [](size_t n) { return R"({"id":1,")" + std::string(n, '_') + R"(":1})"; }, Status::kMessage);
}

TEST(DeclaredJsonCostTest, EscapesAndNumbersCostWhatTheirBytesDo) {
  ExpectLinear(
      "a text of escapes",
      [](size_t n) { return Repeated(R"({"id":1,"text":")", R"(\u0041)", n, R"("})"); },
      Status::kMessage);
  ExpectLinear(
      "an entry of pairs",
      [](size_t n) {
        return Repeated(R"({"id":1,"tags":{"user":")", R"(\ud83d\ude00)", n, R"("}})");
      },
      Status::kMessage);
  ExpectLinear(
      "a key of escapes",
      [](size_t n) { return Repeated(R"({"id":1,"tags":{")", R"(\n)", n, R"(":"1"}})"); },
      Status::kMessage);
  ExpectLinear(
      "a huge number",
      [](size_t n) { return R"({"id":1,"tags":{"user":)" + std::string(n, '9') + "}}"; },
      Status::kMessage);
  ExpectLinear(
      "a huge id", [](size_t n) { return R"({"id":)" + std::string(n, '9') + "}"; },
      Status::kUndecodable);
  ExpectLinear(
      "white space", [](size_t n) { return "{" + std::string(n, ' ') + R"("id":1})"; },
      Status::kMessage);
}

}  // namespace
}  // namespace metaprotocol::declared
