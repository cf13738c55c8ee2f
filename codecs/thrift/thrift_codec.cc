#include "codecs/thrift/thrift_codec.h"

#include <algorithm>

#include "codecs/thrift/frame_check.h"
#include "codecs/thrift/header_parts.h"
#include "codecs/thrift/inflate.h"
#include "codecs/thrift/message_head.h"
#include "codecs/thrift/struct_skipper.h"
#include "codecs/thrift/theader.h"
#include "codecs/thrift/ttheader.h"
#include "codecs/thrift/wire.h"
#include "src/codec/utf8.h"
#include "src/codec/varint.h"

namespace metaprotocol::thrift {
namespace {

enum Key : OwnKey { kMethodKey, kServiceKey, kMessageTypeKey, kTransportKey, kProtocolKey };
constexpr std::string_view kMetadataKeys[] = {"method", "service", "message_type", "transport",
                                              "protocol"};

constexpr CodecTraits kTraits = {.name = "thrift",
                                 .id_bits = 32,
                                 .ordered_replies = true,
                                 .mutation_in_head = true,
                                 .metadata_keys = kMetadataKeys};

// TApplicationException types (thrift-rpc.md, "Response struct").
constexpr uint8_t kInternalError = 6;
constexpr uint8_t kProtocolError = 7;

// What a message is larger than its compressed bytes is its sender's to choose, who pays for those
// alone: beyond so many bytes, no more than a hundred for each of them.
constexpr size_t kInflatedFreely = size_t{1} << 20;
constexpr size_t kMostInflatedForEach = 100;
constexpr size_t kMostInflated = kMaxFrameBytes - kMaxHeaderBytes - 16;
constexpr std::string_view kInflatesTooMuch =
    "a compressed Thrift message too large, or larger than 1 MiB and a hundred times what was "
    "sent";

struct ThriftState : DecodeState {
  // What the client of a connection speaks, from its first message on; it may not change. Not used
  // for responses: connections to servers serve one client after the other.
  Dialect dialect;
  // How far the structural skip of an unfinished unframed message has come. Made when first needed.
  std::unique_ptr<StructSkipper> skipper;
  bool skipping = false;
  // The check of a framed request that is passed on while it arrives. Likewise.
  std::unique_ptr<FrameCheck> frame;
  bool checking = false;

  void Keep(const StructSkipper& unfinished) {
    if (!skipper) skipper = std::make_unique<StructSkipper>();
    *skipper = unfinished;
    skipping = true;
  }
};

std::string_view MessageTypeName(MessageType type) {
  switch (type) {
    case MessageType::kCall:
      return "call";
    case MessageType::kReply:
      return "reply";
    case MessageType::kException:
      return "exception";
    case MessageType::kOneWay:
      return "oneway";
    case MessageType::kUnknown:
      break;
  }
  return "";
}

MessageKind KindOf(MessageType type, Direction direction) {
  switch (type) {
    case MessageType::kCall:
      return MessageKind::kRequest;
    case MessageType::kOneWay:
      return MessageKind::kOneWay;
    case MessageType::kReply:
    case MessageType::kException:
      return MessageKind::kResponse;
    case MessageType::kUnknown:
      break;
  }
  return direction == Direction::kRequest ? MessageKind::kRequest : MessageKind::kResponse;
}

bool IsMessage(const DecodeResult& result) {
  return result.status == DecodeResult::Status::kMessage;
}
bool IsNeedMore(const DecodeResult& result) {
  return result.status == DecodeResult::Status::kNeedMore;
}

// Message::id and ReplyContext::id: the message's sequence id, and above it what makes THeader's
// own number of it. Both ids are then restored in the reply even if a client numbers them apart.
uint64_t JoinIds(uint32_t message_id, uint32_t header_id) {
  return uint64_t{header_id ^ message_id} << 32 | message_id;
}
uint32_t MessageId(uint64_t id) { return static_cast<uint32_t>(id); }
uint32_t HeaderId(uint64_t id) { return static_cast<uint32_t>(id >> 32) ^ MessageId(id); }

// One call of Decode: what it was given, and what it has found out so far.
class Decoding {
 public:
  Decoding(const ThriftOptions& codec, ThriftState* state, Direction direction, Bytes bytes,
           const DecodeOptions& options, Message& message)
      : codec_(codec),
        state_(state),
        direction_(direction),
        bytes_(bytes),
        text_(bytes),
        options_(options),
        message_(message) {}

