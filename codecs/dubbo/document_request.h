// Bodies that are one document behind the other: fastjson's JSON, fastjson2's JSONB.
#pragma once

#include <cstdint>

#include "codecs/dubbo/frame.h"
#include "src/codec/codec.h"

namespace metaprotocol::dubbo {

inline bool HasDocuments(Serialization serialization) {
  return serialization == Serialization::kFastjson || serialization == Serialization::kFastjson2;
}

// Reads the body of such a request, as DecodeRequest (request.h). `bytes` may be cut short only if
// nothing behind the head is wanted.
DecodeResult DecodeDocumentRequest(Bytes bytes, Serialization serialization, uint64_t mask,
                                   Message& message);

// Whether the Dubbo version that a body begins with is one of a client that understands responses
// with attachments. Only the beginning may be there; what cannot be read is nobody's business here.
bool DocumentVersionReadsAttachments(Bytes body, Serialization serialization);

// Reads the attachments of a whole OK response, as ReadReplyAttachments (reply_attachments.h);
// false if they are malformed.
bool ReadDocumentReplyAttachments(Bytes body, Serialization serialization, Message& message);

}  // namespace metaprotocol::dubbo
