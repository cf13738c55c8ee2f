#include "src/limit/rate_limit_service.h"

#include <string>

#include "src/codec/protobuf.h"
#include "src/codec/utf8.h"

namespace metaprotocol {
namespace {

// `text` with "?" for each byte that is no UTF-8: the service would refuse the whole question.
std::string Utf8(std::string_view text) {
  if (IsUtf8(text)) return std::string(text);
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const size_t width = Utf8At(text, i).width;
    out += width == 0 ? std::string_view("?") : text.substr(i, width);
    i += width == 0 ? 1 : width;
  }
  return out;
}

}  // namespace

void RateLimitRequestWriter::AddDescriptor(std::string_view key, std::string_view value) {
  std::string descriptor;
  AppendProtoEntry(descriptor, 1, key, Utf8(value));
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
