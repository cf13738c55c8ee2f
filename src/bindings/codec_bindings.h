// Codecs in Python: decode, encode and reply, for tests, tools and fuzzing.
#pragma once

#include <pybind11/pybind11.h>

#include "src/codec/registry.h"

namespace metaprotocol {

// Every codec this build was linked with.
const CodecRegistry& BuiltinCodecs();

void BindCodecs(pybind11::module_& module);

}  // namespace metaprotocol
