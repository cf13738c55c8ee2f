#include "src/filter/direct_reply/direct_reply.h"

#include "src/filter/local_reply_text.h"

namespace metaprotocol {

RequestVerdict DirectReply::OnRequest(FilterContext& context) const {
  const Route& route = context.route();
  context.Answer(route.direct_reply, route.direct_reply_text.empty()
                                         ? LocalReplyText(route.direct_reply)
                                         : std::string_view(route.direct_reply_text));
  return RequestVerdict::kAnswered;
}

}  // namespace metaprotocol
