// What a reply of ours says to the human at the other end, where nobody has said more.
#pragma once

#include <string_view>

#include "src/codec/codec.h"

namespace metaprotocol {

std::string_view LocalReplyText(LocalReply reply);

}  // namespace metaprotocol