  DecodeResult Run() {
    if (state_) state_->checking = false;
    DecodeResult result = Detect(bytes_, dialect_);
    if (!IsMessage(result)) return result;
    result = dialect_.transport == Transport::kUnframed ? DecodeUnframed() : DecodeFrame();
    if (IsNeedMore(result) && result.need > options_.max_message_bytes) {
      result = DecodeResult::TooLarge("Thrift message too large");
    }
    result.unpacked_bytes = 2 * (inflated_.size() + other_cost_);  // once more to encode it
    if (state_) state_->skipping &= IsNeedMore(result);
    if (result.status == DecodeResult::Status::kTooLarge &&
        dialect_.transport == Transport::kUnframed) {
      message_.length = 0;  // nobody knows
    }
    if (IsNeedMore(result)) return result;
    Identify();
    if (IsMessage(result) && state_ && direction_ == Direction::kRequest) {
      state_->dialect = dialect_;
    }
    return result;
  }

 private:
  bool from_client() const { return direction_ == Direction::kRequest; }
  // Where the message ends in `text_`.
  size_t End() const { return header_.zlib ? text_.size() : message_.length; }

  // Framed and THeader.
  DecodeResult DecodeFrame() {
    message_.length = size_t{4} + LoadBe32(bytes_.data());
    DecodeResult result = ReadFrameHead();
    // Judged after the head, which is waited for, so that the reply can name the request.
    if (IsMessage(result)) result = CheckLength();
    if (IsMessage(result)) result = CheckDialect();
    if (IsMessage(result)) result = ReadStatus();
    if (!IsMessage(result)) return result;
    if (bytes_.size() < message_.length && !options_.allow_partial) {
      return DecodeResult::NeedMore(message_.length);
    }
    if (codec_.check_frames && from_client()) result = CheckFrame();
    if (IsMessage(result)) result = CheckName();
    if (!IsMessage(result)) return result;
    SetMetadata();
    if (!HasHeader(dialect_.transport)) return DecodeResult::Ok();
    result = ReadInfos();
    return IsMessage(result) ? result : DecodeResult::Undecodable(result.error);
  }

  DecodeResult ReadFrameHead() {
    size_t position = 4;
    if (HasHeader(dialect_.transport)) {
      const bool tt = IsTTHeader(dialect_.transport);
      DecodeResult result = tt ? ReadTTHeader(bytes_, message_.length, header_)
                               : ReadHeader(bytes_, message_.length, header_);
      if (!tt) dialect_.protocol = header_.protocol;
      if (header_.framed) dialect_.transport = Transport::kTTHeaderFramed;
      if (!IsMessage(result)) return result;
      position = header_.body_offset;
    }
    if (header_.zlib) return ReadCompressedHead();
    Cursor cursor(bytes_, position, message_.length);
    return ReadMessageHead(dialect_.protocol, cursor, head_);
  }

  DecodeResult CheckLength() const {
    const bool too_large =
        message_.length - 4 > kMaxFrameBytes || message_.length > options_.max_message_bytes;
    return too_large ? DecodeResult::TooLarge("Thrift frame too large") : DecodeResult::Ok();
  }

  // Is all there, or not read.
  DecodeResult ReadCompressedHead() {
    DecodeResult result = CheckLength();
    if (!IsMessage(result)) return result;
    if (bytes_.size() < message_.length) return DecodeResult::NeedMore(message_.length);
    const size_t begin = header_.body_offset;
    const Bytes compressed = bytes_.substr(begin, message_.length - begin);
    const size_t most = std::max(kInflatedFreely, compressed.size() * kMostInflatedForEach);
    const size_t room = std::min(options_.max_message_bytes - begin, kMostInflated);
    switch (Inflate(compressed, std::min(most, room), inflated_, other_cost_)) {
      case Inflation::kTooLarge:
        return DecodeResult::TooLarge(kInflatesTooMuch);
      case Inflation::kBroken:
        header_.exception_type = kInvalidTransform;
        return DecodeResult::Undecodable("a Thrift message that zlib cannot have compressed");
      case Inflation::kDone:
        break;
    }
    text_ = inflated_;
    Cursor cursor(text_, 0, text_.size());
    result = ReadMessageHead(dialect_.protocol, cursor, head_);
    head_.name = message_.metadata.Own(std::string(head_.name));
    head_.method = MethodOf(head_.name);
    return result;
  }

