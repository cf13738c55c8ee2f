// bRPC twice: by codecs/brpc, which is written by hand, and by a declaration. What one reads and
// writes, the other must.
#pragma once

#include <algorithm>
#include <cctype>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "codecs/brpc/brpc_codec.h"
#include "tests/cpp/codecs/declared/declarations.h"

namespace metaprotocol::declared {

// An exchange whose client has two entries: what the cost of the two is compared by.
struct BrpcExchange {
  std::string request;
  std::string response;

  BrpcExchange() {
    std::string call;
    AppendProtoBytes(call, 1, "org.apache.dubbo.samples.basic.api.DemoService");
    AppendProtoBytes(call, 2, "sayHello");
    AppendProtoVarint(call, 3, 77);
    AppendProtoVarint(call, 8, 500);
    std::string meta;
    AppendProtoBytes(meta, 1, call);
    AppendProtoVarint(meta, 4, 123456789);
    AppendProtoEntry(meta, 9, "tenant", "red");
    AppendProtoEntry(meta, 9, "trace", "0123456789abcdef");
    request = Frame(meta);
    std::string answer;
    AppendProtoVarint(answer, 1, 0);
    meta.clear();
    AppendProtoBytes(meta, 2, answer);
    AppendProtoVarint(meta, 4, 123456789);
    response = Frame(meta);
  }

 private:
  static std::string Frame(const std::string& meta) {
    const std::string body(100, 'x');
    return "PRPC" + Be32(meta.size() + body.size()) + Be32(meta.size()) + meta + body;
  }
};

class BrpcTwins {
 public:
  // What they differ in about the message that `bytes` begin with; nothing if they agree.
  std::optional<std::string> Difference(Direction direction, Bytes bytes) const {
    const Decoded hand = Decode(*hand_, direction, bytes);
    const Decoded twin = Decode(*twin_, direction, bytes);
    using Status = DecodeResult::Status;
    const Status status = hand.result.status;
    if (status == Status::kNeedMore || twin.result.status == Status::kNeedMore) {
      // One may see from the head alone that the rest will not help.
      if (status == Status::kMessage || twin.result.status == Status::kMessage) return "status";
      return std::nullopt;
    }
    if (status == Status::kError || status == Status::kTooLarge) {
      if (twin.result.status == Status::kMessage) return "status";
      return std::nullopt;
    }
    // What a declaration cannot say.
    if (hand.result.error.find("attachment") != std::string_view::npos) return std::nullopt;
    if (twin.result.error.find("a character that") != std::string_view::npos) return std::nullopt;
    const bool response = direction == Direction::kResponse;
    if (response && hand.result.error.find("without service") != std::string_view::npos) {
      return std::nullopt;  // responses that are requests as well, which a declaration does not
                            // mind
    }
    if (status == Status::kMessage && IsAuthenticatedByNothing(bytes)) return std::nullopt;
    // Nor does a declaration know of what Java alone would read in a text.
    if (status == Status::kUndecodable && HasOddText(bytes)) return std::nullopt;
    if (status != twin.result.status) {
      return "status: " + std::string(hand.result.error) + " / " + std::string(twin.result.error);
    }
    const Message& one = hand.message;
    const Message& other = twin.message;
    if (one.kind != other.kind) return "kind";
    if (one.id != other.id) return "id";
    if (one.length != other.length) return "length";
    if (status != Status::kMessage || one.kind == MessageKind::kOther) return std::nullopt;
    if (one.status != other.status || one.status_code != other.status_code) return "reply status";
    if (one.timeout_us != other.timeout_us) return "timeout";
    // Of a response that is a request as well, one reads what is called and the other does not.
    if (SharesKeys(bytes) || (response && Holds(bytes, 1))) return std::nullopt;
    if (hand.Named() != twin.Named()) return "metadata";
    const Bytes whole = bytes.substr(0, one.length);
    for (const uint64_t id : {uint64_t{0}, uint64_t{127}, uint64_t{128}, UINT64_MAX}) {
      const EncodeOptions options{.id = id};
      if (Encode(*hand_, one, whole, options) != Encode(*twin_, other, whole, options)) return "id";
    }
    const std::vector<MutationOp> ops = {{MutationOp::Kind::kSet, "tenant", "blue"},
                                         {MutationOp::Kind::kRemove, "user", ""},
                                         {MutationOp::Kind::kAddIfAbsent, "zone", "b"}};
    for (const uint64_t timeout_us : {uint64_t{0}, uint64_t{1500}}) {
      const EncodeOptions options{.id = 9, .mutation = ops, .timeout_us = timeout_us};
      const std::string first = Encode(*hand_, one, whole, options);
      const std::string second = Encode(*twin_, other, whole, options);
      const Decoded mutated = Decode(*hand_, direction, first);
      const Decoded mutated_twin = Decode(*hand_, direction, second);
      if (mutated.result.status != Status::kMessage ||
          mutated_twin.result.status != Status::kMessage) {
        return "a mutation's status";
      }
      if (mutated.message.id != mutated_twin.message.id) return "a mutation's id";
      if (mutated.message.timeout_us != mutated_twin.message.timeout_us) return "a new timeout";
      if (mutated.Named() != mutated_twin.Named()) return "a mutation";
    }
    for (size_t i = 0; i < kLocalReplyCount; ++i) {
      std::string reply;
      std::string twins;
      const ReplyContext request{.id = one.id, .tag = other.tag};
      hand_->Reply(request, static_cast<LocalReply>(i), "why", reply);
      twin_->Reply(request, static_cast<LocalReply>(i), "why", twins);
      if (reply != twins)
        return "the reply " + std::string(LocalReplyName(static_cast<LocalReply>(i)));
    }
    return std::nullopt;
  }

