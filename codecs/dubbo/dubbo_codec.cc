// See dubbo_codec.h. Decoding; what is written lives in attachments.cc and reply.cc.
#include "codecs/dubbo/dubbo_codec.h"

#include <algorithm>
#include <string>

#include "codecs/dubbo/attachments.h"
#include "codecs/dubbo/frame.h"
#include "codecs/dubbo/hessian2.h"
#include "codecs/dubbo/json_values.h"
#include "codecs/dubbo/jsonb.h"
#include "codecs/dubbo/reply.h"
#include "codecs/dubbo/reply_attachments.h"
#include "codecs/dubbo/request.h"
#include "codecs/dubbo/request_text.h"

namespace metaprotocol::dubbo {
namespace {

// Events are a null or a one-letter string; some serializations write class names around that.
constexpr size_t kMaxEventBytes = 1024;

// A length and a number, in the form of fastjson2 that takes most.
constexpr size_t kTypeBytes = 4 + 5;

ReplyStatus StatusOfType(int32_t type) {
  if (type < 0 || type >= kResponseTypes) return ReplyStatus::kError;
  return type == static_cast<int32_t>(ResponseType::kException) ||
                 type == static_cast<int32_t>(ResponseType::kExceptionWithAttachments)
             ? ReplyStatus::kException
             : ReplyStatus::kOk;
}

// The type as nearly always, a Hessian int of one byte; false: it stands there in another form, or
// has not come yet.
bool ReadShortType(Bytes bytes, int32_t& type) {
  constexpr uint8_t kShortZero = 0x90;
  if (bytes.size() <= kHeaderBytes) return false;
  type = static_cast<uint8_t>(bytes[kHeaderBytes]) - kShortZero;
  return type >= 0 && type < kResponseTypes;
}

// A reply whose type stands in another form than nearly always.
[[gnu::noinline]] DecodeResult DecodeOtherResponse(Bytes bytes, const Header& header,
                                                   Message& message) {
  if (header.serialization() == Serialization::kHessian2) {
    int32_t type = 0;
    Hessian2Reader reader(bytes.substr(kHeaderBytes, header.body_bytes));
    if (!reader.ReadInt(type)) {
      if (reader.truncated() && bytes.size() < message.length) {
        return DecodeResult::NeedMore(std::min(message.length, kHeaderBytes + reader.need()));
      }
      type = -1;
    }
    message.status = StatusOfType(type);
  } else if (header.serialization() == Serialization::kFastjson) {
    if (bytes.size() == kHeaderBytes) return DecodeResult::NeedMore(kHeaderBytes + 1);
    const size_t type =
        JsonValues::HasLengths(bytes.substr(kHeaderBytes)) ? kHeaderBytes + 4 : kHeaderBytes;
    if (message.length > type && bytes.size() <= type) return DecodeResult::NeedMore(type + 1);
    message.status = StatusOfType(message.length > type ? bytes[type] - '0' : -1);
  } else if (header.serialization() == Serialization::kFastjson2) {
    const Bytes body = bytes.substr(kHeaderBytes, header.body_bytes);
    const size_t enough = std::min(message.length, kHeaderBytes + kTypeBytes);
    if (bytes.size() < enough) return DecodeResult::NeedMore(enough);
    Bytes document;
    int32_t type = 0;
    const bool read = JsonbValues(body).Next(document) && JsonbReader(document).ReadInt(type);
    message.status = StatusOfType(read ? type : -1);
  }
  return DecodeResult::Ok();
}

DecodeResult DecodeResponse(Bytes bytes, const Header& header, const DecodeOptions& options,
                            Message& message) {
  const bool wants_attachments = (options.interest.mask & kWantAttachments) != 0;
  if (bytes.size() < message.length && (wants_attachments || !options.allow_partial)) {
    return DecodeResult::NeedMore(message.length);
  }
  message.status = ReplyStatus::kOk;
  message.status_code = header.status;
  if (header.status != static_cast<uint8_t>(Status::kOk)) {
    message.status = ReplyStatus::kError;
    return DecodeResult::Ok();
  }
  if (header.body_bytes == 0) return DecodeResult::Ok();
  if (wants_attachments &&
      !ReadReplyAttachments(header.serialization(), bytes.substr(kHeaderBytes, header.body_bytes),
                            message)) {
    // What is wrong with them is the client's business: here they say nothing.
    message.metadata.Clear(options.interest.keys);
  }
  if (header.serialization() == Serialization::kHessian2) {
    int32_t type = 0;
    if (ReadShortType(bytes, type)) {
      message.status = StatusOfType(type);
      return DecodeResult::Ok();
    }
  }
  return DecodeOtherResponse(bytes, header, message);
}

// Read-only events carry the string "R" in whatever serialization. The letter ends it in nearly all
// of them, in Kryo with the top bit set and in JSON with a quote behind it; Protostuff wraps it.
bool IsReadOnlyEvent(Bytes body) {
  constexpr std::string_view kInProtostuff = "\n\x01R";
  while (!body.empty() && (body.back() == '\n' || body.back() == '\r' || body.back() == '"')) {
    body.remove_suffix(1);
  }
  return !body.empty() && (body.back() == 'R' || body.back() == static_cast<char>('R' | 0x80) ||
                           body.find(kInProtostuff) != Bytes::npos);
}

// Only where it is certain; all others count as null, because nearly all events are heartbeats.
bool IsOtherEvent(Serialization serialization, Bytes body) {
  if (body.empty()) return false;
  if (serialization == Serialization::kHessian2) return body != "N";
  if (serialization == Serialization::kFastjson) return body.substr(0, 4) != "null";
  Bytes document;
  if (serialization == Serialization::kFastjson2) {
    return !JsonbValues(body).Next(document) || !JsonbIsNull(document);
  }
  return false;
}

[[gnu::noinline]] DecodeResult DecodeEvent(Bytes bytes, const Header& header, Message& message) {
  message.kind = header.request() ? MessageKind::kHeartbeat : MessageKind::kHeartbeatReply;
  if (header.body_bytes > kMaxEventBytes)
    return DecodeResult::Undecodable("event with a long body");
  if (bytes.size() < message.length) return DecodeResult::NeedMore(message.length);
  const Bytes body = bytes.substr(kHeaderBytes, header.body_bytes);
  if (header.request() && IsReadOnlyEvent(body)) {
    message.kind = MessageKind::kGoAway;
  } else if (IsOtherEvent(header.serialization(), body)) {
    message.kind = MessageKind::kOther;
  }
  return DecodeResult::Ok();
}

// Rounded up, since 0 is no timeout.
std::string Milliseconds(uint64_t us) { return std::to_string(MillisecondsFrom(us)); }

Serialization SerializationOf(uint64_t tag) {
  const auto serialization = static_cast<Serialization>(tag & kSerializationMask);
  // A tag of nothing: no request was understood so far.
  return static_cast<uint8_t>(serialization) == 0 ? Serialization::kHessian2 : serialization;
}

// What is changed besides the id; the header stands in `out` at `begin`. Not inlined, so that
// messages that are passed on as they are, which nearly all are, save no registers for it.
[[gnu::noinline]] Encoded EncodeBody(const Message& message, Bytes bytes,
                                     const EncodeOptions& options, size_t begin, std::string& out) {
  const std::span<const MutationOp> mutation = options.mutation;
  const bool replaces_timeout = options.timeout_us != 0 && message.timeout_us != 0;
  const Header header = ReadHeader(bytes);
  const size_t length = kHeaderBytes + header.body_bytes;
  if (header.event() || bytes.size() < length) return {.head = kHeaderBytes};
  const Bytes body = bytes.substr(kHeaderBytes, header.body_bytes);
  Rewriting rewriting = Rewriting::kNone;
  if (header.request()) {
    rewriting = RewriteRequestBody(
        header.serialization(), body, mutation,
        replaces_timeout ? Milliseconds(options.timeout_us) : std::string(), out);
  } else if (header.status == static_cast<uint8_t>(Status::kOk) &&
             RewriteResponseBody(header.serialization(), body, mutation,
                                 (message.tag & kTagReadsResponseAttachments) != 0, out)) {
    rewriting = Rewriting::kChanged;
  }
  const size_t new_body = out.size() - begin - kHeaderBytes;
  if (rewriting == Rewriting::kChanged && new_body > kMaxBodyBytes) {
    // No length field can say this.
    out.resize(begin + kHeaderBytes);
    const bool required = header.request() && AnyRequired(mutation);
    rewriting = required ? Rewriting::kImpossible : Rewriting::kNone;
  }
  if (rewriting == Rewriting::kImpossible) {
    out.resize(begin);
    return {.impossible = true};
  }
  if (rewriting == Rewriting::kNone) return {.head = kHeaderBytes};
  StoreBe32(&out[begin + kLengthOffset], static_cast<uint32_t>(new_body));
  return {.head = length};
}

constexpr std::string_view kKeysOfUnread[] = {"serialization"};

}  // namespace

const CodecTraits& DubboCodec::traits() const {
  static const CodecTraits kTraits = {
      .name = "dubbo",
      .id_bits = 64,
      .multiplexed = true,
      .ordered_replies = false,
      .stateful = false,
      .server_requests = true,
      .mutation_in_head = false,
      .metadata_keys = RequestKeys(),
      .keys_of_unread = kKeysOfUnread,
  };
  return kTraits;
}

Interest DubboCodec::InterestIn(const MetadataKeys& keys) const {
  const uint64_t mask = RequestMask(keys);
  return {.mask = mask, .head_suffices = !NeedsWholeRequest(mask), .keys = &keys};
}

DecodeResult DubboCodec::Decode(DecodeState*, Direction direction, Bytes bytes,
                                const DecodeOptions& options, Message& message) const {
  if (bytes.size() < kHeaderBytes) {
    static constexpr std::string_view kMagicBytes = "\xda\xbb";
    if (bytes.substr(0, 2) != kMagicBytes.substr(0, bytes.size())) {
      return DecodeResult::Error("no Dubbo magic number");
    }
    return DecodeResult::NeedMore(kHeaderBytes);
  }
  if (LoadBe16(bytes.data()) != kMagic) return DecodeResult::Error("no Dubbo magic number");
  const Header header = ReadHeader(bytes);
  message.id = header.id;
  message.tag = header.flags & kSerializationMask;
  message.length = kHeaderBytes + header.body_bytes;

  const bool wanted_side = header.request() == (direction == Direction::kRequest);
  // Events are told apart below. What comes from the wrong side is of callbacks, by which servers
  // call the client.
  if (header.event()) {
    message.kind = MessageKind::kOther;
  } else if (!header.request()) {
    message.kind = MessageKind::kResponse;
  } else {
    message.kind = header.two_way() ? MessageKind::kRequest : MessageKind::kOneWay;
  }
  if (header.body_bytes > kMaxBodyBytes) return DecodeResult::Error("negative Dubbo body length");
  if (message.length > options.max_message_bytes) {
    return DecodeResult::TooLarge("Dubbo message over the size limit");
  }
  if (header.event()) return DecodeEvent(bytes, header, message);
  if (!wanted_side) {  // nobody routes these
    const bool enough = bytes.size() >= message.length || options.allow_partial;
    return enough ? DecodeResult::Ok() : DecodeResult::NeedMore(message.length);
  }
  return header.request() ? DecodeRequest(bytes, header, options, message)
                          : DecodeResponse(bytes, header, options, message);
}

Encoded DubboCodec::Encode(const Message& message, Bytes bytes, const EncodeOptions& options,
                           std::string& out) const {
  if (bytes.size() < kHeaderBytes) return {};
  const size_t begin = out.size();
  out.append(bytes.data(), kHeaderBytes);
  StoreBe64(&out[begin + kIdOffset], options.id);
  const bool replaces_timeout = options.timeout_us != 0 && message.timeout_us != 0;
  if (options.mutation.empty() && !replaces_timeout) return {.head = kHeaderBytes};
  return EncodeBody(message, bytes, options, begin, out);
}

// Dubbo's Response class. Java's servers say SERVICE_ERROR of services and methods that they do not
// have; what an implementation throws is an exception in a good reply.
bool DubboCodec::BlamesRequest(int32_t status_code) const {
  constexpr int32_t kBadRequest = 40;
  constexpr int32_t kServiceNotFound = 60;
  constexpr int32_t kServiceError = 70;
  constexpr int32_t kClientError = 90;
  return status_code == kBadRequest || status_code == kServiceNotFound ||
         status_code == kServiceError || status_code == kClientError;
}

void DubboCodec::CarryOver(const ReplyContext& request, Message& response) const {
  response.tag |= request.tag & kTagReadsResponseAttachments;
}

bool DubboCodec::Reply(const ReplyContext& request, LocalReply reply, std::string_view text,
                       std::string& out) const {
  AppendReply(out, request.id, SerializationOf(request.tag),
              (request.tag & kTagLengthPrefixed) != 0, reply, text);
  return true;
}

bool DubboCodec::HeartbeatReply(const Message&, Bytes bytes, std::string& out) const {
  if (bytes.size() < kHeaderBytes) return false;
  const Header header = ReadHeader(bytes);
  if (!header.request() || !header.two_way() || bytes.size() - kHeaderBytes < header.body_bytes) {
    return false;
  }
  AppendHeartbeatReply(out, header, bytes.substr(kHeaderBytes, header.body_bytes));
  return true;
}

bool DubboCodec::Ping(uint64_t id, std::string& out) const {
  AppendHeartbeat(out, id);
  return true;
}

bool DubboCodec::GoAway(const ReplyContext&, std::string& out) const {
  AppendReadOnlyEvent(out);
  return true;
}

CodecOrError CreateDubboCodec(std::string_view options) {
  if (!AreNoOptions(options)) return {nullptr, TakesNoOptions("dubbo", options)};
  return {std::make_shared<const DubboCodec>(), ""};
}

}  // namespace metaprotocol::dubbo
