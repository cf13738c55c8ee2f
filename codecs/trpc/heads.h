// The protobuf messages at the head of tRPC's frames: reading what matters of them, and writing
// them anew with some of it changed. Field numbers: trpc-group/trpc trpc/trpc.proto.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "src/codec/bytes.h"
#include "src/codec/metadata.h"
#include "src/codec/mutation.h"

namespace metaprotocol::trpc {

enum Key : OwnKey { kCallerKey, kCalleeKey, kFuncKey, kServiceKey, kMethodKey };
inline constexpr std::string_view kMetadataKeys[] = {"caller", "callee", "func", "service",
                                                     "method"};

// Of RequestProtocol and ResponseProtocol.
struct UnaryHead {
  uint32_t request_id = 0;
  // Where the field lies that says so; nowhere if both are 0.
  size_t id_begin = 0;
  size_t id_end = 0;
  uint32_t call_type = 0;
  uint32_t timeout_ms = 0;
  uint32_t attachment_size = 0;
  int32_t ret = 0;
  int32_t func_ret = 0;
};

// Of TrpcStreamInitMeta, TrpcStreamFeedBackMeta and TrpcStreamCloseMeta.
struct StreamHead {
  int32_t ret = 0;
  int32_t close_type = 0;
  uint32_t window = 0;
};

// All of these: false if `bytes` is no such message.
bool ReadRequestHead(Bytes bytes, UnaryHead& head, Metadata& metadata);
bool ReadResponseHead(Bytes bytes, UnaryHead& head, Metadata& metadata);
bool ReadStreamInit(Bytes bytes, StreamHead& head, Metadata& metadata);
bool ReadStreamFeedback(Bytes bytes, StreamHead& head);
bool ReadStreamClose(Bytes bytes, StreamHead& head);

struct HeadChanges {
  uint32_t request_id = 0;
  uint32_t timeout_ms = 0;  // 0: as it is
  std::span<const MutationOp> mutation = {};
};

// All append; what is not named stays byte by byte as it is.
void AppendChangedHead(Bytes bytes, bool is_request, const HeadChanges& changes, std::string& out);
void AppendHeadWithId(Bytes bytes, size_t id_begin, size_t id_end, uint32_t id, std::string& out);
void AppendChangedInit(Bytes bytes, std::span<const MutationOp> mutation, std::string& out);

void AppendResponseHead(uint32_t request_id, int32_t ret, std::string_view text, std::string& out);
void AppendStreamFeedback(uint32_t window, std::string& out);
void AppendStreamReset(int32_t ret, std::string_view text, std::string& out);

}  // namespace metaprotocol::trpc
