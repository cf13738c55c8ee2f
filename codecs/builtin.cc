// The codecs this build contains: one line each.
#include "codecs/brpc/brpc_codec.h"
#include "codecs/declared/declared_codec.h"
#include "codecs/dubbo/dubbo_codec.h"
#include "codecs/external/external_codec.h"
#include "codecs/thrift/thrift_codec.h"
#include "codecs/trpc/trpc_codec.h"
#include "src/codec/registry.h"

namespace metaprotocol {

void RegisterBuiltinCodecs(CodecRegistry& registry) {
  registry.Register("brpc", brpc::CreateBrpcCodec);
  registry.Register("dubbo", dubbo::CreateDubboCodec);
  registry.Register("thrift", thrift::CreateThriftCodec);
  registry.Register("trpc", trpc::CreateTrpcCodec);
  registry.RegisterDeclared(declared::CompileDeclaredCodec);
  registry.RegisterLibraries(external::CreateLibraryCodec);
}

}  // namespace metaprotocol
