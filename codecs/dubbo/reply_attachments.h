// What a server's reply says in its attachments.
#pragma once

#include "codecs/dubbo/frame.h"
#include "src/codec/codec.h"

namespace metaprotocol::dubbo {

// Reads the attachments of the whole OK response whose body is `body` into message.metadata; false
// if they are malformed, some of which may have been read all the same. There may be none, and of
// serializations that are not read here none are told.
bool ReadReplyAttachments(Serialization serialization, Bytes body, Message& message);

}  // namespace metaprotocol::dubbo
