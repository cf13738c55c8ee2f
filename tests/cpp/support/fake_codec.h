// A codec for a protocol that exists only in tests: trivial bytes, configurable traits. Engine
// tests use it to reach every kind of protocol (multiplexed, pipelined, exclusive, stateful)
// without dragging a real wire format in.
//
//     4 bytes  length of the rest, big endian
//     1 byte   kind: 'Q' request, 'O' one-way, 'R' ok response, 'X' exception response, 'E' error
//              response, 'H' heartbeat, 'h' heartbeat reply, 'G' go-away, '?' other, 'U' a request
//              that cannot be decoded; with FakeOptions::streams also 'S' stream open, 'D' data,
//              'L' the last data from its side, 'F' half-close, 'Z' reset, 'W' window (its body is
//              a decimal number of bytes)
//     8 bytes  id, big endian, of the stream in messages of streams; only if traits().id_bits > 0
//     metadata as key=value lines separated by \n, then \0
//     body     the rest; with FakeOptions::checksum its last 4 bytes are the sum of all bytes
//     before
//
// Metadata are the lines under their own keys, then `body`, which is the only key that needs the
// whole message. A key `name` comes back in local replies (ReplyContext::name), and so does a
// decimal `tag` (ReplyContext::tag). A decimal `timeout` is the client's, in milliseconds. What has
// a key `unwritable` cannot be encoded (Encoded::impossible).
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/codec/codec.h"
#include "src/codec/registry.h"

namespace metaprotocol::test {

using FakeKv = std::vector<std::pair<std::string, std::string>>;

// The bytes of one message; no id for codecs with id_bits == 0.
inline std::string FakeMessage(char kind, std::optional<uint64_t> id, const FakeKv& kv = {},
                               std::string_view body = {}) {
  std::string rest(1, kind);
  if (id) AppendBe64(rest, *id);
  for (size_t i = 0; i < kv.size(); ++i) {
    if (i > 0) rest += '\n';
    rest += kv[i].first + "=" + kv[i].second;
  }
  rest += '\0';
  rest += body;
  std::string out;
  AppendBe32(out, static_cast<uint32_t>(rest.size()));
  return out + rest;
}

// What a test reads back. `kind` is 0 where the bytes were not a whole message.
struct FakeParsed {
  char kind = 0;
  uint64_t id = 0;
  FakeKv kv;
  std::string body;

  bool operator==(const FakeParsed&) const = default;
};

// Takes a stream of messages apart; a last entry of kind 0 holds what was left over, if anything.
inline std::vector<FakeParsed> ParseFakeMessages(std::string_view bytes, bool with_ids = true) {
  std::vector<FakeParsed> all;
  ByteReader reader(bytes);
  while (reader.remaining() > 0) {
    const Bytes left = reader.rest();
    uint32_t length = 0;
    Bytes rest;
    const size_t id_bytes = with_ids ? 8 : 0;
    if (!reader.ReadBe32(length) || !reader.ReadBytes(length, rest) || length < 2 + id_bytes) {
      all.push_back({0, 0, {}, std::string(left)});
      return all;
    }
    FakeParsed one;
    one.kind = rest[0];
    if (with_ids) one.id = LoadBe64(rest.data() + 1);
    rest.remove_prefix(1 + id_bytes);
    const size_t end = rest.find('\0');
    std::string_view lines = rest.substr(0, end);
    if (end != Bytes::npos) one.body = rest.substr(end + 1);
    while (!lines.empty()) {
      const std::string_view line = lines.substr(0, lines.find('\n'));
      lines.remove_prefix(std::min(lines.size(), line.size() + 1));
      const size_t equals = line.find('=');
      one.kv.emplace_back(line.substr(0, equals),
                          equals == std::string_view::npos ? "" : line.substr(equals + 1));
    }
    all.push_back(std::move(one));
  }
  return all;
}

inline uint32_t FakeSum(std::string_view bytes, uint32_t sum = 0) {
  for (const char c : bytes) sum += static_cast<unsigned char>(c);
  return sum;
}

// The same message for codecs with FakeOptions::checksum.
inline std::string FakeChecked(std::string message) {
  StoreBe32(message.data(), LoadBe32(message.data()) + 4);
  AppendBe32(message, FakeSum(message));
  return message;
}

struct FakeOptions {
  std::string name = "fake";
  int id_bits = 64;  // 0, 32 or 64
  bool multiplexed = true;
  bool ordered_replies = false;
  bool stateful = false;
  bool mutation_in_head = true;
  bool heartbeats = true;        // HeartbeatReply answers
  bool go_away = true;           // GoAway writes a 'G'
  bool text_in_replies = false;  // local replies carry a `text` line
  char bad_body = '\0';          // CheckBody refuses parts with it
  bool streams = false;          // messages of streams exist
  bool checksum = false;         // every message ends with one, so Encode needs it whole
  bool server_requests = false;  // servers send them, too
  bool carries_tag = false;      // responses get a line `for` with the request's tag
  size_t unpacked_bytes = 0;     // of every message
};

// Presets for the kinds of protocols there are.
inline FakeOptions FakeMultiplexed() { return {.name = "fake_multiplexed"}; }
inline FakeOptions FakeStreams() { return {.name = "fake_streams", .streams = true}; }
inline FakeOptions FakeWithChecksum() { return {.name = "fake_checksum", .checksum = true}; }
inline FakeOptions FakePipelined() {
  return {.name = "fake_pipelined",
          .id_bits = 0,
          .multiplexed = false,
          .ordered_replies = true,
          .heartbeats = false,
          .go_away = false};
}
inline FakeOptions FakePipelinedWithIds() {
  return {
      .name = "fake_pipelined_ids", .id_bits = 32, .multiplexed = false, .ordered_replies = true};
}
inline FakeOptions FakeExclusive() {
  return {.name = "fake_exclusive", .id_bits = 0, .multiplexed = false};
}
inline FakeOptions FakeStateful() {
  return {.name = "fake_stateful",
          .id_bits = 0,
          .multiplexed = false,
          .ordered_replies = true,
          .stateful = true};
}

class FakeCodec : public Codec {
 public:
  explicit FakeCodec(FakeOptions options = {}) : options_(std::move(options)) {
    traits_.name = options_.name;
    traits_.id_bits = options_.id_bits;
    traits_.multiplexed = options_.multiplexed;
    traits_.ordered_replies = options_.ordered_replies;
    traits_.stateful = options_.stateful;
    traits_.server_requests = options_.server_requests;
    traits_.mutation_in_head = options_.mutation_in_head;
    traits_.whole_to_encode = options_.checksum;
    static constexpr std::string_view kKeys[] = {"name", "tag", "body"};
    traits_.metadata_keys = kKeys;
  }

