// Replies of ours by the names that configurations and libraries have for them.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

#include "src/codec/codec.h"

namespace metaprotocol {

inline std::optional<LocalReply> FindLocalReply(std::string_view name) {
  for (size_t i = 0; i < kLocalReplyCount; ++i) {
    const auto reply = static_cast<LocalReply>(i);
    if (LocalReplyName(reply) == name) return reply;
  }
  return std::nullopt;
}

}  // namespace metaprotocol
