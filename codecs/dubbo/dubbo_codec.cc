// See dubbo_codec.h. Decoding; what is written lives in attachments.cc and reply.cc.
#include "codecs/dubbo/dubbo_codec.h"

#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include "codecs/dubbo/attachments.h"
#include "codecs/dubbo/frame.h"
#include "codecs/dubbo/hessian2.h"
#include "codecs/dubbo/json_lines.h"
#include "codecs/dubbo/reply.h"
#include "codecs/dubbo/request_head.h"

namespace metaprotocol::dubbo {
namespace {

constexpr std::string_view kInterfaceKey = "interface";
constexpr std::string_view kMethodKey = "method";
constexpr std::string_view kVersionKey = "version";
constexpr std::string_view kGroupKey = "group";
constexpr std::string_view kServiceKey = "service";
constexpr std::string_view kDubboVersionKey = "dubbo_version";
constexpr std::string_view kParameterTypesKey = "parameter_types";
constexpr std::string_view kSerializationKey = "serialization";

// Bits of Interest::mask.
constexpr uint64_t kWantInterface = 1 << 0;
constexpr uint64_t kWantMethod = 1 << 1;
constexpr uint64_t kWantVersion = 1 << 2;
constexpr uint64_t kWantDubboVersion = 1 << 3;
constexpr uint64_t kWantParameterTypes = 1 << 4;
constexpr uint64_t kWantSerialization = 1 << 5;
constexpr uint64_t kWantGroup = 1 << 6;
constexpr uint64_t kWantService = 1 << 7;
constexpr uint64_t kWantAttachments = 1 << 8;
// These lie behind the arguments.
constexpr uint64_t kWantTail = kWantGroup | kWantService | kWantAttachments;

struct KeyBit {
  std::string_view key;
  uint64_t bit;
};
constexpr std::array<KeyBit, 8> kKeyBits = {{
    {kInterfaceKey, kWantInterface},
    {kMethodKey, kWantMethod},
    {kVersionKey, kWantVersion},
    {kGroupKey, kWantGroup},
    {kServiceKey, kWantService},
    {kDubboVersionKey, kWantDubboVersion},
    {kParameterTypesKey, kWantParameterTypes},
    {kSerializationKey, kWantSerialization},
}};

constexpr std::array<std::string_view, kKeyBits.size()> kKeys = [] {
  std::array<std::string_view, kKeyBits.size()> keys{};
  for (size_t i = 0; i < keys.size(); ++i) keys[i] = kKeyBits[i].key;
  return keys;
}();

// A head that is longer than this is not waited for byte by byte: then the whole message is.
constexpr size_t kMaxPartialHead = size_t{16} << 10;

// Events are a null or a one-letter string; some serializations write class names around that.
constexpr size_t kMaxEventBytes = 1024;

// How many of the head's strings have to be read for this mask.
size_t FieldsFor(uint64_t mask) {
  if (mask & (kWantParameterTypes | kWantTail)) return kHeadFields;
  if (mask & kWantMethod) return kMethod + 1;
  if (mask & kWantVersion) return kServiceVersion + 1;
  if (mask & kWantInterface) return kPath + 1;
  if (mask & kWantDubboVersion) return kDubboVersion + 1;
  return 0;
}

// The first two digits of each part of "2.0.2"; Version.isSupportResponseAttachment in
// org.apache.dubbo.common says that 2.0.2 to 2.0.99 are protocol versions and what they can do.
bool ReadsResponseAttachments(std::string_view version) {
  constexpr std::string_view kPrefix = "2.0.";
  if (version.size() <= kPrefix.size() || version.substr(0, kPrefix.size()) != kPrefix)
    return false;
  version.remove_prefix(kPrefix.size());
  size_t patch = 0;
  size_t digits = 0;
  while (digits < version.size() && version[digits] >= '0' && version[digits] <= '9') {
    if (digits == 2) return false;
    patch = patch * 10 + static_cast<size_t>(version[digits++] - '0');
  }
  return digits != 0 && patch >= 2 && version.find('.') == std::string_view::npos;
}

// "group/interface:version" without what is absent (org.apache.dubbo.common.BaseServiceMetadata).
std::string ServiceKey(std::string_view group, std::string_view path, std::string_view version) {
  std::string key;
  key.reserve(group.size() + path.size() + version.size() + 2);
  if (!group.empty()) key.append(group).push_back('/');
  key.append(path);
  if (!version.empty() && version != "0.0.0") key.append(":").append(version);
  return key;
}

// The attachments of one request while they are read. Java keeps the last of several entries with
// one key and Metadata finds the first, so they are handed over in reverse.
class AttachmentList {
 public:
  void Add(std::string_view key, std::string_view value) {
    if (size_ < kInline) {
      inline_[size_++] = {key.data(), key.size(), value.data(), value.size()};
    } else if (size_ < Metadata::kMaxEntries) {
      more_.push_back({key.data(), key.size(), value.data(), value.size()});
      ++size_;
    }
  }
  void MoveTo(Metadata& metadata) const {
    for (size_t i = size_; i-- > 0;) {
      const Entry& e = i < kInline ? inline_[i] : more_[i - kInline];
      metadata.Add({e.key, e.key_size}, {e.value, e.value_size});
    }
  }

