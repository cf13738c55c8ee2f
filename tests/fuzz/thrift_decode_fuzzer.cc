// Arbitrary bytes into the Thrift codec. Whatever they are, it keeps the promises of Codec: it asks
// for more than it has, comes to the same end however the bytes are cut, and what it took for a
// message can be written with another id and read again.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>

#include "codecs/thrift/thrift_codec.h"

namespace metaprotocol::thrift {
namespace {

using Status = DecodeResult::Status;

void Require(bool condition) {
  if (!condition) std::abort();
}

bool IsRefused(const DecodeResult& result) {
  return result.status != Status::kMessage && result.status != Status::kNeedMore;
}

struct Run {
  DecodeResult result;
  Message message;
};

// Passes on the rest of a message of which the first `n` bytes were enough, in buffers of exact
// size; what is wrong with it becomes the result. Without a state only what is there can be judged,
// so the message is decoded again.
void FollowBody(const ThriftCodec& codec, DecodeState* state, Bytes bytes, size_t n, size_t step,
                DecodeResult& result) {
  if (state == nullptr) {
    DecodeOptions options;
    options.allow_partial = true;
    options.max_message_bytes = size_t{1} << 30;
    Message message;
    result = codec.Decode(nullptr, Direction::kRequest, bytes, options, message);
    return;
  }
  while (n < bytes.size() && result.status == Status::kMessage) {
    const size_t part = std::min(step, bytes.size() - n);
    const auto copy = std::make_unique<char[]>(part);
    std::copy_n(bytes.begin() + n, part, copy.get());
    const std::string_view wrong = codec.CheckBody(state, {copy.get(), part});
    if (!wrong.empty()) result = DecodeResult::Error(wrong);
    n += part;
  }
}

// Decodes the first message, given `step` more bytes each time, in buffers of exact size.
Run Decode(Direction direction, Bytes bytes, const DecodeOptions& options, size_t step,
           bool with_state) {
  const ThriftCodec codec;
  const std::unique_ptr<DecodeState> state = with_state ? codec.NewDecodeState(direction) : nullptr;
  size_t need = 0;
  for (size_t n = std::min(step, bytes.size());; n = std::min(n + step, bytes.size())) {
    const auto copy = std::make_unique<char[]>(n);
    std::copy_n(bytes.begin(), n, copy.get());
    Run run;
    run.result = codec.Decode(state.get(), direction, {copy.get(), n}, options, run.message);
    if (run.result.status == Status::kNeedMore) {
      Require(run.result.need > n);
      Require(run.result.need <= std::max<size_t>(options.max_message_bytes, 14));
      need = std::max(need, run.result.need);
      if (n < bytes.size()) continue;
    }
    if (run.result.status == Status::kMessage) {
      // Nothing was asked for that the message does not have.
      Require(need <= run.message.length);
      Require(run.message.length > 0);
      Require(run.message.length <= options.max_message_bytes);
      Require(options.allow_partial || run.message.length <= n);
      if (run.message.length > n && direction == Direction::kRequest) {
        FollowBody(codec, state.get(), bytes.substr(0, run.message.length), n, step, run.result);
      }
    } else if (run.result.status != Status::kNeedMore) {
      Require(!run.result.error.empty());
    }
    // The views are gone with the copy; what is compared later lives in the message itself.
    run.message.reply_name = {};
    run.message.metadata.Clear();
    return run;
  }
}

void CheckEncode(Direction direction, Bytes bytes, const DecodeOptions& options) {
  const ThriftCodec codec;
  Message message;
  Require(codec.Decode(nullptr, direction, bytes, options, message).status == Status::kMessage);
  const Mutation mutation = {{MutationOp::Kind::kSet, "k", "value"},
                             {MutationOp::Kind::kAddIfAbsent, "a", "b"},
                             {MutationOp::Kind::kRemove, "c", ""}};
  for (const bool mutate : {false, true}) {
    std::string out;
    const size_t taken =
        codec.Encode(message, bytes, {.id = 77, .mutation = mutate ? mutation : Mutation{}}, out)
            .head;
    Require(taken <= std::min(bytes.size(), message.length));
    out += bytes.substr(taken, message.length - taken);
    const size_t missing = message.length - std::min(message.length, bytes.size());
    DecodeOptions wide;
    wide.allow_partial = options.allow_partial;
    wide.max_message_bytes = size_t{1} << 30;
    Message again;
    Require(codec.Decode(nullptr, direction, out, wide, again).status == Status::kMessage);
    Require(again.length == out.size() + missing);
    Require(again.id == 77);
    Require(again.kind == message.kind);
    Require(again.status == message.status);
    Require(again.reply_name == message.reply_name);
  }
  if (message.kind != MessageKind::kRequest) return;
  for (size_t i = 0; i < kLocalReplyCount; ++i) {
    std::string out;
    Require(codec.Reply({message.id, message.tag, std::string(message.reply_name)},
                        static_cast<LocalReply>(i), "text", out));
    Message reply;
    Require(codec.Decode(nullptr, Direction::kResponse, out, {}, reply).status == Status::kMessage);
    Require(reply.length == out.size());
    Require(reply.id == (message.id & UINT32_MAX));
  }
}

}  // namespace
}  // namespace metaprotocol::thrift

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace metaprotocol;
  using namespace metaprotocol::thrift;
  if (size < 2) return 0;
  const Direction direction = data[0] & 1 ? Direction::kResponse : Direction::kRequest;
  DecodeOptions options;
  options.allow_partial = data[0] & 2;
  options.max_message_bytes = data[0] & 4 ? 4096 : size_t{16} << 20;
  const size_t step = data[1] % 64 + 1;
  const Bytes bytes(reinterpret_cast<const char*>(data) + 2, size - 2);

  const Run at_once = Decode(direction, bytes, options, bytes.size() + 1, false);
  const Run in_steps = Decode(direction, bytes, options, step, true);
  const Run forgetful = Decode(direction, bytes, options, step * 16, false);
  for (const Run* other : {&in_steps, &forgetful}) {
    // What is both broken and too large may be found to be either first.
    if (IsRefused(other->result) && IsRefused(at_once.result)) continue;
    Require(other->result.status == at_once.result.status);
    if (at_once.result.status == Status::kNeedMore) continue;
    Require(other->message.kind == at_once.message.kind);
    Require(other->message.id == at_once.message.id);
    Require(other->message.tag == at_once.message.tag);
    Require(other->message.status == at_once.message.status);
  }
  if (at_once.result.status == Status::kMessage) CheckEncode(direction, bytes, options);
  return 0;
}
