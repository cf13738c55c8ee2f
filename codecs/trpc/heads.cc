#include "codecs/trpc/heads.h"

#include "src/codec/protobuf.h"
#include "src/codec/protobuf_mutation.h"

namespace metaprotocol::trpc {
namespace {

// RequestProtocol and ResponseProtocol.
constexpr uint32_t kCallType = 2;
constexpr uint32_t kRequestId = 3;
constexpr uint32_t kAttachmentSize = 12;
// RequestProtocol.
constexpr uint32_t kTimeout = 4;
constexpr uint32_t kCaller = 5;
constexpr uint32_t kCallee = 6;
constexpr uint32_t kFunc = 7;
constexpr uint32_t kRequestTransInfo = 9;
// ResponseProtocol.
constexpr uint32_t kRet = 4;
constexpr uint32_t kFuncRet = 5;
constexpr uint32_t kErrorMsg = 6;
constexpr uint32_t kResponseTransInfo = 8;
// TrpcStreamInitMeta.
constexpr uint32_t kRequestMeta = 1;
constexpr uint32_t kResponseMeta = 2;
// TrpcStreamInitRequestMeta.
constexpr uint32_t kInitCaller = 1;
constexpr uint32_t kInitCallee = 2;
constexpr uint32_t kInitFunc = 3;
constexpr uint32_t kInitTransInfo = 5;
// TrpcStreamInitResponseMeta.
constexpr uint32_t kInitRet = 1;
// TrpcStreamFeedBackMeta.
constexpr uint32_t kWindowSizeIncrement = 1;
// TrpcStreamCloseMeta.
constexpr uint32_t kCloseType = 1;
constexpr uint32_t kCloseRet = 2;
constexpr uint32_t kCloseMsg = 3;

constexpr int32_t kStreamReset = 1;

bool ReadTransInfo(Bytes entry, Metadata& metadata) {
  const auto read = ReadProtoEntry(entry);
  if (read) metadata.SetNamed(read->key, read->value);
  return read.has_value();
}

// What requests and responses have in common; false if `field` is none of it.
bool ReadCommon(const ProtoField& field, UnaryHead& head) {
  if (field.is(kRequestId, WireType::kVarint)) {
    head.request_id = static_cast<uint32_t>(field.value);
    head.id_begin = field.begin;
    head.id_end = field.end;
  } else if (field.is(kCallType, WireType::kVarint)) {
    head.call_type = static_cast<uint32_t>(field.value);
  } else if (field.is(kAttachmentSize, WireType::kVarint)) {
    head.attachment_size = static_cast<uint32_t>(field.value);
  } else {
    return false;
  }
  return true;
}

// "/package.Service/Method". Servers for Go look it up as it is; those for Java split it at the
// last slash and take no notice of what the first character is.
void SetFunc(Bytes func, Metadata& metadata) {
  metadata.SetOwn(kFuncKey, func);
  const size_t slash = func.rfind('/');
  if (slash == Bytes::npos) {
    metadata.SetOwn(kMethodKey, func);
    return;
  }
  metadata.SetOwn(kServiceKey, slash == 0 ? Bytes() : func.substr(1, slash - 1));
  metadata.SetOwn(kMethodKey, func.substr(slash + 1));
  if (func.front() != '/' && metadata.Wants(kFuncKey)) {
    metadata.SetAlternative(kFuncKey, metadata.Own("/" + std::string(func.substr(1))));
  }
}

bool ReadInitRequest(Bytes bytes, Metadata& metadata) {
  ProtoReader reader(bytes);
  bool whole = true;
  Bytes func;
  for (ProtoField field; reader.Next(field);) {
    if (field.is(kInitCaller, WireType::kLength)) {
      metadata.SetOwn(kCallerKey, field.bytes);
    } else if (field.is(kInitCallee, WireType::kLength)) {
      metadata.SetOwn(kCalleeKey, field.bytes);
    } else if (field.is(kInitFunc, WireType::kLength)) {
      func = field.bytes;
    } else if (field.is(kInitTransInfo, WireType::kLength)) {
      whole &= ReadTransInfo(field.bytes, metadata);
    }
  }
  if (func.data() != nullptr) SetFunc(func, metadata);
  return whole && !reader.broken();
}

}  // namespace

bool ReadRequestHead(Bytes bytes, UnaryHead& head, Metadata& metadata) {
  ProtoReader reader(bytes);
  bool whole = true;
  Bytes func;
  for (ProtoField field; reader.Next(field);) {
    if (ReadCommon(field, head)) continue;
    if (field.is(kTimeout, WireType::kVarint)) {
      head.timeout_ms = static_cast<uint32_t>(field.value);
    } else if (field.is(kCaller, WireType::kLength)) {
      metadata.SetOwn(kCallerKey, field.bytes);
    } else if (field.is(kCallee, WireType::kLength)) {
      metadata.SetOwn(kCalleeKey, field.bytes);
    } else if (field.is(kFunc, WireType::kLength)) {
      func = field.bytes;
    } else if (field.is(kRequestTransInfo, WireType::kLength)) {
      whole &= ReadTransInfo(field.bytes, metadata);
    }
  }
  if (func.data() != nullptr) SetFunc(func, metadata);
  return whole && !reader.broken();
}

bool ReadResponseHead(Bytes bytes, UnaryHead& head, Metadata& metadata) {
  ProtoReader reader(bytes);
  bool whole = true;
  for (ProtoField field; reader.Next(field);) {
    if (ReadCommon(field, head)) continue;
    if (field.is(kRet, WireType::kVarint)) {
      head.ret = static_cast<int32_t>(field.value);
    } else if (field.is(kFuncRet, WireType::kVarint)) {
      head.func_ret = static_cast<int32_t>(field.value);
    } else if (field.is(kResponseTransInfo, WireType::kLength)) {
      whole &= ReadTransInfo(field.bytes, metadata);
    }
  }
  return whole && !reader.broken();
}

bool ReadStreamInit(Bytes bytes, StreamHead& head, Metadata& metadata) {
  ProtoReader reader(bytes);
  bool whole = true;
  bool has_request = false;
  for (ProtoField field; reader.Next(field);) {
    if (field.is(kRequestMeta, WireType::kLength)) {
      // Two would be read as one, and written as two.
      whole &= !has_request && ReadInitRequest(field.bytes, metadata);
      has_request = true;
    } else if (field.is(kResponseMeta, WireType::kLength)) {
      ProtoReader response(field.bytes);
      for (ProtoField part; response.Next(part);) {
        if (part.is(kInitRet, WireType::kVarint)) head.ret = static_cast<int32_t>(part.value);
      }
      whole &= !response.broken();
    }
  }
  return whole && !reader.broken();
}

bool ReadStreamFeedback(Bytes bytes, StreamHead& head) {
  ProtoReader reader(bytes);
  for (ProtoField field; reader.Next(field);) {
    if (field.is(kWindowSizeIncrement, WireType::kVarint)) {
      head.window = static_cast<uint32_t>(field.value);
    }
  }
  return !reader.broken();
}

bool ReadStreamClose(Bytes bytes, StreamHead& head) {
  ProtoReader reader(bytes);
  for (ProtoField field; reader.Next(field);) {
    if (field.is(kCloseType, WireType::kVarint)) {
      head.close_type = static_cast<int32_t>(field.value);
    } else if (field.is(kCloseRet, WireType::kVarint)) {
      head.ret = static_cast<int32_t>(field.value);
    }
  }
  return !reader.broken();
}

void AppendChangedHead(Bytes bytes, bool is_request, const HeadChanges& changes, std::string& out) {
  const bool changes_timeout = is_request && changes.timeout_ms != 0;
  const auto drops = [&](const ProtoField& field) {
    return field.is(kRequestId, WireType::kVarint) ||
           (changes_timeout && field.is(kTimeout, WireType::kVarint));
  };
  AppendMutated(bytes, is_request ? kRequestTransInfo : kResponseTransInfo, changes.mutation, drops,
                out);
  AppendProtoVarint(out, kRequestId, changes.request_id);
  if (changes_timeout) AppendProtoVarint(out, kTimeout, changes.timeout_ms);
}

void AppendHeadWithId(Bytes bytes, size_t id_begin, size_t id_end, uint32_t id, std::string& out) {
  out += bytes.substr(0, id_begin);
  AppendProtoVarint(out, kRequestId, id);
  out += bytes.substr(id_end);
}

void AppendChangedInit(Bytes bytes, std::span<const MutationOp> mutation, std::string& out) {
  const auto none = [](const ProtoField&) { return false; };
  bool has_request = false;
  std::string request;
  ProtoReader reader(bytes);
  for (ProtoField field; reader.Next(field);) {
    if (field.is(kRequestMeta, WireType::kLength)) {
      has_request = true;
      AppendMutated(field.bytes, kInitTransInfo, mutation, none, request);
      AppendProtoBytes(out, kRequestMeta, request);
    } else {
      out += bytes.substr(field.begin, field.end - field.begin);
    }
  }
  if (has_request) return;
  AppendMutated({}, kInitTransInfo, mutation, none, request);
  if (!request.empty()) AppendProtoBytes(out, kRequestMeta, request);
}

void AppendResponseHead(uint32_t request_id, int32_t ret, std::string_view text, std::string& out) {
  AppendProtoVarint(out, kRequestId, request_id);
  if (ret != 0) AppendProtoVarint(out, kRet, static_cast<uint32_t>(ret));
  if (!text.empty()) AppendProtoBytes(out, kErrorMsg, text);
}

void AppendStreamFeedback(uint32_t window, std::string& out) {
  AppendProtoVarint(out, kWindowSizeIncrement, window);
}

void AppendStreamReset(int32_t ret, std::string_view text, std::string& out) {
  AppendProtoVarint(out, kCloseType, kStreamReset);
  AppendProtoVarint(out, kCloseRet, static_cast<uint32_t>(ret));
  AppendProtoBytes(out, kCloseMsg, text);
}

}  // namespace metaprotocol::trpc
