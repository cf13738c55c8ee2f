#include "src/filter/external_authorization/check_messages.h"

#include <optional>
#include <utility>

#include "src/codec/protobuf.h"
#include "src/codec/utf8.h"

namespace metaprotocol {
namespace {

// A field of a message, by the message's name in Envoy's API.
enum CheckRequestField : uint32_t { kAttributes = 1 };
enum AttributeContextField : uint32_t {
  kSource = 1,
  kDestination = 2,
  kRequest = 4,
  kContextExtensions = 10,
};
enum PeerField : uint32_t { kAddress = 1, kPrincipal = 4 };
enum AddressField : uint32_t { kSocketAddress = 1 };
enum SocketAddressField : uint32_t { kSocketAddressAddress = 2, kPortValue = 3 };
enum RequestField : uint32_t { kHttp = 2 };
enum HttpRequestField : uint32_t {
  kMethod = 2,
  kHeaders = 3,
  kPath = 4,
  kHost = 5,
  kSize = 9,
  kProtocol = 10,
  kRawBody = 12,
};
enum CheckResponseField : uint32_t {
  kStatus = 1,
  kDeniedResponse = 2,
  kOkResponse = 3,
  kErrorResponse = 5,
};
enum StatusField : uint32_t { kCode = 1, kMessage = 2 };
enum DeniedHttpResponseField : uint32_t { kBody = 3 };
enum OkHttpResponseField : uint32_t { kOkHeaders = 2, kHeadersToRemove = 5 };
enum HeaderValueOptionField : uint32_t { kHeader = 1, kAppendAction = 3 };
enum HeaderValueField : uint32_t { kKey = 1, kValue = 2, kRawValue = 3 };
// HeaderAppendAction.
constexpr uint64_t kAddIfAbsent = 1;
constexpr uint64_t kOverwriteIfExists = 3;

std::string SocketAddress(std::string_view address, uint32_t port) {
  std::string socket_address;
  AppendProtoBytes(socket_address, kSocketAddressAddress, MadeUtf8(address));
  AppendProtoVarint(socket_address, kPortValue, port);
  std::string message;
  AppendProtoBytes(message, kSocketAddress, socket_address);
  return message;
}

// HTTP/2's own are nothing that another protocol could carry.
bool IsMetadata(std::string_view key) { return !key.empty() && key.front() != ':'; }

// A HeaderValueOption as a change; false: it is none.
bool ReadHeader(Bytes option, Mutation& changes) {
  MutationOp change;
  bool only_replaces = false;
  ProtoReader reader(option);
  for (ProtoField field; reader.Next(field);) {
    if (field.is(kAppendAction, WireType::kVarint)) {
      // Metadata have one value for a key, so there is nothing to append to.
      change.kind =
          field.value == kAddIfAbsent ? MutationOp::Kind::kAddIfAbsent : MutationOp::Kind::kSet;
      only_replaces = field.value == kOverwriteIfExists;
    }
    if (!field.is(kHeader, WireType::kLength)) continue;
    ProtoReader header(field.bytes);
    for (ProtoField part; header.Next(part);) {
      if (part.is(kKey, WireType::kLength)) change.key = part.bytes;
      if (part.is(kValue, WireType::kLength)) change.value = part.bytes;
      if (part.is(kRawValue, WireType::kLength)) change.value = part.bytes;
    }
    if (header.broken()) return false;
  }
  if (reader.broken() || !IsMetadata(change.key)) return !reader.broken();
  if (only_replaces) return true;  // whether it is there is known to nobody here
  changes.push_back(std::move(change));
  return true;
}

bool ReadOk(Bytes response, Mutation& changes) {
  ProtoReader reader(response);
  for (ProtoField field; reader.Next(field);) {
    if (field.is(kOkHeaders, WireType::kLength) && !ReadHeader(field.bytes, changes)) return false;
    if (field.is(kHeadersToRemove, WireType::kLength) && IsMetadata(field.bytes)) {
      changes.push_back({MutationOp::Kind::kRemove, std::string(field.bytes), {}});
    }
    if (changes.size() > kMostCheckChanges) return false;
  }
  return !reader.broken();
}

// The one string of a message that says something to people.
std::string TextIn(Bytes message, uint32_t number) {
  std::string text;
  ProtoReader reader(message);
  for (ProtoField field; reader.Next(field);) {
    if (field.is(number, WireType::kLength))
      text = MadeUtf8(field.bytes.substr(0, kMostDenialText));
  }
  return text;
}

}  // namespace

void CheckRequestWriter::SetSource(std::string_view address, std::string_view principal) {
  AppendProtoBytes(source_, kAddress, SocketAddress(address, 0));
  if (!principal.empty()) AppendProtoBytes(source_, kPrincipal, MadeUtf8(principal));
}

void CheckRequestWriter::SetDestination(std::string_view address, uint32_t port) {
  AppendProtoBytes(destination_, kAddress, SocketAddress(address, port));
}

void CheckRequestWriter::SetCalled(std::string_view service, std::string_view method) {
  if (!method.empty()) AppendProtoBytes(http_, kMethod, MadeUtf8(method));
  std::string path("/");
  path.append(service).append("/").append(method);
  AppendProtoBytes(http_, kPath, MadeUtf8(path));
  if (!service.empty()) AppendProtoBytes(http_, kHost, MadeUtf8(service));
}

void CheckRequestWriter::SetProtocol(std::string_view protocol) {
  AppendProtoBytes(http_, kProtocol, protocol);
}

void CheckRequestWriter::AddMetadata(std::string_view key, std::string_view value) {
  AppendProtoEntry(http_, kHeaders, MadeUtf8(key), MadeUtf8(value));
}

void CheckRequestWriter::SetMessage(size_t length, Bytes first) {
  AppendProtoVarint(http_, kSize, length);
  if (!first.empty()) AppendProtoBytes(http_, kRawBody, first);
}

void CheckRequestWriter::AddContext(std::string_view key, std::string_view value) {
  AppendProtoEntry(context_, kContextExtensions, key, value);
}

std::string CheckRequestWriter::Finish() const {
  std::string request;
  AppendProtoBytes(request, kHttp, http_);
  std::string attributes;
  AppendProtoBytes(attributes, kSource, source_);
  AppendProtoBytes(attributes, kDestination, destination_);
  AppendProtoBytes(attributes, kRequest, request);
  attributes += context_;
  std::string message;
  AppendProtoBytes(message, kAttributes, attributes);
  return message;
}

CheckVerdict ReadCheckResponse(Bytes message) {
  std::optional<uint64_t> code;
  bool ok = false;
  bool denied = false;
  CheckVerdict verdict;
  ProtoReader reader(message);
  for (ProtoField field; reader.Next(field);) {
    if (field.is(kStatus, WireType::kLength)) {
      code = 0;
      ProtoReader status(field.bytes);
      for (ProtoField part; status.Next(part);) {
        if (part.is(kCode, WireType::kVarint)) code = part.value;
      }
      if (status.broken()) return {};
      if (verdict.text.empty()) verdict.text = TextIn(field.bytes, kMessage);
    }
    if (field.is(kDeniedResponse, WireType::kLength)) {
      denied = true;
      if (std::string text = TextIn(field.bytes, kBody); !text.empty()) {
        verdict.text = std::move(text);
      }
    }
    if (field.is(kErrorResponse, WireType::kLength)) denied = true;
    if (field.is(kOkResponse, WireType::kLength)) {
      ok = true;
      if (!ReadOk(field.bytes, verdict.changes)) return {};
    }
  }
  if (reader.broken()) return {};
  denied = denied || code.value_or(0) != 0;
  if (!denied && !ok && !code) return {};
  verdict.kind = denied ? CheckVerdict::Kind::kDenied : CheckVerdict::Kind::kAllowed;
  if (denied) verdict.changes.clear();
  return verdict;
}

}  // namespace metaprotocol