  const Codec& hand() const { return *hand_; }
  const Codec& twin() const { return *twin_; }

 private:
  struct Decoded {
    DecodeResult result;
    Message message;
    std::unique_ptr<MetadataKeys> keys;

    // In the names that both have; sorted, since which of two lists comes first is not said.
    std::vector<std::pair<std::string, std::string>> Named() const {
      static constexpr std::string_view kOnlyOne[] = {"interface",     "timeout_ms",
                                                      "response_code", "error_code",
                                                      "error_text",    "request_service"};
      std::vector<std::pair<std::string, std::string>> named;
      for (const auto& [key, value] : message.metadata.Entries()) {
        std::string lower(key);
        for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
        if (std::find(std::begin(kOnlyOne), std::end(kOnlyOne), lower) != std::end(kOnlyOne))
          continue;
        named.emplace_back(key, value);
      }
      std::sort(named.begin(), named.end());
      return named;
    }
  };

  // Whether what may be Java's ext_field or a text is no message, and has what no text has.
  static bool HasOddText(Bytes bytes) {
    bool found = false;
    const Bytes body = bytes.substr(std::min<size_t>(bytes.size(), 12));
    ProtoReader meta(body.substr(0, LoadBe32(bytes.data() + 8)));
    for (ProtoField field; meta.Next(field);) {
      if (!field.is(1, WireType::kLength)) continue;
      ProtoReader request(field.bytes);
      for (ProtoField part; request.Next(part);) {
        found |= part.is(7, WireType::kLength) && !ReadProtoEntry(part.bytes);
      }
    }
    return found;
  }

  // The codec by hand takes authentication data without a byte for none.
  static bool IsAuthenticatedByNothing(Bytes bytes) { return Holds(bytes, 7); }

  // Whether the meta has that field, a text or a message.
  static bool Holds(Bytes bytes, uint32_t number) {
    ProtoReader meta(bytes.substr(12, LoadBe32(bytes.data() + 8)));
    bool found = false;
    for (ProtoField field; meta.Next(field);) found |= field.is(number, WireType::kLength);
    return found;
  }

  // Whether Java's entries and those of C++ are both there and have a key in common: no peer reads
  // both, and so it is nowhere said which counts.
  static bool SharesKeys(Bytes bytes) {
    std::vector<std::string_view> java;
    std::vector<std::string_view> cpp;
    ProtoReader meta(bytes.substr(12, LoadBe32(bytes.data() + 8)));
    for (ProtoField field; meta.Next(field);) {
      if (field.is(9, WireType::kLength)) cpp.push_back(ReadProtoEntry(field.bytes)->key);
      if (!field.is(1, WireType::kLength)) continue;
      ProtoReader request(field.bytes);
      for (ProtoField part; request.Next(part);) {
        if (!part.is(7, WireType::kLength)) continue;
        if (const auto entry = ReadProtoEntry(part.bytes)) java.push_back(entry->key);
      }
    }
    return std::find_first_of(java.begin(), java.end(), cpp.begin(), cpp.end()) != java.end();
  }

  static Decoded Decode(const Codec& codec, Direction direction, Bytes bytes) {
    Decoded decoded;
    decoded.keys =
        std::make_unique<MetadataKeys>(MetadataKeys::Everything(codec.traits().metadata_keys));
    decoded.message.Clear(decoded.keys.get());
    DecodeOptions options;
    options.interest = codec.InterestIn(*decoded.keys);
    decoded.result = codec.Decode(nullptr, direction, bytes, options, decoded.message);
    return decoded;
  }

  static std::string Encode(const Codec& codec, const Message& message, Bytes bytes,
                            const EncodeOptions& options) {
    std::string out;
    const Encoded encoded = codec.Encode(message, bytes, options, out);
    return out.append(encoded.Unchanged(bytes)).append(encoded.Tail());
  }

  const std::shared_ptr<const Codec> hand_ = brpc::CreateBrpcCodec("").codec;
  const std::shared_ptr<const Codec> twin_ = Make(kBrpc);
};

}  // namespace metaprotocol::declared
