#include "codecs/trpc/trpc_codec.h"

#include <algorithm>
#include <limits>
#include <memory>

#include "codecs/trpc/heads.h"
#include "src/codec/utf8.h"

namespace metaprotocol::trpc {
namespace {

constexpr std::string_view kMagic = "\x09\x30";
// The frame head: magic, frame type, stream frame type, length of all (4), of the head behind this
// one (2), stream or request id (4), version, a reserved byte.
constexpr size_t kFrameHeadBytes = 16;
constexpr size_t kFrameTypeOffset = 2;
constexpr size_t kStreamFrameTypeOffset = 3;
constexpr size_t kLengthOffset = 4;
constexpr size_t kHeadLengthOffset = 8;
constexpr size_t kIdOffset = 10;
constexpr size_t kVersionOffset = 14;

// A head can be this much longer with another id in it.
constexpr size_t kMaxIdBytes = 6;
constexpr size_t kMaxHeadBytes = UINT16_MAX;

constexpr uint8_t kUnary = 0;
constexpr uint8_t kStream = 1;
enum StreamFrame : uint8_t { kInit = 1, kData = 2, kFeedback = 3, kClose = 4 };

constexpr uint32_t kOneWayCall = 1;
constexpr int32_t kCloseOneSide = 0;

// TrpcRetCode of trpc.proto.
constexpr int32_t kDecodeError = 1;
constexpr int32_t kNoService = 11;
constexpr int32_t kTimeoutError = 21;
constexpr int32_t kLimited = 23;
constexpr int32_t kSystemError = 31;
constexpr int32_t kAuthError = 41;

int32_t RetOf(LocalReply reply) {
  switch (reply) {
    case LocalReply::kNoContent:
      return 0;
    case LocalReply::kNoRoute:
      return kNoService;
    case LocalReply::kTimeout:
      return kTimeoutError;
    case LocalReply::kOverLimit:
      return kLimited;
    case LocalReply::kDenied:
      return kAuthError;
    case LocalReply::kTooLarge:
    case LocalReply::kMalformed:
      return kDecodeError;
    default:
      return kSystemError;
  }
}

// Message::tag. Encode reads where the request id is in the head, Reply how the frame is to be.
struct Tag {
  size_t id_begin = 0;
  size_t id_bytes = 0;        // 0: nowhere
  uint8_t version = 0;        // of the frame
  bool frame_has_id = false;  // the frame head has the request id as well (version 1)