  DecodeResult ReadInfos() {
    if (!IsTTHeader(dialect_.transport)) {
      return ReadInfoHeaders(bytes_, header_, message_.metadata);
    }
    TTHeaderInfos infos;
    const DecodeResult result = ReadTTHeaderInfos(bytes_, header_, message_.metadata, infos);
    if (infos.service.data() != nullptr) message_.metadata.SetOwn(kServiceKey, infos.service);
    if (head_.type == MessageType::kCall) message_.timeout_us = infos.timeout_us;
    return result;
  }

  // As far as the frame is there; what follows goes through CheckBody.
  DecodeResult CheckFrame() {
    std::string_view wrong;
    if (bytes_.size() >= message_.length) {
      const Bytes frame = text_.substr(0, End());
      wrong = CheckWholeFrame(dialect_.protocol, head_.body_offset, frame);
    } else {
      FrameCheck forgotten;
      if (state_ && !state_->frame) state_->frame = std::make_unique<FrameCheck>();
      FrameCheck& check = state_ ? *state_->frame : forgotten;
      if (state_) state_->checking = true;
      wrong = check.Start(dialect_.protocol, head_.body_offset, bytes_, message_.length);
    }
    return wrong.empty() ? DecodeResult::Ok() : DecodeResult::Undecodable(wrong);
  }

  DecodeResult DecodeUnframed() {
    const size_t max_bytes = options_.max_message_bytes;
    if (state_ && state_->skipping && state_->skipper->position() <= bytes_.size()) {
      // The head was checked before the skipping began.
      DecodeResult result = state_->skipper->Run(bytes_, max_bytes);
      if (IsNeedMore(result)) return result;
      ReadUnframedHead();
      message_.length = state_->skipper->position();
      if (!IsMessage(result)) return result;
    } else {
      DecodeResult result = ReadUnframedHead();
      if (IsMessage(result)) result = CheckDialect();
      if (!IsMessage(result)) return result;
      StructSkipper skipper;
      skipper.Start(dialect_.protocol, head_.body_offset);
      result = skipper.Run(bytes_, max_bytes);
      if (IsNeedMore(result) && state_) state_->Keep(skipper);
      message_.length = skipper.position();
      if (!IsMessage(result)) return result;
    }
    if (DecodeResult result = CheckName(); !IsMessage(result)) return result;
    SetMetadata();
    return ReadStatus();
  }

  // A rule about a method must mean the one that the server calls. Of a name with several colons,
  // or nothing on one side of its colon, servers make different ones.
  DecodeResult CheckName() const {
    return from_client() && head_.method.size() != head_.name.size() && !IsUnequivocal(head_.name)
               ? DecodeResult::Undecodable("a Thrift method name that servers read in several ways")
               : DecodeResult::Ok();
  }

  DecodeResult ReadUnframedHead() {
    Cursor cursor(bytes_, 0, SIZE_MAX);
    return ReadMessageHead(dialect_.protocol, cursor, head_);
  }

  DecodeResult CheckDialect() const {
    if (from_client() && state_ && state_->dialect.known() && state_->dialect != dialect_) {
      return DecodeResult::Error("the client changed its Thrift transport or protocol");
    }
    return DecodeResult::Ok();
  }

  // Whether a response is a result, an exception that the method declares, or an error. The struct
  // begins in every message, so waiting for its first field cannot be in vain.
  DecodeResult ReadStatus() {
    if (head_.type != MessageType::kReply && head_.type != MessageType::kException) {
      return DecodeResult::Ok();
    }
    Cursor cursor(text_, head_.body_offset, End());
    if (head_.type == MessageType::kException) {
      message_.status = ReplyStatus::kError;
      message_.status_code = ReadExceptionType(dialect_.protocol, cursor);
      return DecodeResult::Ok();
    }
    bool is_exception = false;
    const DecodeResult result = ReadIsDeclaredException(dialect_.protocol, cursor, is_exception);
    message_.status = is_exception ? ReplyStatus::kException : ReplyStatus::kOk;
    return result;
  }

