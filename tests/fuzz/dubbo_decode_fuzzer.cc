// Any bytes into the Dubbo codec, in every mode of use: what it says must be consistent, what it
// hands out must be UTF-8 and inside the message, and encoding must never do more than it may.
//
// Input: one byte of options (direction, partial decoding, which metadata), then wire bytes.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "tests/cpp/codecs/dubbo/round_trip.h"

namespace {

using namespace metaprotocol;
using namespace metaprotocol::dubbo;

void Demand(const Violation& violation) {
  if (!violation) return;
  std::fprintf(stderr, "%s\n", violation->c_str());
  std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  static const DubboCodec codec;
  static const std::vector<std::vector<std::string_view>> kInterests = {
      {}, {"interface", "method"}, {"parameter_types", "serialization"}, {"group", "user"}};
  static const Mutation kMutation = {{MutationOp::Kind::kSet, "user", "zoë 😀"},
                                     {MutationOp::Kind::kRemove, "group", ""},
                                     {MutationOp::Kind::kAddIfAbsent, "path", "new"}};
  const uint8_t mode = data[0];
  // A copy of its own, so that a sanitizer sees every read outside.
  const std::vector<char> copy(data + 1, data + size);
  const Bytes bytes(copy.data(), copy.size());
  const Direction direction = mode & 1 ? Direction::kResponse : Direction::kRequest;
  DecodeOptions options;
  options.allow_partial = (mode & 2) != 0;
  static const DecodeOptions kWanting[] = {Wanting(kInterests[0]), Wanting(kInterests[1]),
                                           Wanting(kInterests[2]), Wanting(kInterests[3])};
  options.interest = (mode & 4 ? kWanting[mode >> 3 & 3] : WantingAll()).interest;
  if (mode & 0x20) options.max_message_bytes = 64;

  Demand(CheckIncremental(direction, bytes, options));
  if (direction == Direction::kRequest) Demand(CheckRequestRoundTrip(codec, bytes, kMutation));

  Message message;
  if (DecodeInto(direction, bytes, options, message).status == DecodeResult::Status::kMessage) {
    message.tag |= kTagReadsResponseAttachments;
    const Bytes given = bytes.substr(0, message.length);
    std::string out;
    const size_t used = codec.Encode(message, given, {.id = 1, .mutation = kMutation}, out).head;
    if (used > given.size()) Demand("encoded more than there was");
    if (message.length == given.size()) {
      out.append(given.substr(used));
      if (LoadBe32(out.data() + 12) + kHeaderBytes != out.size()) Demand("wrong length field");
    }
    std::string reply;
    codec.HeartbeatReply(message, given, reply);
  }
  std::string reply;
  codec.Reply({message.id, message.tag, ""}, static_cast<LocalReply>(mode % kLocalReplyCount),
              bytes.substr(0, 2000), reply);
  Message answered;
  if (codec.Decode(nullptr, Direction::kResponse, reply, {}, answered).status !=
      DecodeResult::Status::kMessage) {
    Demand("a local reply does not decode");
  }
  return 0;
}
