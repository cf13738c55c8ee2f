// Well-formed messages, built from the input, for a codec behind the C ABI: that of
// `metaprotocol new codec`.
#include "codecs/external/external_codec.h"
#include "python/metaprotocol/scaffold/codec/page_codec.cc"
#include "src/codec/bytes.h"
#include "tests/fuzz/structured.h"

namespace {

using namespace metaprotocol;

const Codec& Page() {
  // The empty path is the program itself.
  static const LibraryCodecOrError kMade = external::CreateLibraryCodec("page", "", "");
  fuzzing::Require(kMade.codec != nullptr, kMade.error);
  return *kMade.codec;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzedDataProvider input(data, size);
  fuzzing::Said said;
  said.id = input.ConsumeIntegral<uint32_t>();
  char kind = 'Q';
  switch (input.ConsumeIntegralInRange(0, 2)) {
    case 1:
      kind = 'T';
      said.kind = MessageKind::kOneWay;
      break;
    case 2:
      kind = 'R';
      said.kind = MessageKind::kResponse;
      said.direction = Direction::kResponse;
      break;
    default:
      break;
  }
  const std::string method = fuzzing::Text(input, 300);
  if (said.direction == Direction::kRequest) said.own = {{"method", method}};
  std::string rest(1, kind);
  AppendBe32(rest, static_cast<uint32_t>(said.id));
  rest.append(method).push_back('\0');
  rest += input.ConsumeRandomLengthString(500);
  std::string wire;
  AppendBe32(wire, static_cast<uint32_t>(rest.size()));
  fuzzing::CheckWritten(Page(), wire + rest, said, fuzzing::ReadMutation(input), false);
  return 0;
}
