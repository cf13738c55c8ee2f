// Messages of the proxy's own: templates filled in.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "codecs/declared/tables.h"
#include "src/codec/codec.h"

namespace metaprotocol::declared {

// What goes into a template.
struct Filling {
  uint64_t id = 0;
  uint64_t tag = 0;  // of the message that is answered
  std::string_view text = {};
  std::string_view reply = {};
  const uint64_t* status = nullptr;  // in place of what the template has
};

// Appends a message of that layout. Text that has no room in its field is cut, between characters.
// False, and nothing appended, if a length cannot say how many bytes its fields take.
bool AppendTemplate(const Tables& tables, Direction direction, const Template& from,
                    const Filling& filling, std::string& out);

}  // namespace metaprotocol::declared
