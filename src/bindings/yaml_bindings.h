// The values of YAML documents as Python's objects.
#pragma once

#include <pybind11/pybind11.h>

namespace metaprotocol {

void BindYaml(pybind11::module_& module);

}  // namespace metaprotocol
