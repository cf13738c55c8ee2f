#include "src/filter/local_reply_text.h"

namespace metaprotocol {

std::string_view LocalReplyText(LocalReply reply) {
  switch (reply) {
    case LocalReply::kNoRoute:
      return "no route matches this request";
    case LocalReply::kClusterNotFound:
      return "the route's cluster does not exist";
    case LocalReply::kNoHealthyUpstream:
      return "no healthy upstream host";
    case LocalReply::kOverLimit:
      return "too many requests in flight";
    case LocalReply::kTimeout:
      return "no reply within the route's timeout";
    case LocalReply::kShuttingDown:
      return "the proxy is shutting down";
    default:
      return LocalReplyName(reply);
  }
}

}  // namespace metaprotocol
