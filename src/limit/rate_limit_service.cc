#include "src/limit/rate_limit_service.h"

#include <string>

#include "src/codec/protobuf.h"
#include "src/codec/utf8.h"

namespace metaprotocol {
void RateLimitRequestWriter::AddDescriptor(std::string_view key, std::string_view value) {
  std::string descriptor;
  AppendProtoEntry(descriptor, 1, key, MadeUtf8(value));
  AppendProtoBytes(descriptors_, 2, descriptor);
}

std::string RateLimitRequestWriter::Finish(std::string_view domain) const {
  std::string message;
  AppendProtoBytes(message, 1, domain);
  message += descriptors_;
  AppendProtoVarint(message, 3, 1);  // hits_addend
  return message;
}

RateLimitVerdict ReadRateLimitResponse(Bytes message) {
  uint64_t code = 0;
  ProtoReader reader(message);
  for (ProtoField field; reader.Next(field);) {
    if (field.is(1, WireType::kVarint)) code = field.value;
  }
  if (reader.broken()) return RateLimitVerdict::kNone;
  if (code == 1) return RateLimitVerdict::kOk;
  return code == 2 ? RateLimitVerdict::kOverLimit : RateLimitVerdict::kNone;
}

}  // namespace metaprotocol
