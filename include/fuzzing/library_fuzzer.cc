// A libFuzzer target for the codec that is linked with it, which takes it for the library that it
// would be elsewhere: behind the C ABI (codecs/external), by the rules of src/codec/conformance.h.
//
// Input: wire bytes of what `--side` sends; without that option, one byte before them says whose
// they are.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "codecs/external/external_codec.h"
#include "src/codec/conformance_target.h"

namespace {

using namespace metaprotocol;

ConformanceTarget& Options() {
  static ConformanceTarget options;
  return options;
}

const Codec& Tried() {
  // The empty path is the program itself.
  static const LibraryCodecOrError kMade = external::CreateLibraryCodec(
      Options().codec.empty() ? "fuzzed" : Options().codec, "", Options().codec_options);
  if (kMade.codec == nullptr) {
    std::fprintf(stderr, "no codec: %s\n", kMade.error.c_str());
    std::exit(2);
  }
  return *kMade.codec;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  Options().ReadOptions(*argc, *argv);
  Tried();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes bytes(reinterpret_cast<const char*>(data), size);
  Direction direction = Options().direction();
  if (Options().side.empty()) {
    if (size == 0) return 0;
    direction = (data[0] & 1) != 0 ? Direction::kResponse : Direction::kRequest;
    bytes.remove_prefix(1);
  }
  Options().Check(Tried(), direction, bytes);
  return 0;
}
