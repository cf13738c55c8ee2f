// The table of one shared library with a filter.
#pragma once

#include <string>

#include "include/metaprotocol/filter.h"

namespace metaprotocol {

// The table of the library at `path`, for ever; null and what is wrong if it is none. What has once
// been loaded from a path stays, whatever lies there later.
const metaprotocol_filter_table* LoadFilterTable(const std::string& path, std::string& error);

}  // namespace metaprotocol