  void SetMetadata() {
    Metadata& metadata = message_.metadata;
    const std::string_view method = head_.method;
    metadata.SetOwn(kMethodKey, method);
    if (method.size() < head_.name.size()) {
      metadata.SetAlternative(kMethodKey, head_.name);
      metadata.SetOwn(kServiceKey, head_.name.substr(0, head_.name.size() - method.size() - 1));
    }
    if (metadata.Wants(kMessageTypeKey)) {
      metadata.SetOwn(kMessageTypeKey, MessageTypeName(head_.type));
    }
    if (metadata.Wants(kTransportKey)) {
      metadata.SetOwn(kTransportKey, TransportName(dialect_.transport));
    }
    if (metadata.Wants(kProtocolKey)) {
      metadata.SetOwn(kProtocolKey, ProtocolName(dialect_.protocol));
    }
  }

  // Some clients send calls for methods that the IDL says need no reply.
  bool IsOneWay() const {
    const auto& methods = codec_.one_way_methods;
    return !methods.empty() && (methods.contains(head_.name) || methods.contains(head_.method));
  }

  // Fills in what replies and Encode need, as far as it is known. A call from a server and a reply
  // from a client are told as what they are; it is the caller who has no use for them.
  void Identify() {
    message_.kind = KindOf(head_.type, direction_);
    if (message_.kind == MessageKind::kRequest && from_client() && IsOneWay()) {
      message_.kind = MessageKind::kOneWay;
      message_.timeout_us = 0;
    }
    const bool header = HasHeader(dialect_.transport);
    const uint32_t id = head_.id_offset != 0 || !header ? head_.id : header_.id;
    message_.id = header && from_client() ? JoinIds(id, header_.id) : id;
    message_.reply_name = head_.method;
    message_.tag =
        Tag{dialect_, header_.exception_type, header_.zlib, static_cast<uint32_t>(head_.id_offset)}
            .Pack();
  }

  const ThriftOptions& codec_;
  ThriftState* const state_;
  const Direction direction_;
  const Bytes bytes_;
  Bytes text_;  // what the message itself is in: `bytes_`, or what these stand for
  std::string inflated_;
  size_t other_cost_ = 0;  // of inflating it
  const DecodeOptions& options_;
  Message& message_;