 private:
  // Two views, but trivial, so that a list on the stack costs nothing before it is used.
  struct Entry {
    const char* key;
    size_t key_size;
    const char* value;
    size_t value_size;
  };
  static constexpr size_t kInline = 32;
  std::array<Entry, kInline> inline_;
  std::vector<Entry> more_;
  size_t size_ = 0;
};

// The decoded head as text, whatever serialization it came in. Null strings have no data().
struct HeadText {
  std::array<std::string_view, kHeadFields> fields;
  bool has(HeadField field) const { return fields[field].data() != nullptr; }
};

void AddHead(uint64_t mask, Serialization serialization, const HeadText& head,
             std::string_view group, Metadata& metadata) {
  if (mask & kWantInterface) metadata.Add(kInterfaceKey, head.fields[kPath]);
  if (mask & kWantMethod) metadata.Add(kMethodKey, head.fields[kMethod]);
  // Null strings count as empty: left out, they would let an attachment of that name stand in.
  if (mask & kWantVersion) metadata.Add(kVersionKey, head.fields[kServiceVersion]);
  if ((mask & kWantGroup) && group.data() != nullptr) metadata.Add(kGroupKey, group);
  if (mask & kWantService) {
    metadata.Add(kServiceKey,
                 metadata.Own(ServiceKey(group, head.fields[kPath], head.fields[kServiceVersion])));
  }
  if (mask & kWantDubboVersion) metadata.Add(kDubboVersionKey, head.fields[kDubboVersion]);
  if (mask & kWantParameterTypes) metadata.Add(kParameterTypesKey, head.fields[kParameterTypes]);
  if (mask & kWantSerialization) {
    metadata.Add(kSerializationKey, SerializationName(serialization));
  }
}

DecodeResult MoreHead(size_t have, size_t need, size_t length) {
  if (have >= kHeaderBytes + kMaxPartialHead) return DecodeResult::NeedMore(length);
  return DecodeResult::NeedMore(std::min(length, std::max(have + 1, kHeaderBytes + need)));
}

constexpr std::string_view kNoName = "request without interface or method";

// `bytes` may be cut short only if nothing behind the head is wanted.
DecodeResult DecodeHessianRequest(Bytes bytes, uint64_t mask, Message& message) {
  const bool complete = bytes.size() >= message.length;
  Hessian2Reader reader(
      bytes.substr(kHeaderBytes, complete ? message.length - kHeaderBytes : Bytes::npos));
  const auto failed = [&](std::string_view error) {
    if (error.empty() && reader.truncated() && !complete) {
      return MoreHead(bytes.size(), reader.need(), message.length);
    }
    return DecodeResult::Undecodable(error.empty() ? reader.error() : error);
  };

  const size_t count = FieldsFor(mask);
  HessianRequestHead head;
  std::string_view error;
  if (!ReadHessianHead(reader, count, head, error)) return failed(error);

  HeadText text;
  for (size_t i = 0; i < count; ++i) {
    if (!head.fields[i].null) text.fields[i] = head.fields[i].Text(message.metadata);
  }
  if ((count > kPath && !text.has(kPath)) || (count > kMethod && !text.has(kMethod))) {
    return DecodeResult::Undecodable(kNoName);
  }
  if (ReadsResponseAttachments(text.fields[kDubboVersion])) {
    message.tag |= kTagReadsResponseAttachments;
  }

  std::string_view group;
  AttachmentList attachments;
  if (mask & kWantTail) {
    for (size_t i = 0; i < head.arguments; ++i) {
      if (!reader.SkipValue()) return failed({});
    }
    // Old clients send none; a reference to an argument would be legal, but no client writes that.
    if (!reader.AtEnd() && (reader.tag() == 'H' || reader.tag() == 'M')) {
      if (!reader.ReadMapBegin()) return failed({});
      HessianEntry entry;
      while (!reader.TakeMapEnd()) {
        if (!ReadHessianEntry(reader, entry)) return failed({});
        if (!entry.string_key || !entry.string_value) continue;
        const bool is_group = entry.key.Is(kGroupKey);
        if (!is_group && (mask & kWantAttachments) == 0) continue;
        const std::string_view value = entry.value.Text(message.metadata);
        if (is_group) group = value;
        if (mask & kWantAttachments) {
          attachments.Add(entry.key.Text(message.metadata), value);
        }
      }
    } else if (!reader.AtEnd() && !reader.SkipValue()) {
      return failed({});
    }
  }
  AddHead(mask, Serialization::kHessian2, text, group, message.metadata);
  if (mask & kWantAttachments) attachments.MoveTo(message.metadata);
  return DecodeResult::Ok();
}

DecodeResult DecodeJsonRequest(Bytes bytes, uint64_t mask, Message& message) {
  const bool complete = bytes.size() >= message.length;
  LineReader lines(
      bytes.substr(kHeaderBytes, complete ? message.length - kHeaderBytes : Bytes::npos), complete);
  constexpr std::string_view kTooFewLines = "fastjson body has too few lines";
  constexpr std::string_view kNotAString = "fastjson body has no string where one belongs";
  const size_t count = FieldsFor(mask);
  JsonRequestHead head;
  std::string_view error;
  if (!ReadJsonHead(lines, count, head, error)) {
    if (!error.empty()) return DecodeResult::Undecodable(error);
    if (complete) return DecodeResult::Undecodable(kTooFewLines);
    return MoreHead(bytes.size(), 0, message.length);
  }
  HeadText text;
  for (size_t i = 0; i < count; ++i) {
    if (head.fields[i] == "null") continue;
    if (!JsonText(head.fields[i], message.metadata, text.fields[i])) {
      return DecodeResult::Undecodable(kNotAString);
    }
  }
  if ((count > kPath && !text.has(kPath)) || (count > kMethod && !text.has(kMethod))) {
    return DecodeResult::Undecodable(kNoName);
  }
  if (ReadsResponseAttachments(text.fields[kDubboVersion])) {
    message.tag |= kTagReadsResponseAttachments;
  }

  std::string_view group;
  AttachmentList attachments;
  if (mask & kWantTail) {
    Bytes line;
    for (size_t i = 0; i < head.arguments; ++i) {
      if (!lines.Next(line)) return DecodeResult::Undecodable(kTooFewLines);
    }
    if (lines.Next(line) && line != "null") {
      constexpr std::string_view kBadAttachments = "fastjson attachments are malformed";
      JsonObjectReader object(line);
      if (!object.Begin()) return DecodeResult::Undecodable(kBadAttachments);
      JsonMember member;
      while (object.Next(member)) {
        if (!member.string_value()) continue;
        std::string_view key;
        std::string_view value;
        if (!JsonText(member.key, message.metadata, key) ||
            !JsonText(member.value, message.metadata, value)) {
          return DecodeResult::Undecodable(kBadAttachments);
        }
        if (key == kGroupKey) group = value;
        if (mask & kWantAttachments) attachments.Add(key, value);
      }
      if (object.malformed()) return DecodeResult::Undecodable(kBadAttachments);
    }
  }
  AddHead(mask, Serialization::kFastjson, text, group, message.metadata);
  if (mask & kWantAttachments) attachments.MoveTo(message.metadata);
  return DecodeResult::Ok();
}

DecodeResult DecodeRequest(Bytes bytes, const Header& header, const DecodeOptions& options,
                           Message& message) {
  const uint64_t mask = options.interest.mask;
  if (bytes.size() < message.length && (!options.allow_partial || (mask & kWantTail) != 0)) {
    return DecodeResult::NeedMore(message.length);
  }
  if (FieldsFor(mask) != 0) {
    if (header.serialization() == Serialization::kHessian2) {
      return DecodeHessianRequest(bytes, mask, message);
    }
    if (header.serialization() == Serialization::kFastjson) {
      return DecodeJsonRequest(bytes, mask, message);
    }
  }
  if (mask & kWantSerialization) {
    message.metadata.Add(kSerializationKey, SerializationName(header.serialization()));
  }
  return DecodeResult::Ok();
}

ReplyStatus StatusOfType(int32_t type) {
  if (type < 0 || type >= kResponseTypes) return ReplyStatus::kError;
  return type % kWithAttachments == static_cast<int32_t>(ResponseType::kException)
             ? ReplyStatus::kException
             : ReplyStatus::kOk;
}

DecodeResult DecodeResponse(Bytes bytes, const Header& header, const DecodeOptions& options,
                            Message& message) {
  if (bytes.size() < message.length && !options.allow_partial) {
    return DecodeResult::NeedMore(message.length);
  }
  message.status = ReplyStatus::kOk;
  message.status_code = header.status;
  if (header.status != static_cast<uint8_t>(Status::kOk)) {
    message.status = ReplyStatus::kError;
    return DecodeResult::Ok();
  }
  if (header.body_bytes == 0) return DecodeResult::Ok();
  if (header.serialization() == Serialization::kHessian2) {
    Hessian2Reader reader(bytes.substr(kHeaderBytes, header.body_bytes));
    int32_t type = 0;
    if (!reader.ReadInt(type)) {
      if (reader.truncated() && bytes.size() < message.length) {
        return DecodeResult::NeedMore(std::min(message.length, kHeaderBytes + reader.need()));
      }
      type = -1;
    }
    message.status = StatusOfType(type);
  } else if (header.serialization() == Serialization::kFastjson) {
    if (bytes.size() == kHeaderBytes) return DecodeResult::NeedMore(kHeaderBytes + 1);
    message.status = StatusOfType(bytes[kHeaderBytes] - '0');
  }
  return DecodeResult::Ok();
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
  return false;
}

DecodeResult DecodeEvent(Bytes bytes, const Header& header, Message& message) {
  if (header.body_bytes > kMaxEventBytes) return DecodeResult::Error("event with a long body");
  message.kind = header.request() ? MessageKind::kHeartbeat : MessageKind::kHeartbeatReply;
  if (bytes.size() < message.length) return DecodeResult::NeedMore(message.length);
  const Bytes body = bytes.substr(kHeaderBytes, header.body_bytes);
  if (header.request() && IsReadOnlyEvent(body)) {
    message.kind = MessageKind::kGoAway;
  } else if (IsOtherEvent(header.serialization(), body)) {
    message.kind = MessageKind::kOther;
  }
  return DecodeResult::Ok();
}

Serialization SerializationOf(uint64_t tag) {
  const auto serialization = static_cast<Serialization>(tag & kSerializationMask);
  // A tag of nothing: no request was understood so far.
  return static_cast<uint8_t>(serialization) == 0 ? Serialization::kHessian2 : serialization;
}

}  // namespace

const CodecTraits& DubboCodec::traits() const {
  static constexpr CodecTraits kTraits = {
      .name = "dubbo",
      .id_bits = 64,
      .multiplexed = true,
      .ordered_replies = false,
      .stateful = false,
      .mutation_in_head = false,
      .metadata_keys = kKeys,
  };
  return kTraits;
}

Interest DubboCodec::InterestIn(std::span<const std::string_view> keys) const {
  Interest interest;
  interest.mask = 0;
  for (const std::string_view key : keys) {
    const auto* known = std::find_if(kKeyBits.begin(), kKeyBits.end(),
                                     [&](const KeyBit& k) { return k.key == key; });
    interest.mask |= known == kKeyBits.end() ? kWantAttachments : known->bit;
  }
  interest.head_suffices = (interest.mask & kWantTail) == 0;
  return interest;
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
  // Events are told apart below; messages on the wrong side are callbacks, by which the server
  // calls the client.
  if (header.event() || !wanted_side) {
    message.kind = MessageKind::kOther;
  } else if (direction == Direction::kResponse) {
    message.kind = MessageKind::kResponse;
  } else {
    message.kind = header.two_way() ? MessageKind::kRequest : MessageKind::kOneWay;
  }
  if (header.body_bytes > kMaxBodyBytes) return DecodeResult::Error("negative Dubbo body length");
  if (message.length > options.max_message_bytes) {
    return DecodeResult::TooLarge("Dubbo message over the size limit");
  }
  if (header.event()) return DecodeEvent(bytes, header, message);
  switch (message.kind) {
    case MessageKind::kResponse:
      return DecodeResponse(bytes, header, options, message);
    case MessageKind::kRequest:
    case MessageKind::kOneWay:
      return DecodeRequest(bytes, header, options, message);
    default:
      if (bytes.size() < message.length && !options.allow_partial) {
        return DecodeResult::NeedMore(message.length);
      }
      return DecodeResult::Ok();
  }
}

Encoded DubboCodec::Encode(const Message& message, Bytes bytes, const EncodeOptions& options,
                           std::string& out) const {
  if (bytes.size() < kHeaderBytes) return {};
  const std::span<const MutationOp> mutation = options.mutation;
  const size_t begin = out.size();
  const Header header = ReadHeader(bytes);
  const size_t length = kHeaderBytes + header.body_bytes;
  out.append(bytes.substr(0, kHeaderBytes));
  StoreBe64(&out[begin + kIdOffset], options.id);

  if (mutation.empty() || header.event() || bytes.size() < length) return {.head = kHeaderBytes};
  const Bytes body = bytes.substr(kHeaderBytes, header.body_bytes);
  const bool rewritten =
      header.request()
          ? RewriteRequestBody(header.serialization(), body, mutation, out)
          : header.status == static_cast<uint8_t>(Status::kOk) &&
                RewriteResponseBody(header.serialization(), body, mutation,
                                    (message.tag & kTagReadsResponseAttachments) != 0, out);
  if (!rewritten) return {.head = kHeaderBytes};
  const size_t new_body = out.size() - begin - kHeaderBytes;
  if (new_body > kMaxBodyBytes) {  // no length field can say this: left out
    out.resize(begin + kHeaderBytes);
    return {.head = kHeaderBytes};
  }
  StoreBe32(&out[begin + kLengthOffset], static_cast<uint32_t>(new_body));
  return {.head = length};
}

void DubboCodec::CarryOver(const ReplyContext& request, Message& response) const {
  response.tag |= request.tag & kTagReadsResponseAttachments;
}

bool DubboCodec::Reply(const ReplyContext& request, LocalReply reply, std::string_view text,
                       std::string& out) const {
  AppendReply(out, request.id, SerializationOf(request.tag), reply, text);
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
  std::string bare;
  for (const char c : options) {
    if (c != ' ' && c != '\t' && c != '\n' && c != '\r') bare.push_back(c);
  }
  if (!bare.empty() && bare != "{}") {
    return {nullptr, "the dubbo codec has no options, so only \"\" and \"{}\" are allowed, not " +
                         std::string(options)};
  }
  return {std::make_shared<const DubboCodec>(), ""};
}

}  // namespace metaprotocol::dubbo