  const CodecTraits& traits() const override { return traits_; }

  Interest InterestIn(const MetadataKeys& keys) const override {
    const bool body = keys.wants(kBodyKey);
    return {.mask = body ? kBodyBit : 0, .head_suffices = !body, .keys = &keys};
  }

  // Remembers the direction, so that an engine that mixes states up is found out.
  std::unique_ptr<DecodeState> NewDecodeState(Direction direction) const override {
    return std::make_unique<State>(direction);
  }

  DecodeResult Decode(DecodeState* state, Direction direction, Bytes bytes,
                      const DecodeOptions& options, Message& message) const override {
    if (state && static_cast<State*>(state)->direction != direction) {
      return DecodeResult::Error("decode state of the other direction");
    }
    const size_t fixed = 5 + id_bytes();
    if (bytes.size() < fixed) return DecodeResult::NeedMore(fixed);
    message.length = size_t{4} + LoadBe32(bytes.data());
    if (!ReadKind(bytes[4], direction, message)) return DecodeResult::Error("bad kind");
    if (id_bytes() > 0) message.id = LoadBe64(bytes.data() + 5);
    if (options_.id_bits == 32 && message.id > UINT32_MAX)
      return DecodeResult::Error("id too wide");
    if (IsOfStream(message.kind)) message.stream_id = std::exchange(message.id, 0);
    if (message.length <= fixed) return DecodeResult::Error("too short");
    if (message.length > options.max_message_bytes) return DecodeResult::TooLarge("too large");
    if (bytes[4] == 'U') return DecodeResult::Undecodable("undecodable");

    const bool whole = bytes.size() >= message.length;
    const Bytes rest = bytes.substr(fixed, message.length - fixed);
    const size_t head = rest.find('\0');
    if (head == Bytes::npos) {
      if (whole) return DecodeResult::Error("head without end");
      return DecodeResult::NeedMore(options.allow_partial ? bytes.size() + 1 : message.length);
    }
    if (whole && options_.checksum && !SumFits(bytes.substr(0, message.length))) {
      return DecodeResult::Undecodable("bad checksum");
    }
    if (whole && message.kind == MessageKind::kStreamWindow) {
      const Bytes number = rest.substr(head + 1);
      std::from_chars(number.data(), number.data() + number.size(), message.window);
    }
    const bool wants_body = (options.interest.mask & kBodyBit) != 0;
    if (!whole && (wants_body || !options.allow_partial)) {
      return DecodeResult::NeedMore(message.length);
    }
    ReadLines(rest.substr(0, head), message);
    if (whole && wants_body) message.metadata.SetOwn(kBodyKey, rest.substr(head + 1));
    DecodeResult decoded = DecodeResult::Ok();
    decoded.unpacked_bytes = options_.unpacked_bytes;
    return decoded;
  }