  Dialect dialect_;
  HeaderInfo header_;
  MessageHead head_;
};

// How long the id at bytes[offset] is.
size_t IdBytes(Protocol protocol, Bytes bytes, size_t offset) {
  if (protocol != Protocol::kCompact) return 4;
  size_t n = 1;
  while (static_cast<uint8_t>(bytes[offset + n - 1]) >= 0x80) ++n;
  return n;
}

// Writes an id into `p`, which has room for 5 bytes; returns how long it is.
size_t StoreId(Protocol protocol, uint32_t id, char* p) {
  if (protocol == Protocol::kCompact) return StoreVarint(p, id);
  StoreBe32(p, id);
  return 4;
}

// What changes in the header of a frame.
struct HeaderChange {
  uint32_t id = 0;
  std::span<const MutationOp> mutation;
  bool required = false;    // the mutation may not be left out
  bool plain = false;       // THeader: without its transform
  uint64_t timeout_ms = 0;  // TTHeader; 0: as it is
};

// Appends what lies between the frame length and the message of a THeader or TTHeader frame: the
// fixed fields, and the variable header. Returns how far in `bytes` that stands for; 0: it cannot
// be changed as is required.
size_t AppendHeader(Transport transport, Bytes bytes, size_t message_bytes,
                    const HeaderChange& change, std::string& out) {
  const size_t words = LoadBe16(bytes.data() + kHeaderSizeOffset);
  const size_t end = kHeaderFixedBytes + words * 4;
  out += bytes.substr(4, kHeaderIdOffset - 4);
  AppendBe32(out, change.id);
  const size_t size_at = out.size();
  AppendBe16(out, static_cast<uint16_t>(words));
  const auto append_mutated = [&] {
    if (message_bytes > kMaxFrameBytes - kMaxHeaderBytes - 16) return false;
    if (!IsTTHeader(transport)) {
      return ((change.plain || !change.mutation.empty()) &&
              AppendMutatedHeader(bytes, change.mutation, out)) ||
             (change.plain && !change.required && AppendMutatedHeader(bytes, {}, out));
    }
    return (!change.mutation.empty() || change.timeout_ms != 0) &&
           AppendMutatedTTHeader(bytes, change.mutation, change.timeout_ms, out);
  };
  if (append_mutated()) {
    StoreBe16(out.data() + size_at, static_cast<uint16_t>((out.size() - size_at - 2) / 4));
  } else if (change.required) {
    return 0;
  } else {
    out += bytes.substr(kHeaderFixedBytes, end - kHeaderFixedBytes);
  }
  return end;
}

uint8_t ExceptionType(LocalReply reply, uint8_t hint) {
  switch (reply) {
    case LocalReply::kTooLarge:
    case LocalReply::kMalformed:
      return hint != 0 ? hint : kProtocolError;
    default:
      return kInternalError;
  }
}

// TApplicationException as a struct: 1: string message, 2: i32 type.
void AppendException(Protocol protocol, std::string_view text, uint8_t type, std::string& out) {
  const auto length = static_cast<uint32_t>(text.size());
  if (protocol == Protocol::kCompact) {
    out += '\x18';  // field 1, binary
    AppendVarint(length, out);
    out += text;
    out += '\x15';                          // one field on, i32
    AppendVarint(uint32_t{type} * 2, out);  // zigzag
  } else {
    out.append("\x0B\x00\x01", 3);  // string, field 1
    AppendBe32(out, length);
    out += text;
    out.append("\x08\x00\x02", 3);  // i32, field 2
    AppendBe32(out, type);
  }
  out += '\0';
}

// Where lengths change with the id, or with what the header is to say.
Encoded EncodeWithLengths(const Tag& tag, const Message& message, Bytes bytes,
                          const EncodeOptions& options, std::string& out) {
  const uint64_t id = options.id;
  std::string inflated;
  if (tag.compressed) {
    if (id == message.id && options.mutation.empty()) return {};
    // The id is among what is compressed. What its sender has found worth compressing goes on
    // without; to read it again costs what it cost to decode.
    const size_t begin = HeaderEnd(bytes);
    const Bytes compressed = bytes.substr(begin, message.length - begin);
    size_t cost = 0;  // which Decode has told
    if (Inflate(compressed, kMostInflated, inflated, cost) != Inflation::kDone) {
      return {.impossible = true};
    }
  }
  const Bytes text = tag.compressed ? Bytes(inflated) : bytes;
  const Protocol protocol = tag.dialect.protocol;
  const size_t old_end = tag.id_offset + IdBytes(protocol, text, tag.id_offset);
  char stored[5];
  // An id that stays is left as its peer wrote it: varints can be longer than they need be.
  const Bytes new_id = id == message.id ? text.substr(tag.id_offset, old_end - tag.id_offset)
                                        : Bytes(stored, StoreId(protocol, MessageId(id), stored));
  if (tag.dialect.transport == Transport::kUnframed) {
    out += text.substr(0, tag.id_offset);
    out += new_id;
    return {.head = old_end};
  }

  const size_t start = out.size();
  out.append(4, '\0');
  size_t copied = 4;
  if (HasHeader(tag.dialect.transport)) {
    // A server's header may have another number than its message, and keeps it likewise.
    const uint32_t header_id =
        id == message.id ? LoadBe32(bytes.data() + kHeaderIdOffset) : HeaderId(id);
    const bool required = message.kind != MessageKind::kResponse && AnyRequired(options.mutation);
    HeaderChange change{header_id, options.mutation, required, tag.compressed};
    const bool shorter = options.timeout_us != 0 && message.timeout_us != 0;
    if (shorter) change.timeout_ms = MillisecondsFrom(options.timeout_us);
    const size_t message_bytes = tag.compressed ? text.size() : message.length;
    copied = AppendHeader(tag.dialect.transport, bytes, message_bytes, change, out);
    if (copied == 0) {
      out.resize(start);
      return {.impossible = true};
    }
  }
  if (tag.compressed) copied = 0;  // of `text`
  out += text.substr(copied, tag.id_offset - copied);
  out += new_id;
  if (tag.compressed) out += text.substr(old_end);
  const size_t left = tag.compressed ? 0 : message.length - old_end;
  StoreBe32(out.data() + start, static_cast<uint32_t>(out.size() - start - 4 + left));
  return {.head = message.length - left};
}

}  // namespace

const CodecTraits& ThriftCodec::traits() const { return kTraits; }

Interest ThriftCodec::InterestIn(const MetadataKeys& keys) const {
  return {.mask = 0, .head_suffices = true, .keys = &keys};  // all metadata lie in the head
}

std::unique_ptr<DecodeState> ThriftCodec::NewDecodeState(Direction) const {
  return std::make_unique<ThriftState>();
}

DecodeResult ThriftCodec::Decode(DecodeState* state, Direction direction, Bytes bytes,
                                 const DecodeOptions& options, Message& message) const {
  return Decoding(options_, static_cast<ThriftState*>(state), direction, bytes, options, message)
      .Run();
}

std::string_view ThriftCodec::CheckBody(DecodeState* state, Bytes part) const {
  auto* const thrift = static_cast<ThriftState*>(state);
  if (thrift == nullptr || !thrift->checking) return {};
  return thrift->frame->Continue(part);
}

Encoded ThriftCodec::Encode(const Message& message, Bytes bytes, const EncodeOptions& options,
                            std::string& out) const {
  const Tag tag = Tag::Unpack(message.tag);
  // Nearly all: the id is as long as before, and nothing else says how long anything is.
  if (!HasHeader(tag.dialect.transport) && tag.dialect.protocol != Protocol::kCompact) {
    const size_t start = out.size();
    out += bytes.substr(0, tag.id_offset + sizeof(uint32_t));
    StoreBe32(out.data() + start + tag.id_offset, MessageId(options.id));
    return {.head = tag.id_offset + sizeof(uint32_t)};
  }
  return EncodeWithLengths(tag, message, bytes, options, out);
}

// TApplicationException's types: all but UNKNOWN, MISSING_RESULT, INTERNAL_ERROR and what other
// implementations have added.
bool ThriftCodec::BlamesRequest(int32_t status_code) const {
  constexpr int32_t kFirst = 1;  // UNKNOWN_METHOD
  constexpr int32_t kLast = 10;  // UNSUPPORTED_CLIENT_TYPE
  constexpr int32_t kMissingResult = 5;
  return status_code >= kFirst && status_code <= kLast && status_code != kMissingResult &&
         status_code != kInternalError;
}

bool ThriftCodec::Reply(const ReplyContext& request, LocalReply reply, std::string_view text,
                        std::string& out) const {
  const Tag tag = Tag::Unpack(request.tag);
  if (!tag.dialect.known()) return false;
  // Not known only if a THeader names a protocol that does not exist; its clients all read binary.
  const Protocol protocol =
      tag.dialect.protocol == Protocol::kUnknown ? Protocol::kBinary : tag.dialect.protocol;
  const size_t start = out.size();
  if (tag.dialect.transport != Transport::kUnframed) out.append(4, '\0');
  if (tag.dialect.transport == Transport::kHeader) {
    AppendPlainHeader(protocol, HeaderId(request.id), out);
  } else if (IsTTHeader(tag.dialect.transport)) {
    AppendPlainTTHeader(HeaderId(request.id), out);
  }
  const size_t inner = out.size();
  const bool framed_within = tag.dialect.transport == Transport::kTTHeaderFramed;
  if (framed_within) out.append(4, '\0');
  const bool success = reply == LocalReply::kNoContent;
  AppendMessageHead(protocol, success ? MessageType::kReply : MessageType::kException, request.name,
                    MessageId(request.id), out);
  if (success) {
    out += '\0';  // a result without fields: void
  } else {
    AppendException(protocol, text.empty() || !IsUtf8(text) ? LocalReplyName(reply) : text,
                    ExceptionType(reply, tag.exception_type), out);
  }
  if (tag.dialect.transport != Transport::kUnframed) {
    StoreBe32(out.data() + start, static_cast<uint32_t>(out.size() - start - 4));
  }
  if (framed_within) StoreBe32(out.data() + inner, static_cast<uint32_t>(out.size() - inner - 4));
  return true;
}

}  // namespace metaprotocol::thrift
