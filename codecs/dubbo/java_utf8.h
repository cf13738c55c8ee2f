// UTF-8 as Java's Hessian writers produce it.
//
// Hessian strings count UTF-16 units and carry characters outside the basic plane as two three-byte
// halves ("CESU-8"), because Java writes them unit by unit. Routes, logs and people want real
// UTF-8.
#pragma once

#include <string>
#include <string_view>

namespace metaprotocol::dubbo {

// Reads `bytes` the way Java's Hessian reader does (pairs of surrogate halves, overlong forms and
// unchecked continuation bytes are all taken at face value) and returns strict UTF-8 for it, so
// that what is compared here is what the server will see. What cannot be read becomes U+FFFD.
std::string JavaUtf8ToUtf8(std::string_view bytes);

}  // namespace metaprotocol::dubbo
