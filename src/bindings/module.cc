// The Python extension metaprotocol._native._engine; metaprotocol.engine is its public face.
#include <pybind11/pybind11.h>

#include "src/bindings/codec_bindings.h"
#include "src/bindings/engine_bindings.h"
#include "src/bindings/yaml_bindings.h"

PYBIND11_MODULE(_engine, module) {
  module.doc() = "MetaProtocol's engine and codecs.";
  metaprotocol::BindCodecs(module);
  metaprotocol::BindEngine(module);
  metaprotocol::BindYaml(module);
}
