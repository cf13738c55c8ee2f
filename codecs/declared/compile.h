// Declarations into tables, with everything that is wrong told by its field.
#pragma once

#include <optional>
#include <string>

#include "codecs/declared/tables.h"
#include "generated/config_schema.h"
#include "src/config/findings.h"

namespace metaprotocol::declared {

// `path` is where the declaration stands, such as "protocol.declaration"; what is wrong goes to
// `findings`. Nothing if there is an error.
std::optional<Forms> Compile(const std::string& name, const config::Declaration& declaration,
                             const std::string& path, Findings& findings);

}  // namespace metaprotocol::declared
