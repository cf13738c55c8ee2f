#include "codecs/brpc/brpc_codec.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "codecs/brpc/meta.h"
#include "src/codec/utf8.h"

namespace metaprotocol::brpc {
namespace {

constexpr std::string_view kMagic = "PRPC";
constexpr size_t kBodyLengthOffset = 4;
constexpr size_t kMetaLengthOffset = 8;
// Java's is a signed number, and C++'s limit is far below.
constexpr uint32_t kMaxBodyBytes = 0x7fffffff;
// Of what is kept of a client's connection, and repeated in each of its requests.
constexpr size_t kMaxAuthenticationBytes = 4096;

// src/brpc/errno.proto of apache/brpc, and Linux' EHOSTDOWN, which it uses for the same.
constexpr int32_t kHostDown = 112;
constexpr int32_t kNoService = 1001;
constexpr int32_t kBadRequest = 1003;
constexpr int32_t kAuthentication = 1004;
constexpr int32_t kTimedOut = 1008;
constexpr int32_t kFailedSocket = 1009;
constexpr int32_t kInternal = 2001;
constexpr int32_t kBadResponse = 2002;
constexpr int32_t kLogOff = 2003;
constexpr int32_t kLimit = 2004;
// The framework's own numbers; applications are told to use others.
constexpr int32_t kFirstOwn = 1000;
constexpr int32_t kLastOwn = 2999;

int32_t ErrorCode(LocalReply reply) {
  switch (reply) {
    case LocalReply::kNoContent:
      return 0;
    case LocalReply::kNoRoute:
      return kNoService;
    case LocalReply::kClusterNotFound:
    case LocalReply::kFault:
      return kInternal;
    case LocalReply::kNoHealthyUpstream:
      return kHostDown;
    case LocalReply::kTimeout:
      return kTimedOut;
    case LocalReply::kOverLimit:
      return kLimit;
    case LocalReply::kDenied:
      return kAuthentication;
    case LocalReply::kUpstreamLost:
      return kFailedSocket;
    case LocalReply::kTooLarge:
    case LocalReply::kMalformed:
      return kBadRequest;
    case LocalReply::kShuttingDown:
      return kLogOff;
    case LocalReply::kBadResponse:
      return kBadResponse;
  }
  return kInternal;
}

ReplyStatus StatusOf(int32_t error_code) {
  if (error_code == 0) return ReplyStatus::kOk;
  const bool own = error_code >= kFirstOwn && error_code <= kLastOwn;
  return own ? ReplyStatus::kError : ReplyStatus::kException;
}

struct BrpcState : DecodeState {
  std::string authentication;  // as the connection's client has last given it
};

// Message::tag, which Encode reads: where the correlation id is in the meta, and whether a mutation
// goes into ext_fields.
struct Tag {
  size_t id_begin = 0;
  size_t id_bytes = 0;  // 0: nowhere
  bool ext_fields = false;

