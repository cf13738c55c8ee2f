// Any bytes into every codec of the build and into declared protocols: the rules of
// src/codec/conformance.h.
//
// Input: one byte that chooses codec and direction, then wire bytes. With `--codec=NAME` (and
// `--declaration=FILE`) and `--side=request|response`, wire bytes only.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "codecs/brpc/brpc_codec.h"
#include "codecs/declared/declared_codec.h"
#include "codecs/dubbo/dubbo_codec.h"
#include "codecs/thrift/thrift_codec.h"
#include "codecs/trpc/trpc_codec.h"
#include "src/codec/conformance_target.h"
#include "src/codec/registry.h"
#include "tests/cpp/codecs/declared/declarations.h"

namespace {

using namespace metaprotocol;

ConformanceTarget options;
std::vector<std::shared_ptr<const Codec>> tried;

CodecOrError Chosen() {
  if (options.declaration_file.empty()) {
    CodecRegistry registry;
    RegisterBuiltinCodecs(registry);
    return registry.Create(options.codec, options.codec_options);
  }
  std::ifstream file(options.declaration_file);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  return declared::CreateDeclaredCodec(options.codec, text);
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  options.ReadOptions(*argc, *argv);
  if (!options.codec.empty()) {
    CodecOrError chosen = Chosen();
    if (chosen.codec == nullptr) {
      std::fprintf(stderr, "no codec: %s\n", chosen.error.c_str());
      std::exit(2);
    }
    tried = {std::move(chosen.codec)};
    return 0;
  }
  tried = {
      dubbo::CreateDubboCodec("").codec, thrift::CreateThriftCodec("").codec,
      declared::Make(declared::kAcme),   declared::Make(declared::kLines),
      declared::Make(declared::kSizes),  declared::Make(declared::kNullable),
      brpc::CreateBrpcCodec("").codec,   brpc::CreateBrpcCodec(R"({"authentication": true})").codec,
      trpc::CreateTrpcCodec("").codec,   declared::Make(declared::kHeads),
      declared::Make(declared::kBrpc),   declared::Make(declared::kChecked),
      declared::Make(declared::kJson),   declared::Make(declared::kForms),
  };
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const Bytes bytes(reinterpret_cast<const char*>(data), size);
  if (!options.side.empty()) {
    options.Check(*tried.front(), options.direction(), bytes);
  } else if (size != 0) {
    const Direction direction = (data[0] & 1) != 0 ? Direction::kResponse : Direction::kRequest;
    options.Check(*tried[(data[0] >> 1) % tried.size()], direction, bytes.substr(1));
  }
  return 0;
}
