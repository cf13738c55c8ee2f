// See reply_attachments.h.
#include "codecs/dubbo/reply_attachments.h"

#include <cstdint>

#include "codecs/dubbo/attachment_plan.h"
#include "codecs/dubbo/document_request.h"
#include "codecs/dubbo/hessian_attachments.h"

namespace metaprotocol::dubbo {
namespace {

bool ReadHessianReply(Bytes body, Metadata& metadata) {
  Hessian2Reader reader(body);
  int32_t type = 0;
  if (!reader.ReadInt(type) || type < kWithAttachments || type >= kResponseTypes) return true;
  if (TypeHasValue(static_cast<uint8_t>(type)) && !reader.SkipValue()) return false;
  return ForEachAttachment(
      reader, body, [&](const HessianAttachment& attachment) { attachment.SetIn(metadata); });
}

}  // namespace

bool ReadReplyAttachments(Serialization serialization, Bytes body, Message& message) {
  if (serialization == Serialization::kHessian2) return ReadHessianReply(body, message.metadata);
  return !HasDocuments(serialization) || ReadDocumentReplyAttachments(body, serialization, message);
}

}  // namespace metaprotocol::dubbo
