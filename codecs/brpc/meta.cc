#include "codecs/brpc/meta.h"

#include <optional>

#include "src/codec/entry_mutation.h"
#include "src/codec/protobuf.h"

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

// What Java writes under the number of C++'s request_id: nothing but a key and a value, in this
// order. No id that anybody would choose looks like that.
std::optional<ProtoEntry> ReadExtField(Bytes bytes) {
  ProtoReader reader(bytes);
  ProtoField key;
  ProtoField value;
  ProtoField more;
  if (!reader.Next(key) || !key.is(1, WireType::kLength) || !reader.Next(value) ||
      !value.is(2, WireType::kLength) || reader.Next(more) || reader.broken()) {
    return std::nullopt;
  }
  return ProtoEntry{key.bytes, value.bytes};
}

bool ReadRequest(Bytes bytes, Meta& meta, Metadata& metadata) {
  ProtoReader reader(bytes);
  for (ProtoField field; reader.Next(field);) {
    if (field.is(kServiceName, WireType::kLength)) {
      meta.has_service = true;
      metadata.SetOwn(kServiceKey, field.bytes);
      metadata.SetOwn(kInterfaceKey, field.bytes);
    } else if (field.is(kMethodName, WireType::kLength)) {
      meta.has_method = true;
      metadata.SetOwn(kMethodKey, field.bytes);
    } else if (field.is(kLogId, WireType::kVarint)) {
      if (metadata.Wants(kLogIdKey)) {
        const auto id = static_cast<int64_t>(field.value);
        metadata.SetOwn(kLogIdKey, metadata.Own(std::to_string(id)));
      }
    } else if (field.is(kTimeoutMs, WireType::kVarint)) {
      meta.timeout_ms = static_cast<int32_t>(field.value);
    } else if (field.is(kRequestIdOrExtField, WireType::kLength)) {
      if (const auto entry = ReadExtField(field.bytes)) {
        meta.has_ext_fields = true;
        metadata.SetNamed(entry->key, entry->value);
      } else {
        metadata.SetOwn(kRequestIdKey, field.bytes);
      }
    }
  }
  return !reader.broken();
}

bool ReadResponse(Bytes bytes, Meta& meta) {
  ProtoReader reader(bytes);
  for (ProtoField field; reader.Next(field);) {
    if (field.is(kErrorCode, WireType::kVarint))
      meta.error_code = static_cast<int32_t>(field.value);
  }
  return !reader.broken();
}

// The key of a mutable entry of RpcRequestMeta; null for what is none.
std::optional<std::string_view> ExtFieldKey(const ProtoField& field) {
  if (!field.is(kRequestIdOrExtField, WireType::kLength)) return std::nullopt;
  const auto entry = ReadExtField(field.bytes);
  return entry ? std::optional(entry->key) : std::nullopt;
}

// Likewise of RpcMeta.
std::optional<std::string_view> UserFieldKey(const ProtoField& field) {
  if (!field.is(kUserFields, WireType::kLength)) return std::nullopt;
  const auto entry = ReadProtoEntry(field.bytes);
  return entry ? std::optional(entry->key) : std::nullopt;
}

using KeyOf = std::optional<std::string_view> (*)(const ProtoField&);

void SeeEntries(Bytes message, KeyOf key_of, EntryMutation& entries) {
  if (entries.empty()) return;
  ProtoReader reader(message);
  for (ProtoField field; reader.Next(field);) {
    if (const auto key = key_of(field)) entries.See(*key);
  }
}

bool Keeps(const EntryMutation& entries, KeyOf key_of, const ProtoField& field) {
  if (entries.empty()) return true;
  const auto key = key_of(field);
  return !key || entries.Keeps(*key);
}

void AppendNewEntries(const EntryMutation& entries, uint32_t number, std::string& out) {
  entries.ForEachNew([&](std::string_view key, std::string_view value) {
    AppendProtoEntry(out, number, key, value);
  });
}

std::string ChangedRequest(Bytes request, int32_t timeout_ms,
                           std::span<const MutationOp> mutation) {
  EntryMutation entries(mutation);
  SeeEntries(request, ExtFieldKey, entries);
  std::string out;
  ProtoReader reader(request);
  for (ProtoField field; reader.Next(field);) {
    if (timeout_ms != 0 && field.is(kTimeoutMs, WireType::kVarint)) continue;
    if (!Keeps(entries, ExtFieldKey, field)) continue;
    out += request.substr(field.begin, field.end - field.begin);
  }
  AppendNewEntries(entries, kRequestIdOrExtField, out);
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
  // Entries are written where the message's own are, for its reader looks there.
  const bool in_request = changes.in_ext_fields;
  EntryMutation entries(in_request ? std::span<const MutationOp>() : changes.mutation);
  SeeEntries(bytes, UserFieldKey, entries);
  const bool changes_request = changes.timeout_ms != 0 || in_request;
  ProtoReader reader(bytes);
  for (ProtoField field; reader.Next(field);) {
    if (field.is(kCorrelationId, WireType::kVarint)) continue;
    if (changes_request && field.is(kRequest, WireType::kLength)) {
      const auto mutation = in_request ? changes.mutation : std::span<const MutationOp>();
      AppendProtoBytes(out, kRequest, ChangedRequest(field.bytes, changes.timeout_ms, mutation));
    } else if (Keeps(entries, UserFieldKey, field)) {
      out += bytes.substr(field.begin, field.end - field.begin);
    }
  }
  AppendNewEntries(entries, kUserFields, out);
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
