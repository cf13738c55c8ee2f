// The engine in Python, with a host that Python implements.
#pragma once

#include <pybind11/pybind11.h>

namespace metaprotocol {

void BindEngine(pybind11::module_& module);

}  // namespace metaprotocol
