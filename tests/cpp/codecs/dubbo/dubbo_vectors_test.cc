// The Dubbo codec against what Dubbo for Java and Node really say (tests/vectors/dubbo).
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "codecs/dubbo/dubbo_codec.h"
#include "tests/cpp/codecs/dubbo/round_trip.h"
#include "tests/cpp/codecs/dubbo/vectors.h"

namespace metaprotocol::dubbo {
namespace {

using ResultStatus = DecodeResult::Status;

const Mutation kMetadataChanges = {{MutationOp::Kind::kSet, "version", "9.9.9"},
                                   {MutationOp::Kind::kRemove, "group", ""},
                                   {MutationOp::Kind::kAddIfAbsent, "user", "nobody"},
                                   {MutationOp::Kind::kSet, "x-new", "neu é😀"}};

// Whether the codec looks into bodies of that peer's serialization.
bool Readable(const Vector& v) { return !v.peer.ends_with("-java"); }

TEST(DubboVectors, AllDecodeToWhatTheyAre) {
  for (const Vector& v : AllVectors()) {
    Message message;
    const DecodeResult result = DecodeInto(v.direction(), v.bytes, WantingAll(), message);
    ASSERT_EQ(result.status, ResultStatus::kMessage) << v.full_name() << ": " << result.error;
    EXPECT_EQ(message.length, v.bytes.size()) << v.full_name();
    MessageKind expected = v.request() ? MessageKind::kRequest : MessageKind::kResponse;
    if (v.name.find("heartbeat") != std::string::npos) {
      expected = v.request() ? MessageKind::kHeartbeat : MessageKind::kHeartbeatReply;
    } else if (v.name.find("readonly") != std::string::npos) {
      expected = MessageKind::kGoAway;
    } else if (v.name == "tell.request" && v.peer.starts_with("java")) {
      expected = MessageKind::kOneWay;
    }
    EXPECT_EQ(message.kind, expected) << v.full_name();
  }
}

TEST(DubboVectors, RequestsShowTheirServiceAndMethod) {
  for (const Vector& v : AllVectors()) {
    if (!v.request() || v.event() || !Readable(v)) continue;
    Message message;
    ASSERT_EQ(DecodeInto(v.direction(), v.bytes, WantingAll(), message).status,
              ResultStatus::kMessage);
    const auto value = [&](std::string_view key) {
      return std::string(message.metadata.Find(key).value_or("<absent>"));
    };
    const bool java = v.peer.starts_with("java");
    const std::string call = v.name.substr(0, v.name.find('.'));
    std::string path = java ? "Capture$DemoService" : "demo.DemoService";
    std::string method = call;
    if (java && (call == "generic" || call == "missing")) method = "$invoke";
    if (java && call == "missing") path = "no.such.Service";
    if (java && (call == "unicode" || call == "long")) method = "echo";
    EXPECT_EQ(value("interface"), path) << v.full_name();
    EXPECT_EQ(value("method"), method) << v.full_name();
    EXPECT_EQ(value("version"), "1.2.3") << v.full_name();
    EXPECT_EQ(value("group"), "blue") << v.full_name();
    EXPECT_EQ(value("service"), "blue/" + path + ":1.2.3") << v.full_name();
    EXPECT_EQ(value("dubbo_version"), "2.0.2") << v.full_name();
    EXPECT_EQ(value("path"), path) << v.full_name();
    EXPECT_NE(message.tag & kTagReadsResponseAttachments, 0u);
    if (java) {
      EXPECT_EQ(value("user"), "zoë 😀") << v.full_name();
      EXPECT_EQ(value("x-long"), std::string(40, 'v')) << v.full_name();
    }
    if (call == "echo") {
      EXPECT_EQ(value("parameter_types"), "Ljava/lang/String;") << v.full_name();
    }
  }
}

TEST(DubboVectors, ResponsesShowHowTheCallWent) {
  const std::map<std::string, ReplyStatus> expected = {
      {"java-2.7.23/echo", ReplyStatus::kOk},
      {"java-2.7.23/nothing", ReplyStatus::kOk},
      {"java-2.7.23/refuse", ReplyStatus::kException},
      {"java-2.6.12/refuse", ReplyStatus::kException},
      {"java-3.2.16/refuse", ReplyStatus::kException},
      {"java-2.7.23-fastjson/refuse", ReplyStatus::kException},
      {"java-2.7.23-fastjson/echo", ReplyStatus::kOk},
      {"java-3.2.16-fastjson2/echo", ReplyStatus::kOk},
      {"java-3.2.16-fastjson2/nothing", ReplyStatus::kOk},
      {"java-3.2.16-fastjson2/refuse", ReplyStatus::kException},
      {"node-3.0.0-rc6/missing", ReplyStatus::kError},
      {"node-3.0.0-rc6/nothing", ReplyStatus::kOk}};
  for (const auto& [name, status] : expected) {
    Message message;
    const std::string bytes = ReadVector(name + ".response");
    ASSERT_EQ(DecodeInto(Direction::kResponse, bytes, WantingAll(), message).status,
              ResultStatus::kMessage);
    EXPECT_EQ(message.status, status) << name;
  }
}

TEST(DubboVectors, RequestsKeepEverythingButWhatIsMutated) {
  const DubboCodec codec;
  size_t checked = 0;
  for (const Vector& v : AllVectors()) {
    if (!v.request() || v.event()) continue;
    EXPECT_EQ(CheckRequestRoundTrip(codec, v.bytes, kMetadataChanges), std::nullopt)
        << v.full_name();
    if (!Readable(v)) continue;
    Message message;
    ASSERT_EQ(DecodeInto(v.direction(), v.bytes, WantingAll(), message).status,
              ResultStatus::kMessage);
    std::string out;
    codec.Encode(message, v.bytes, {.id = 1, .mutation = kMetadataChanges}, out);
    Message again;
    ASSERT_EQ(DecodeInto(v.direction(), out, WantingAll(), again).status, ResultStatus::kMessage)
        << v.full_name();
    EXPECT_EQ(again.metadata.Find("x-new"), "neu é😀") << v.full_name();
    EXPECT_EQ(again.metadata.Find("group"), std::nullopt) << v.full_name();
    EXPECT_EQ(again.metadata.Find("service").value(),
              std::string(message.metadata.Find("interface").value()) + ":1.2.3")
        << v.full_name();
    ++checked;
  }
  EXPECT_GT(checked, 40u);
}

TEST(DubboVectors, ResponsesKeepTheirValueWhenAttachmentsChange) {
  const DubboCodec codec;
  size_t checked = 0;
  for (const Vector& v : AllVectors()) {
    if (v.request() || v.event() || !Readable(v)) continue;
    Message message;
    ASSERT_EQ(DecodeInto(v.direction(), v.bytes, WantingAll(), message).status,
              ResultStatus::kMessage);
    message.tag |= kTagReadsResponseAttachments;
    std::string out;
    const size_t used =
        codec.Encode(message, v.bytes, {.id = 5, .mutation = kMetadataChanges}, out).head;
    out.append(Bytes(v.bytes).substr(used));
    if (v.bytes[3] != 20) {
      EXPECT_EQ(out.size(), v.bytes.size());
      continue;
    }
    ++checked;
    EXPECT_GT(out.size(), v.bytes.size()) << v.full_name();
    EXPECT_EQ(LoadBe32(out.data() + 12) + kHeaderBytes, out.size()) << v.full_name();
    Message again;
    ASSERT_EQ(DecodeInto(v.direction(), out, WantingAll(), again).status, ResultStatus::kMessage);
    EXPECT_EQ(again.status, message.status) << v.full_name();
    // Taking the new attachments away again gives the bytes as they were, but for a type that now
    // says "with attachments".
    const Mutation undo = {{MutationOp::Kind::kRemove, "version", ""},
                           {MutationOp::Kind::kRemove, "user", ""},
                           {MutationOp::Kind::kRemove, "x-new", ""}};
    std::string back;
    const size_t used_again =
        codec.Encode(again, out, {.id = message.id, .mutation = undo}, back).head;
    back.append(Bytes(out).substr(used_again));
    const bool had = (v.bytes[16] & 0xf) >= 3;
    if (had) {
      EXPECT_EQ(back, v.bytes) << v.full_name();
    } else {
      EXPECT_EQ(back.substr(17, v.bytes.size() - 17), v.bytes.substr(17)) << v.full_name();
    }
  }
  EXPECT_GT(checked, 30u);
}

TEST(DubboVectors, DecodeTheSameFromEverySplit) {
  for (const Vector& v : AllVectors()) {
    for (const bool partial : {false, true}) {
      for (const std::vector<std::string_view>& keys : {std::vector<std::string_view>{},
                                                        {"interface", "method"},
                                                        {"parameter_types"},
                                                        {"group"}}) {
        DecodeOptions options;
        options.interest = Wanting(keys).interest;
        options.allow_partial = partial;
        EXPECT_EQ(CheckIncremental(v.direction(), v.bytes, options), std::nullopt) << v.full_name();
      }
    }
  }
}

TEST(DubboVectors, NoPrefixIsEverMoreThanItIs) {
  const DubboCodec codec;
  for (const Vector& v : AllVectors()) {
    if (v.bytes.size() > 20000) continue;
    for (size_t n = 0; n < v.bytes.size(); ++n) {
      // A copy of exactly n bytes, so that a sanitizer sees every read behind them.
      const std::vector<char> prefix(v.bytes.begin(), v.bytes.begin() + static_cast<long>(n));
      Message message;
      const DecodeResult result =
          DecodeInto(v.direction(), Bytes(prefix.data(), n), WantingAll(), message);
      ASSERT_EQ(result.status, ResultStatus::kNeedMore) << v.full_name() << " " << n;
      ASSERT_GT(result.need, n);
      DecodeOptions partial;
      partial.allow_partial = true;
      partial.interest = Wanting({"method"}).interest;
      Message head;
      const DecodeResult early = DecodeInto(v.direction(), Bytes(prefix.data(), n), partial, head);
      ASSERT_TRUE(early.status == ResultStatus::kNeedMore || early.status == ResultStatus::kMessage)
          << v.full_name() << " " << n << ": " << early.error;
      if (early.status == ResultStatus::kMessage) {
        std::string out;
        ASSERT_EQ(codec.Encode(head, Bytes(prefix.data(), n), {.id = 1}, out).head, kHeaderBytes);
      }
    }
  }
}

TEST(DubboVectors, NoSingleByteBreaksTheCodec) {
  const DubboCodec codec;
  size_t errors = 0;
  size_t messages = 0;
  for (const Vector& v : AllVectors()) {
    if (v.bytes.size() > 1500) continue;
    for (size_t i = 0; i < v.bytes.size(); ++i) {
      for (const uint8_t flip : {0x01, 0x80, 0xff}) {
        std::vector<char> broken(v.bytes.begin(), v.bytes.end());
        broken[i] = static_cast<char>(broken[i] ^ flip);
        const Bytes bytes(broken.data(), broken.size());
        Message message;
        const DecodeResult result = DecodeInto(v.direction(), bytes, WantingAll(), message);
        if (result.status == ResultStatus::kMessage) {
          ++messages;
          std::string out;
          const size_t used =
              codec.Encode(message, bytes, {.id = 1, .mutation = kMetadataChanges}, out).head;
          ASSERT_LE(used, bytes.size());
          if (v.request()) {
            ASSERT_EQ(CheckRequestRoundTrip(codec, bytes, kMetadataChanges), std::nullopt)
                << v.full_name() << " byte " << i;
          }
        } else {
          ++errors;
        }
      }
    }
  }
  EXPECT_GT(errors, 1000u);
  EXPECT_GT(messages, 1000u);
}

}  // namespace
}  // namespace metaprotocol::dubbo