  uint64_t Pack() const {
    return uint64_t{id_begin} | uint64_t{id_bytes} << 16 | uint64_t{version} << 24 |
           uint64_t{frame_has_id} << 32;
  }
  static Tag Unpack(uint64_t tag) {
    return {static_cast<size_t>(tag & 0xffff), static_cast<size_t>(tag >> 16 & 0xff),
            static_cast<uint8_t>(tag >> 24), (tag >> 32 & 1) != 0};
  }
};

DecodeResult DecodeUnary(Direction direction, Bytes bytes, const DecodeOptions& options,
                         Message& message) {
  const bool is_request = direction == Direction::kRequest;
  message.kind = is_request ? MessageKind::kRequest : MessageKind::kResponse;
  const uint32_t frame_id = LoadBe32(bytes.data() + kIdOffset);
  message.id = frame_id;
  Tag tag{.version = static_cast<uint8_t>(bytes[kVersionOffset]), .frame_has_id = true};
  message.tag = tag.Pack();
  const size_t head_bytes = LoadBe16(bytes.data() + kHeadLengthOffset);
  const size_t head_end = kFrameHeadBytes + head_bytes;
  const bool too_large = message.length > options.max_message_bytes;
  if (head_end > message.length) {
    return too_large ? DecodeResult::TooLarge("tRPC frame over the size limit")
                     : DecodeResult::Undecodable("a head larger than its frame");
  }
  if (head_end > options.max_message_bytes) return DecodeResult::TooLarge("tRPC head too large");
  // Also of a frame that is too large: its reply is to be the right call's.
  if (bytes.size() < head_end) return DecodeResult::NeedMore(head_end);
  const Bytes head_view = bytes.substr(kFrameHeadBytes, head_bytes);
  UnaryHead head;
  const bool whole = is_request ? ReadRequestHead(head_view, head, message.metadata)
                                : ReadResponseHead(head_view, head, message.metadata);
  message.id = head.request_id;
  tag.id_begin = head.id_begin;
  tag.id_bytes = head.id_end - head.id_begin;
  tag.frame_has_id = frame_id == head.request_id;
  message.tag = tag.Pack();
  if (is_request && head.call_type == kOneWayCall) message.kind = MessageKind::kOneWay;
  if (too_large) return DecodeResult::TooLarge("tRPC frame over the size limit");
  if (!whole) return DecodeResult::Undecodable("a tRPC head that cannot be read");
  if (head_bytes > kMaxHeadBytes - kMaxIdBytes) {
    return DecodeResult::Undecodable("a tRPC head without room for another id");
  }
  if (head.attachment_size > message.length - head_end) {
    return DecodeResult::Undecodable("an attachment that is larger than its frame");
  }
  if (bytes.size() < message.length && !options.allow_partial) {
    return DecodeResult::NeedMore(message.length);
  }
  if (is_request) {
    message.timeout_us = uint64_t{1000} * head.timeout_ms;
  } else if (head.ret != 0) {
    message.status = ReplyStatus::kError;
    message.status_code = head.ret;
  } else if (head.func_ret != 0) {
    message.status = ReplyStatus::kException;
    message.status_code = head.func_ret;
  }
  return DecodeResult::Ok();
}

DecodeResult DecodeStream(Direction direction, Bytes bytes, const DecodeOptions& options,
                          Message& message) {
  message.stream_id = LoadBe32(bytes.data() + kIdOffset);
  message.tag = Tag{.version = static_cast<uint8_t>(bytes[kVersionOffset])}.Pack();
  const auto type = static_cast<StreamFrame>(bytes[kStreamFrameTypeOffset]);
  switch (type) {
    case kInit:
      // A server's own INIT belongs to the stream that it accepts.
      message.kind =
          direction == Direction::kRequest ? MessageKind::kStreamOpen : MessageKind::kStreamData;
      break;
    case kData:
      message.kind = MessageKind::kStreamData;
      break;
    case kFeedback:
      message.kind = MessageKind::kStreamWindow;
      break;
    case kClose:
      message.kind = MessageKind::kStreamReset;
      break;
    default:
      message.kind = MessageKind::kStreamData;
      if (message.length > options.max_message_bytes) {
        return DecodeResult::TooLarge("tRPC frame over the size limit");
      }
      return DecodeResult::Undecodable("an unknown tRPC stream frame");
  }
  if (message.length > options.max_message_bytes) {
    return DecodeResult::TooLarge("tRPC frame over the size limit");
  }
  if (message.stream_id == 0) return DecodeResult::Undecodable("a stream without an id");
  if (bytes.size() < message.length) return DecodeResult::NeedMore(message.length);
  const Bytes body = bytes.substr(kFrameHeadBytes, message.length - kFrameHeadBytes);
  StreamHead head;
  bool whole = true;
  if (type == kInit) {
    whole = ReadStreamInit(body, head, message.metadata);
    // A stream that is refused is not there any more.
    if (direction == Direction::kResponse && head.ret != 0) {
      message.kind = MessageKind::kStreamReset;
    }
  } else if (type == kFeedback) {
    whole = ReadStreamFeedback(body, head);
    message.window = head.window;
  } else if (type == kClose) {
    whole = ReadStreamClose(body, head);
    if (head.close_type == kCloseOneSide && head.ret == 0) message.kind = MessageKind::kStreamEnd;
  }
  message.status_code = head.ret;
  return whole ? DecodeResult::Ok()
               : DecodeResult::Undecodable("a stream frame that cannot be read");
}

void AppendFrameHead(uint8_t frame_type, uint8_t stream_frame_type, size_t head_bytes,
                     size_t rest_bytes, uint32_t id, uint8_t version, std::string& out) {
  out += kMagic;
  out += static_cast<char>(frame_type);
  out += static_cast<char>(stream_frame_type);
  AppendBe32(out, static_cast<uint32_t>(kFrameHeadBytes + head_bytes + rest_bytes));
  AppendBe16(out, static_cast<uint16_t>(head_bytes));
  AppendBe32(out, id);
  out += static_cast<char>(version);
  out += '\0';
}

std::string_view Said(std::string_view text, LocalReply reply) {
  // A message that is larger than a head can be is of no use to anybody.
  constexpr size_t kMaxTextBytes = 4096;
  const std::string_view said = text.substr(0, kMaxTextBytes);
  return said.empty() || !IsUtf8(said) ? LocalReplyName(reply) : said;
}

uint32_t Milliseconds(uint64_t us) {
  constexpr uint64_t kMost = std::numeric_limits<uint32_t>::max();
  return static_cast<uint32_t>(std::min(kMost, MillisecondsFrom(us)));
}

Encoded EncodeStream(const Message& message, Bytes bytes, const EncodeOptions& options,
                     std::string& out) {
  const size_t start = out.size();
  out += bytes.substr(0, kFrameHeadBytes);
  StoreBe32(&out[start + kIdOffset], static_cast<uint32_t>(options.stream_id));
  if (message.kind != MessageKind::kStreamOpen || options.mutation.empty()) {
    return {.head = kFrameHeadBytes};
  }
  const Bytes init = bytes.substr(kFrameHeadBytes, message.length - kFrameHeadBytes);
  AppendChangedInit(init, options.mutation, out);
  StoreBe32(&out[start + kLengthOffset], static_cast<uint32_t>(out.size() - start));
  return {.head = message.length};
}

}  // namespace

const CodecTraits& TrpcCodec::traits() const {
  static constexpr CodecTraits kTraits = {.name = "trpc",
                                          .id_bits = 32,
                                          .multiplexed = true,
                                          .mutation_in_head = true,
                                          .metadata_keys = kMetadataKeys};
  return kTraits;
}

Interest TrpcCodec::InterestIn(const MetadataKeys& keys) const { return {.keys = &keys}; }

DecodeResult TrpcCodec::Decode(DecodeState*, Direction direction, Bytes bytes,
                               const DecodeOptions& options, Message& message) const {
  message.kind = direction == Direction::kRequest ? MessageKind::kRequest : MessageKind::kResponse;
  if (bytes.substr(0, kMagic.size()) != kMagic.substr(0, bytes.size())) {
    return DecodeResult::Error("no tRPC magic number");
  }
  if (bytes.size() < kFrameHeadBytes) return DecodeResult::NeedMore(kFrameHeadBytes);
  message.length = LoadBe32(bytes.data() + kLengthOffset);
  if (message.length < kFrameHeadBytes) {
    return DecodeResult::Error("a tRPC frame shorter than its head");
  }
  switch (static_cast<uint8_t>(bytes[kFrameTypeOffset])) {
    case kUnary:
      return DecodeUnary(direction, bytes, options, message);
    case kStream:
      return DecodeStream(direction, bytes, options, message);
    default:
      return DecodeResult::Error("an unknown tRPC frame type");
  }
}

Encoded TrpcCodec::Encode(const Message& message, Bytes bytes, const EncodeOptions& options,
                          std::string& out) const {
  if (static_cast<uint8_t>(bytes[kFrameTypeOffset]) == kStream) {
    return EncodeStream(message, bytes, options, out);
  }
  const size_t head_end = kFrameHeadBytes + LoadBe16(bytes.data() + kHeadLengthOffset);
  const Bytes head = bytes.substr(kFrameHeadBytes, head_end - kFrameHeadBytes);
  const bool replaces_timeout = options.timeout_us != 0 && message.timeout_us != 0;
  const bool changes = replaces_timeout || !options.mutation.empty();
  if (!changes && options.id == message.id) {
    out += bytes.substr(0, head_end);
    return {.head = head_end};
  }
  const Tag tag = Tag::Unpack(message.tag);
  const auto id = static_cast<uint32_t>(options.id);
  const size_t start = out.size();
  const size_t rest = message.length - head_end;
  const auto new_head = [&] { return out.size() - start - kFrameHeadBytes; };
  out += bytes.substr(0, kFrameHeadBytes);
  if (tag.frame_has_id) StoreBe32(&out[start + kIdOffset], id);
  if (changes) {
    AppendChangedHead(head, message.kind != MessageKind::kResponse,
                      {.request_id = id,
                       .timeout_ms = replaces_timeout ? Milliseconds(options.timeout_us) : 0,
                       .mutation = options.mutation},
                      out);
  }
  // Changes that no length field can say are left out if they may be; for another id alone Decode
  // sees to the room.
  const bool fits =
      changes && new_head() <= kMaxHeadBytes && new_head() <= UINT32_MAX - kFrameHeadBytes - rest;
  const bool of_request = message.kind != MessageKind::kResponse;
  if (changes && !fits && of_request && AnyRequired(options.mutation)) {
    out.resize(start);
    return {.impossible = true};
  }
  if (!fits) {
    out.resize(start + kFrameHeadBytes);
    const size_t begin = tag.id_bytes == 0 ? head.size() : tag.id_begin;
    AppendHeadWithId(head, begin, begin + tag.id_bytes, id, out);
  }
  StoreBe16(&out[start + kHeadLengthOffset], static_cast<uint16_t>(new_head()));
  StoreBe32(&out[start + kLengthOffset],
            static_cast<uint32_t>(kFrameHeadBytes + new_head() + rest));
  return {.head = head_end};
}

bool TrpcCodec::BlamesRequest(int32_t status_code) const {
  constexpr int32_t kNoMethod = 12;
  constexpr int32_t kInvalid = 51;
  return status_code == kDecodeError || status_code == kNoService || status_code == kNoMethod ||
         status_code == kAuthError || status_code == kInvalid;
}

bool TrpcCodec::Reply(const ReplyContext& request, LocalReply reply, std::string_view text,
                      std::string& out) const {
  const Tag tag = Tag::Unpack(request.tag);
  const bool success = reply == LocalReply::kNoContent;
  const auto id = static_cast<uint32_t>(request.id);
  std::string head;
  AppendResponseHead(id, RetOf(reply), success ? std::string_view() : Said(text, reply), head);
  AppendFrameHead(kUnary, 0, head.size(), 0, tag.frame_has_id ? id : 0, tag.version, out);
  out += head;
  return true;
}

bool TrpcCodec::ResetStream(const ReplyContext& stream, Direction, LocalReply reason,
                            std::string_view text, std::string& out) const {
  std::string close;
  AppendStreamReset(RetOf(reason), Said(text, reason), close);
  AppendFrameHead(kStream, kClose, 0, close.size(), static_cast<uint32_t>(stream.stream_id),
                  Tag::Unpack(stream.tag).version, out);
  out += close;
  return true;
}

bool TrpcCodec::GrantWindow(const ReplyContext& stream, Direction, uint64_t bytes,
                            std::string& out) const {
  constexpr uint64_t kMost = std::numeric_limits<uint32_t>::max();
  std::string feedback;
  AppendStreamFeedback(static_cast<uint32_t>(std::min(kMost, bytes)), feedback);
  AppendFrameHead(kStream, kFeedback, 0, feedback.size(), static_cast<uint32_t>(stream.stream_id),
                  Tag::Unpack(stream.tag).version, out);
  out += feedback;
  return true;
}

CodecOrError CreateTrpcCodec(std::string_view options) {
  if (!AreNoOptions(options)) return {nullptr, TakesNoOptions("trpc", options)};
  return {std::make_shared<const TrpcCodec>(), ""};
}

}  // namespace metaprotocol::trpc