  std::string_view CheckBody(DecodeState* state, Bytes part) const override {
    if (state && static_cast<State*>(state)->direction != Direction::kRequest) return "a reply";
    if (part.empty()) return "nothing to check";
    const bool bad = options_.bad_body != '\0' && part.find(options_.bad_body) != Bytes::npos;
    return bad ? "bad body" : std::string_view();
  }

  Encoded Encode(const Message& message, Bytes bytes, const EncodeOptions& options,
                 std::string& out) const override {
    if (bytes.substr(0, bytes.find('\0', 5 + id_bytes())).find("unwritable=") != Bytes::npos) {
      return {.impossible = true};
    }
    Mutation mutation(options.mutation.begin(), options.mutation.end());
    if (options.timeout_us != 0 && message.timeout_us != 0) {
      mutation.push_back(
          {MutationOp::Kind::kSet, "timeout", std::to_string(options.timeout_us / 1000)});
    }
    if (options_.carries_tag && message.kind == MessageKind::kResponse) {
      mutation.push_back({MutationOp::Kind::kSet, "for", std::to_string(message.tag)});
    }
    const size_t fixed = 5 + id_bytes();
    const size_t head_end = mutation.empty() ? fixed : bytes.find('\0', fixed);
    std::string head(1, bytes[4]);
    if (id_bytes() > 0) AppendBe64(head, IsOfStream(message.kind) ? options.stream_id : options.id);
    if (!mutation.empty()) {
      head += Mutated(bytes.substr(fixed, head_end - fixed), mutation);
    }
    AppendBe32(out, static_cast<uint32_t>(message.length - head_end + head.size()));
    out += head;
    Encoded encoded{.head = head_end};
    if (options_.checksum) {
      encoded.tail_bytes = 4;
      const std::string_view written = std::string_view(out).substr(out.size() - head.size() - 4);
      StoreBe32(encoded.tail.data(), FakeSum(encoded.Unchanged(bytes), FakeSum(written)));
    }
    return encoded;
  }

  bool Reply(const ReplyContext& request, LocalReply reply, std::string_view text,
             std::string& out) const override {
    FakeKv kv;
    if (!request.name.empty()) kv.emplace_back("name", request.name);
    if (request.tag != 0) kv.emplace_back("tag", std::to_string(request.tag));
    if (options_.text_in_replies) kv.emplace_back("text", text);
    const char kind = reply == LocalReply::kNoContent ? 'R' : 'E';
    out += Checked(FakeMessage(kind, Id(request.id), kv, LocalReplyName(reply)));
    return true;
  }

  bool ResetStream(const ReplyContext& stream, Direction, LocalReply reason, std::string_view,
                   std::string& out) const override {
    if (options_.streams) {
      out += Checked(FakeMessage('Z', Id(stream.stream_id), {}, LocalReplyName(reason)));
    }
    return options_.streams;
  }

  bool GrantWindow(const ReplyContext& stream, Direction, uint64_t bytes,
                   std::string& out) const override {
    if (options_.streams) {
      out += Checked(FakeMessage('W', Id(stream.stream_id), {}, std::to_string(bytes)));
    }
    return options_.streams;
  }

  bool HeartbeatReply(const Message& heartbeat, Bytes, std::string& out) const override {
    if (options_.heartbeats) out += Checked(FakeMessage('h', Id(heartbeat.id)));
    return options_.heartbeats;
  }

  bool Ping(uint64_t id, std::string& out) const override {
    if (options_.heartbeats) out += Checked(FakeMessage('H', Id(id)));
    return options_.heartbeats;
  }

  // A response then says in a line `for` whose it is.
  void CarryOver(const ReplyContext& request, Message& response) const override {
    if (options_.carries_tag) response.tag = request.tag;
  }

  bool GoAway(const ReplyContext&, std::string& out) const override {
    if (options_.go_away) out += Checked(FakeMessage('G', Id(0)));
    return options_.go_away;
  }

 private:
  enum Key : OwnKey { kNameKey, kTagKey, kBodyKey };
  static constexpr uint64_t kBodyBit = 1;

  struct State : DecodeState {
    explicit State(Direction d) : direction(d) {}
    Direction direction;
  };

  size_t id_bytes() const { return options_.id_bits > 0 ? 8 : 0; }
  std::optional<uint64_t> Id(uint64_t id) const {
    return options_.id_bits > 0 ? std::optional(id) : std::nullopt;
  }