  uint64_t Pack() const {
    return uint64_t{id_begin} << 8 | uint64_t{id_bytes} << 1 | (ext_fields ? 1 : 0);
  }
  static Tag Unpack(uint64_t tag) {
    return {static_cast<size_t>(tag >> 8), static_cast<size_t>(tag >> 1 & 0x7f), (tag & 1) != 0};
  }
};

// What is wrong with a message whose frame is as it should be; "" if nothing is.
std::string_view Fault(const Meta& meta, Direction direction, size_t behind_meta) {
  if (direction == Direction::kRequest ? !meta.has_request : !meta.has_response) {
    return "an RpcMeta that is neither request nor response";
  }
  if (meta.has_request && !(meta.has_service && meta.has_method)) {
    return "an RpcMeta without service or method";
  }
  // Streams go by a protocol of their own, over connections that both sides know of.
  if (meta.has_stream) return "streaming RPC is not supported";
  if (meta.attachment_size < 0 || static_cast<size_t>(meta.attachment_size) > behind_meta) {
    return "an attachment that is larger than its message";
  }
  return {};
}

MessageKind KindOf(const Meta& meta, Direction direction) {
  if (direction == Direction::kRequest) {
    return meta.has_response && !meta.has_request ? MessageKind::kOther : MessageKind::kRequest;
  }
  return meta.has_request && !meta.has_response ? MessageKind::kOther : MessageKind::kResponse;
}

// Lets every request of a client say with what it authenticates itself, as its first one did:
// which of them is the first on a connection to a server, nobody knows here. What is added waits in
// `reply_name`, of which this protocol has no other use.
std::string_view Authenticate(const BrpcOptions& options, BrpcState* state,
                              std::string_view authentication, Message& message) {
  if (!options.authentication) {
    return authentication.empty()
               ? std::string_view()
               : "authentication data, for which connections must be per session";
  }
  if (authentication.size() > kMaxAuthenticationBytes) return "authentication data too long";
  if (state == nullptr) return {};
  if (!authentication.empty()) {
    state->authentication = authentication;
  } else if (!state->authentication.empty()) {
    message.reply_name = message.metadata.Own(state->authentication);
  }
  return {};
}

int32_t Milliseconds(uint64_t us) {
  constexpr uint64_t kMost = std::numeric_limits<int32_t>::max();
  return static_cast<int32_t>(std::min(kMost, MillisecondsFrom(us)));
}

}  // namespace

const CodecTraits& BrpcCodec::traits() const {
  static constexpr CodecTraits kShared = {.name = "brpc",
                                          .id_bits = 64,
                                          .multiplexed = true,
                                          .mutation_in_head = true,
                                          .metadata_keys = kMetadataKeys};
  static constexpr CodecTraits kPerClient = {.name = "brpc",
                                             .id_bits = 64,
                                             .multiplexed = true,
                                             .stateful = true,
                                             .mutation_in_head = true,
                                             .metadata_keys = kMetadataKeys};
  return options_.authentication ? kPerClient : kShared;
}

Interest BrpcCodec::InterestIn(const MetadataKeys& keys) const { return {.keys = &keys}; }

std::unique_ptr<DecodeState> BrpcCodec::NewDecodeState(Direction direction) const {
  if (!options_.authentication || direction != Direction::kRequest) return nullptr;
  return std::make_unique<BrpcState>();
}

DecodeResult BrpcCodec::Decode(DecodeState* state, Direction direction, Bytes bytes,
                               const DecodeOptions& options, Message& message) const {
  message.kind = direction == Direction::kRequest ? MessageKind::kRequest : MessageKind::kResponse;
  if (bytes.substr(0, kMagic.size()) != kMagic.substr(0, bytes.size())) {
    return DecodeResult::Error("no baidu_std message");
  }
  if (bytes.size() < kHeaderBytes) return DecodeResult::NeedMore(kHeaderBytes);
  const uint32_t body_bytes = LoadBe32(bytes.data() + kBodyLengthOffset);
  const uint32_t meta_bytes = LoadBe32(bytes.data() + kMetaLengthOffset);
  if (body_bytes > kMaxBodyBytes) return DecodeResult::Error("negative body length");
  if (meta_bytes > body_bytes) return DecodeResult::Error("a meta larger than its message");
  message.length = kHeaderBytes + body_bytes;
  const size_t meta_end = kHeaderBytes + meta_bytes;
  if (meta_end > options.max_message_bytes) return DecodeResult::TooLarge("meta too large");
  // Also of a message that is too large: its reply is to be the right call's.
  if (bytes.size() < meta_end) return DecodeResult::NeedMore(meta_end);

  Meta meta;
  const bool whole = ReadMeta(bytes.substr(kHeaderBytes, meta_bytes), meta, message.metadata);
  message.id = meta.correlation_id;
  message.tag = Tag{meta.id_begin, meta.id_end - meta.id_begin, meta.has_ext_fields}.Pack();
  message.kind = KindOf(meta, direction);
  if (message.length > options.max_message_bytes) {
    return DecodeResult::TooLarge("message over the size limit");
  }
  if (!whole) return DecodeResult::Undecodable("an RpcMeta that cannot be read");
  if (bytes.size() < message.length && !options.allow_partial) {
    return DecodeResult::NeedMore(message.length);
  }
  if (message.kind == MessageKind::kOther) return DecodeResult::Ok();
  std::string_view fault = Fault(meta, direction, body_bytes - meta_bytes);
  if (message.kind == MessageKind::kResponse) {
    message.status = StatusOf(meta.error_code);
    message.status_code = meta.error_code;
  } else if (fault.empty()) {
    if (meta.timeout_ms > 0)
      message.timeout_us = uint64_t{1000} * static_cast<uint64_t>(meta.timeout_ms);
    fault = Authenticate(options_, static_cast<BrpcState*>(state), meta.authentication, message);
  }
  return fault.empty() ? DecodeResult::Ok() : DecodeResult::Undecodable(fault);
}

Encoded BrpcCodec::Encode(const Message& message, Bytes bytes, const EncodeOptions& options,
                          std::string& out) const {
  const size_t meta_end = kHeaderBytes + LoadBe32(bytes.data() + kMetaLengthOffset);
  const Bytes meta = bytes.substr(kHeaderBytes, meta_end - kHeaderBytes);
  const Tag tag = Tag::Unpack(message.tag);
  const bool replaces_timeout = options.timeout_us != 0 && message.timeout_us != 0;
  const bool adds = message.kind == MessageKind::kRequest && !message.reply_name.empty();
  const bool changes = replaces_timeout || adds || !options.mutation.empty();
  if (!changes && options.id == message.id) {
    out += bytes.substr(0, meta_end);
    return {.head = meta_end};
  }
  const size_t start = out.size();
  const size_t body = message.length - meta_end;
  const auto new_meta = [&] { return out.size() - start - kHeaderBytes; };
  out += bytes.substr(0, kHeaderBytes);
  if (changes) {
    AppendChangedMeta(meta,
                      {.correlation_id = options.id,
                       .timeout_ms = replaces_timeout ? Milliseconds(options.timeout_us) : 0,
                       .authentication = adds ? message.reply_name : std::string_view(),
                       .mutation = options.mutation,
                       .in_ext_fields = tag.ext_fields},
                      out);
  }
  // Changes that no length field can say are left out if they may be; another id alone always fits.
  const bool fits = changes && new_meta() <= kMaxBodyBytes - body;
  const bool of_request = message.kind != MessageKind::kResponse;
  if (changes && !fits && of_request && AnyRequired(options.mutation)) {
    out.resize(start);
    return {.impossible = true};
  }
  if (!fits) {
    out.resize(start + kHeaderBytes);
    const size_t begin = tag.id_bytes == 0 ? meta.size() : tag.id_begin;
    AppendMetaWithId(meta, begin, begin + tag.id_bytes, options.id, out);
  }
  StoreBe32(&out[start + kBodyLengthOffset], static_cast<uint32_t>(new_meta() + body));
  StoreBe32(&out[start + kMetaLengthOffset], static_cast<uint32_t>(new_meta()));
  return {.head = meta_end};
}

// ENOSERVICE, ENOMETHOD, EREQUEST and ERPCAUTH.
bool BrpcCodec::BlamesRequest(int32_t status_code) const {
  return status_code >= kNoService && status_code <= kAuthentication;
}

bool BrpcCodec::Reply(const ReplyContext& request, LocalReply reply, std::string_view text,
                      std::string& out) const {
  std::string meta;
  const bool success = reply == LocalReply::kNoContent;
  const std::string_view said = text.empty() || !IsUtf8(text) ? LocalReplyName(reply) : text;
  AppendResponseMeta(request.id, ErrorCode(reply), success ? std::string_view() : said, meta);
  out += kMagic;
  AppendBe32(out, static_cast<uint32_t>(meta.size()));
  AppendBe32(out, static_cast<uint32_t>(meta.size()));
  out += meta;
  return true;
}

CodecOrError CreateBrpcCodec(std::string_view options) {
  const std::string all(options);
  const bool none = all.find_first_not_of(" \t\r\n") == std::string::npos;
  const auto json = none ? nlohmann::json::object() : nlohmann::json::parse(all, nullptr, false);
  if (!json.is_object()) {
    return {nullptr, "the brpc codec's options are a JSON object, not " + all};
  }
  BrpcOptions read;
  for (const auto& [name, value] : json.items()) {
    if (name != "authentication") {
      return {nullptr,
              "the brpc codec has no option \"" + name + "\"; there is only authentication"};
    }
    if (!value.is_boolean()) return {nullptr, "authentication is true or false"};
    read.authentication = value.get<bool>();
  }
  return {std::make_shared<const BrpcCodec>(read), ""};
}

}  // namespace metaprotocol::brpc
