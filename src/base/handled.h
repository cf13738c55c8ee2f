// What somebody says who was given a message of which the tail may not be there yet.
#pragma once

#include <cstdint>

namespace metaprotocol {

enum class Handled : uint8_t {
  kDone,
  kWantedWhole,  // nothing was done: it is to be given again when all of it is there
};

}  // namespace metaprotocol
