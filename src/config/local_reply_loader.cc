#include "src/config/local_reply_loader.h"

#include <string_view>
#include <vector>

#include "src/codec/local_reply_names.h"

namespace metaprotocol {

LocalReply LoadLocalReply(const std::string& name, const std::string& path, Findings& findings) {
  if (const auto reply = FindLocalReply(name)) return *reply;
  std::vector<std::string_view> names;
  for (size_t i = 0; i < kLocalReplyCount; ++i) {
    names.push_back(LocalReplyName(static_cast<LocalReply>(i)));
  }
  findings.Error(path, QuoteShort(name), "must be one of " + JoinNames(names));
  return LocalReply::kFault;
}

}  // namespace metaprotocol
