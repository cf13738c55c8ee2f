// The names that configurations have for replies of ours.
#pragma once

#include <string>

#include "src/codec/codec.h"
#include "src/config/findings.h"

namespace metaprotocol {

// kFault, and a finding, if there is none of that name.
LocalReply LoadLocalReply(const std::string& name, const std::string& path, Findings& findings);

}  // namespace metaprotocol
