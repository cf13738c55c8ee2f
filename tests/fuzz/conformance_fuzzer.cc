// Any bytes into every codec of the build and into declared protocols: the rules of
// src/codec/conformance.h.
//
// Input: one byte that chooses codec and direction, then wire bytes.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "codecs/brpc/brpc_codec.h"
#include "codecs/dubbo/dubbo_codec.h"
#include "codecs/thrift/thrift_codec.h"
#include "codecs/trpc/trpc_codec.h"
#include "src/codec/conformance.h"
#include "tests/cpp/codecs/declared/declarations.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace metaprotocol;
  static const std::vector<std::shared_ptr<const Codec>> kCodecs = {
      dubbo::CreateDubboCodec("").codec, thrift::CreateThriftCodec("").codec,
      declared::Make(declared::kAcme),   declared::Make(declared::kLines),
      declared::Make(declared::kSizes),  declared::Make(declared::kNullable),
      brpc::CreateBrpcCodec("").codec,   brpc::CreateBrpcCodec(R"({"authentication": true})").codec,
      trpc::CreateTrpcCodec("").codec,   declared::Make(declared::kHeads),
      declared::Make(declared::kBrpc),   declared::Make(declared::kChecked),
      declared::Make(declared::kJson),   declared::Make(declared::kForms),
  };
  if (size == 0) return 0;
  const Codec& codec = *kCodecs[(data[0] >> 1) % kCodecs.size()];
  const Direction direction = (data[0] & 1) != 0 ? Direction::kResponse : Direction::kRequest;
  const Bytes bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto result = CheckConformance(codec, direction, bytes, {.seed = size});
  if (result.violation) {
    std::fprintf(stderr, "%s: %s\n", std::string(codec.traits().name).c_str(),
                 result.violation->c_str());
    std::abort();
  }
  return 0;
}
