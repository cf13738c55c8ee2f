// RpcMeta, the protobuf message at the head of every baidu_std message: reading what matters of it,
// and writing it anew with some of it changed. Field numbers: apache/brpc
// src/brpc/policy/baidu_rpc_meta.proto, and for `ext_fields` com.baidu:brpc-java.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "src/codec/bytes.h"
#include "src/codec/metadata.h"
#include "src/codec/mutation.h"

namespace metaprotocol::brpc {

enum Key : OwnKey { kInterfaceKey, kServiceKey, kMethodKey, kLogIdKey, kRequestIdKey };
inline constexpr std::string_view kMetadataKeys[] = {"interface", "service", "method", "log_id",
                                                     "request_id"};

inline constexpr size_t kHeaderBytes = 12;

struct Meta {
  bool has_request = false;
  bool has_response = false;
  bool has_service = false;  // with which a request is complete
  bool has_method = false;
  bool has_stream = false;
  bool has_ext_fields = false;
  int32_t timeout_ms = 0;
  int32_t error_code = 0;
  int32_t attachment_size = 0;
  uint64_t correlation_id = 0;
  // Where the field lies that says so, in the meta; nowhere if both are 0.
  size_t id_begin = 0;
  size_t id_end = 0;
  std::string_view authentication;
};

// False if `bytes` is no such message; then `meta` has what stands before the fault. Fills
// `metadata` as it goes along.
bool ReadMeta(Bytes bytes, Meta& meta, Metadata& metadata);

struct MetaChanges {
  uint64_t correlation_id = 0;
  int32_t timeout_ms = 0;                // 0: as it is
  std::string_view authentication = {};  // added, if any
  std::span<const MutationOp> mutation = {};
  bool in_ext_fields = false;  // where the mutation goes; else into `user_fields`
};

// Appends the meta with these changes; what is not named stays byte by byte as it is.
void AppendChangedMeta(Bytes bytes, const MetaChanges& changes, std::string& out);

// The same where only the correlation id is another one.
void AppendMetaWithId(Bytes bytes, size_t id_begin, size_t id_end, uint64_t id, std::string& out);

void AppendResponseMeta(uint64_t correlation_id, int32_t error_code, std::string_view error_text,
                        std::string& out);

}  // namespace metaprotocol::brpc
