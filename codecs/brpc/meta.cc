#include "codecs/brpc/meta.h"

#include <algorithm>
#include <optional>

#include "src/codec/protobuf.h"
#include "src/codec/protobuf_mutation.h"

namespace metaprotocol::brpc {
namespace {

// RpcMeta.
constexpr uint32_t kRequest = 1;
constexpr uint32_t kResponse = 2;
constexpr uint32_t kCorrelationId = 4;
constexpr uint32_t kAttachmentSize = 5;
constexpr uint32_t kAuthenticationData = 7;
constexpr uint32_t kStreamSettings = 8;
constexpr uint32_t kUserFields = 9;

// RpcRequestMeta.
constexpr uint32_t kServiceName = 1;
constexpr uint32_t kMethodName = 2;
constexpr uint32_t kLogId = 3;
constexpr uint32_t kRequestIdOrExtField = 7;  // a text in C++, repeated entries in Java
constexpr uint32_t kTimeoutMs = 8;

// RpcResponseMeta.
constexpr uint32_t kErrorCode = 1;
constexpr uint32_t kErrorText = 2;

// What Java writes under the number of C++'s request_id: a message with a key, however it is
// written, since the server reads it in any way. A text begins such a message only with control
// characters, and no id that anybody would choose does.
//
// False: it cannot be told. Java reads what is no message here (groups, tags of more bytes than
// they need), and no key can be in one without a control character.
bool ReadExtField(Bytes bytes, std::optional<ProtoEntry>& entry) {
  entry = ReadProtoEntry(bytes);
  if (entry) {
    if (entry->key.empty()) entry.reset();
    return true;
  }
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20; };
  return std::none_of(bytes.begin(), bytes.end(), is_control);
}

// Servers put a dot between the two and look that up, so that the service may end in the method's
// name as well. What is left of the last dot is the service.
void SetCalled(Bytes service, Bytes method, Metadata& metadata) {
  const size_t dot = method.rfind('.');
  if (dot != Bytes::npos) {
    if (metadata.Wants(kServiceKey) || metadata.Wants(kInterfaceKey)) {
      service = metadata.Own(std::string(service) + "." + std::string(method.substr(0, dot)));
    }
    method = method.substr(dot + 1);
  }
  metadata.SetOwn(kServiceKey, service);
  metadata.SetOwn(kInterfaceKey, service);
  metadata.SetOwn(kMethodKey, method);
}

bool ReadRequest(Bytes bytes, Meta& meta, Metadata& metadata) {
  ProtoReader reader(bytes);
  bool whole = true;
  Bytes service;
  Bytes method;
  for (ProtoField field; reader.Next(field);) {
    if (field.is(kServiceName, WireType::kLength)) {
      meta.has_service = true;
      service = field.bytes;
    } else if (field.is(kMethodName, WireType::kLength)) {
      meta.has_method = true;
      method = field.bytes;
    } else if (field.is(kLogId, WireType::kVarint)) {
      if (metadata.Wants(kLogIdKey)) {
        const auto id = static_cast<int64_t>(field.value);
        metadata.SetOwn(kLogIdKey, metadata.Own(std::to_string(id)));
      }
    } else if (field.is(kTimeoutMs, WireType::kVarint)) {
      meta.timeout_ms = static_cast<int32_t>(field.value);
    } else if (field.is(kRequestIdOrExtField, WireType::kLength)) {
      std::optional<ProtoEntry> entry;
      whole &= ReadExtField(field.bytes, entry);
      if (entry) {
        meta.has_ext_fields = true;
        metadata.SetNamed(entry->key, entry->value);
      } else {
        metadata.SetOwn(kRequestIdKey, field.bytes);
      }
    }
  }
  if (meta.has_service && meta.has_method) SetCalled(service, method, metadata);
  return whole && !reader.broken();
}

bool ReadResponse(Bytes bytes, Meta& meta) {
  ProtoReader reader(bytes);
  for (ProtoField field; reader.Next(field);) {
    if (field.is(kErrorCode, WireType::kVarint))
      meta.error_code = static_cast<int32_t>(field.value);
  }
  return !reader.broken();
}

bool HasUserField(Bytes meta, std::string_view key) {
  ProtoReader reader(meta);
  for (ProtoField field; reader.Next(field);) {
    if (!field.is(kUserFields, WireType::kLength)) continue;
    if (const auto entry = ReadProtoEntry(field.bytes); entry && entry->key == key) return true;
  }
  return false;
}

std::string ChangedRequest(Bytes request, int32_t timeout_ms,
                           std::span<const MutationOp> mutation) {
  std::string out;
  const auto drops_timeout = [timeout_ms](const ProtoField& field) {
    return timeout_ms != 0 && field.is(kTimeoutMs, WireType::kVarint);
  };
  AppendMutated(request, kRequestIdOrExtField, mutation, drops_timeout, out);
  if (timeout_ms != 0) AppendProtoVarint(out, kTimeoutMs, static_cast<uint32_t>(timeout_ms));
  return out;
}

}  // namespace

