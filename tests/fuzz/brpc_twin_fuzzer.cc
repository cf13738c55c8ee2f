// bRPC by hand and by a declaration: what one reads and writes, the other must
// (tests/cpp/codecs/declared/brpc_twin.h).
//
// Input: one byte that chooses the direction, then an RpcMeta; it is framed here, so that all of it
// is about protobuf.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "tests/cpp/codecs/declared/brpc_twin.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace metaprotocol;
  static const declared::BrpcTwins kTwins;
  if (size == 0) return 0;
  const Direction direction = (data[0] & 1) != 0 ? Direction::kResponse : Direction::kRequest;
  const Bytes meta(reinterpret_cast<const char*>(data) + 1, size - 1);
  std::string frame = "PRPC";
  AppendBe32(frame, static_cast<uint32_t>(meta.size() + 4));
  AppendBe32(frame, static_cast<uint32_t>(meta.size()));
  frame.append(meta).append("body");
  if (const auto difference = kTwins.Difference(direction, frame)) {
    std::fprintf(stderr, "the two differ: %s\n", difference->c_str());
    std::abort();
  }
  return 0;
}