  static bool IsOfStream(MessageKind kind) { return kind >= MessageKind::kStreamOpen; }
  static bool SumFits(Bytes bytes) {
    const Bytes before = bytes.substr(0, bytes.size() - 4);
    return FakeSum(before) == LoadBe32(before.data() + before.size());
  }
  std::string Checked(std::string message) const {
    return options_.checksum ? FakeChecked(std::move(message)) : message;
  }

  bool ReadStreamKind(char c, Direction direction, Message& message) const {
    switch (c) {
      case 'S':
        message.kind = MessageKind::kStreamOpen;
        return direction == Direction::kRequest;
      case 'L':
        message.end_stream = true;
        [[fallthrough]];
      case 'D':
        message.kind = MessageKind::kStreamData;
        return true;
      case 'F':
        message.kind = MessageKind::kStreamEnd;
        message.end_stream = true;
        return true;
      case 'Z':
        message.kind = MessageKind::kStreamReset;
        message.end_stream = true;
        return true;
      case 'W':
        message.kind = MessageKind::kStreamWindow;
        return true;
      default:
        return false;
    }
  }

  // False: no such kind, or one that this side does not send.
  bool ReadKind(char c, Direction direction, Message& message) const {
    if (options_.streams && ReadStreamKind(c, direction, message)) return true;
    const bool from_client = direction == Direction::kRequest;
    switch (c) {
      case 'Q':
      case 'U':
        message.kind = MessageKind::kRequest;
        return from_client || options_.server_requests;
      case 'O':
        message.kind = MessageKind::kOneWay;
        return from_client || options_.server_requests;
      case 'R':
        message.status = ReplyStatus::kOk;
        break;
      case 'X':
        message.status = ReplyStatus::kException;
        break;
      case 'E':
        message.status = ReplyStatus::kError;
        break;
      case 'H':
        message.kind = MessageKind::kHeartbeat;
        return true;
      case 'h':
        message.kind = MessageKind::kHeartbeatReply;
        return true;
      case 'G':
        message.kind = MessageKind::kGoAway;
        return true;
      case '?':
        message.kind = MessageKind::kOther;
        return true;
      default:
        return false;
    }
    message.kind = MessageKind::kResponse;
    return !from_client || options_.server_requests;
  }

  static void ReadLines(std::string_view lines, Message& message) {
    while (!lines.empty()) {
      const std::string_view line = lines.substr(0, lines.find('\n'));
      lines.remove_prefix(std::min(lines.size(), line.size() + 1));
      const size_t equals = line.find('=');
      if (equals == std::string_view::npos) continue;
      const std::string_view key = line.substr(0, equals);
      const std::string_view value = line.substr(equals + 1);
      if (key == "name") {
        message.reply_name = value;
        message.metadata.SetOwn(kNameKey, value);
      } else if (key == "tag") {
        std::from_chars(value.data(), value.data() + value.size(), message.tag);
        message.metadata.SetOwn(kTagKey, value);
      } else {
        message.metadata.SetNamed(key, value);
      }
      if (key == "timeout") {
        uint64_t milliseconds = 0;
        std::from_chars(value.data(), value.data() + value.size(), milliseconds);
        message.timeout_us = milliseconds * 1000;
      }
    }
  }

  static std::string Mutated(std::string_view lines, std::span<const MutationOp> mutation) {
    FakeKv kv;
    while (!lines.empty()) {
      const std::string_view line = lines.substr(0, lines.find('\n'));
      lines.remove_prefix(std::min(lines.size(), line.size() + 1));
      const size_t equals = line.find('=');
      if (equals != std::string_view::npos) {
        kv.emplace_back(line.substr(0, equals), line.substr(equals + 1));
      }
    }
    for (const MutationOp& op : mutation) {
      const auto same = [&op](const auto& entry) { return entry.first == op.key; };
      const bool present = std::any_of(kv.begin(), kv.end(), same);
      if (op.kind == MutationOp::Kind::kAddIfAbsent && present) continue;
      std::erase_if(kv, same);
      if (op.kind != MutationOp::Kind::kRemove) kv.emplace_back(op.key, op.value);
    }
    std::string out;
    for (const auto& [key, value] : kv) {
      if (!out.empty()) out += '\n';
      out += key + "=" + value;
    }
    return out;
  }

  FakeOptions options_;
  CodecTraits traits_;
};

// Registers one FakeCodec per preset, under the preset's name.
inline void RegisterFakeCodecs(CodecRegistry& registry) {
  for (const FakeOptions& options : {FakeMultiplexed(), FakePipelined(), FakePipelinedWithIds(),
                                     FakeExclusive(), FakeStateful()}) {
    registry.Register(options.name, [options](std::string_view) {
      return CodecOrError{std::make_shared<FakeCodec>(options), ""};
    });
  }
}

}  // namespace metaprotocol::test
