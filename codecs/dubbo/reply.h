// Messages this codec writes itself: local replies, heartbeats' answers, read-only events.
#pragma once

#include <string>
#include <string_view>

#include "codecs/dubbo/frame.h"
#include "src/codec/codec.h"

namespace metaprotocol::dubbo {

// Texts in replies are cut to this many bytes.
inline constexpr size_t kMaxReplyText = 1024;

Status StatusOf(LocalReply reply);

// A response frame of that status: for kNoContent the null value, else `text` as error message,
// both so that the library that sent the request in `serialization` can read them. `with_lengths`
// is for fastjson alone (JsonValues).
void AppendReply(std::string& out, uint64_t id, Serialization serialization, bool with_lengths,
                 LocalReply reply, std::string_view text);

// The two-way event that every peer answers with the same id.
void AppendHeartbeat(std::string& out, uint64_t id);

// The response event that answers a heartbeat: same serialization, same (null) body.
void AppendHeartbeatReply(std::string& out, const Header& heartbeat, Bytes body);

// The one-way event "R": no more requests on this connection, please.
void AppendReadOnlyEvent(std::string& out);

}  // namespace metaprotocol::dubbo
