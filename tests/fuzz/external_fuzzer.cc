// Any bytes into a codec behind the C ABI (codecs/external): the rules of src/codec/conformance.h.
// The codec is the one that `metaprotocol new codec` makes, and its library is this program.
//
// Input: one byte that chooses the direction, then wire bytes.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "codecs/external/external_codec.h"
#include "python/metaprotocol/scaffold/codec/page_codec.cc"
#include "src/codec/conformance.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using metaprotocol::Direction;
  // The empty path is the program itself.
  static const auto kMade = metaprotocol::external::CreateLibraryCodec("page", "", "");
  if (kMade.codec == nullptr) {
    std::fprintf(stderr, "no codec: %s\n", kMade.error.c_str());
    std::abort();
  }
  if (size == 0) return 0;
  const Direction direction = (data[0] & 1) != 0 ? Direction::kResponse : Direction::kRequest;
  const metaprotocol::Bytes bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto result =
      metaprotocol::CheckConformance(*kMade.codec, direction, bytes, {.seed = size});
  if (result.violation) {
    std::fprintf(stderr, "page: %s\n", result.violation->c_str());
    std::abort();
  }
  return 0;
}