bool ReadMeta(Bytes bytes, Meta& meta, Metadata& metadata) {
  ProtoReader reader(bytes);
  bool whole = true;
  for (ProtoField field; reader.Next(field);) {
    if (field.is(kRequest, WireType::kLength)) {
      whole &= !meta.has_request;
      meta.has_request = true;
      whole &= ReadRequest(field.bytes, meta, metadata);
    } else if (field.is(kResponse, WireType::kLength)) {
      whole &= !meta.has_response;
      meta.has_response = true;
      whole &= ReadResponse(field.bytes, meta);
    } else if (field.is(kCorrelationId, WireType::kVarint)) {
      meta.correlation_id = field.value;
      meta.id_begin = field.begin;
      meta.id_end = field.end;
    } else if (field.is(kAttachmentSize, WireType::kVarint)) {
      meta.attachment_size = static_cast<int32_t>(field.value);
    } else if (field.is(kAuthenticationData, WireType::kLength)) {
      meta.authentication = field.bytes;
    } else if (field.is(kStreamSettings, WireType::kLength)) {
      meta.has_stream = true;
    } else if (field.is(kUserFields, WireType::kLength)) {
      const auto entry = ReadProtoEntry(field.bytes);
      whole &= entry.has_value();
      if (entry) metadata.SetNamed(entry->key, entry->value);
    }
  }
  return whole && !reader.broken();
}

void AppendChangedMeta(Bytes bytes, const MetaChanges& changes, std::string& out) {
  // Entries are written where the message's own are, for its reader looks there. Where there are
  // both, which no client writes, what is replaced must be in neither.
  ListMutation split;
  std::span<const MutationOp> in_request;
  std::span<const MutationOp> in_meta = changes.mutation;
  if (changes.in_ext_fields && !changes.mutation.empty()) {
    split = SplitMutation(changes.mutation,
                          [bytes](std::string_view key) { return HasUserField(bytes, key); });
    in_request = split.target;
    in_meta = split.others;
  }
  const auto rewrite = [&](const ProtoField& field) {
    if (field.is(kCorrelationId, WireType::kVarint)) return true;
    if (!field.is(kRequest, WireType::kLength)) return false;
    if (changes.timeout_ms == 0 && in_request.empty()) return false;
    AppendProtoBytes(out, kRequest, ChangedRequest(field.bytes, changes.timeout_ms, in_request));
    return true;
  };
  AppendMutated(bytes, kUserFields, in_meta, rewrite, out);
  AppendProtoVarint(out, kCorrelationId, changes.correlation_id);
  if (!changes.authentication.empty()) {
    AppendProtoBytes(out, kAuthenticationData, changes.authentication);
  }
}

void AppendMetaWithId(Bytes bytes, size_t id_begin, size_t id_end, uint64_t id, std::string& out) {
  out += bytes.substr(0, id_begin);
  AppendProtoVarint(out, kCorrelationId, id);
  out += bytes.substr(id_end);
}

void AppendResponseMeta(uint64_t correlation_id, int32_t error_code, std::string_view error_text,
                        std::string& out) {
  std::string response;
  AppendProtoVarint(response, kErrorCode, static_cast<uint32_t>(error_code));
  if (!error_text.empty()) AppendProtoBytes(response, kErrorText, error_text);
  AppendProtoBytes(out, kResponse, response);
  AppendProtoVarint(out, kCorrelationId, correlation_id);
}

}  // namespace metaprotocol::brpc
