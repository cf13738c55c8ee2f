#include "src/config/local_reply_loader.h"

#include <string_view>
#include <vector>

namespace metaprotocol {

LocalReply LoadLocalReply(const std::string& name, const std::string& path, Findings& findings) {
  std::vector<std::string_view> names;
  for (size_t i = 0; i < kLocalReplyCount; ++i) {
    const auto reply = static_cast<LocalReply>(i);
    if (LocalReplyName(reply) == name) return reply;
    names.push_back(LocalReplyName(reply));
  }
  findings.Error(path, QuoteShort(name), "must be one of " + JoinNames(names));
  return LocalReply::kFault;
}

}  // namespace metaprotocol
