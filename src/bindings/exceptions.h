// The Python exceptions of the bindings, as parts of the package's own tree.
#pragma once

#include <pybind11/pybind11.h>

namespace metaprotocol {

// The bases of an exception that is the package's own and a ValueError. ValueError alone where the
// extension is loaded without the package.
inline pybind11::tuple ValueErrorOfPackage() {
  const auto standard = pybind11::reinterpret_borrow<pybind11::object>(PyExc_ValueError);
  try {
    return pybind11::make_tuple(pybind11::module_::import("metaprotocol.errors").attr("Error"),
                                standard);
  } catch (const pybind11::error_already_set&) {
    return pybind11::make_tuple(standard);
  }
}

}  // namespace metaprotocol
