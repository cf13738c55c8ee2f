// Well-formed frames of tRPC, built from the input: calls, replies, and those of streams.
#include <algorithm>

#include "codecs/trpc/trpc_codec.h"
#include "src/codec/bytes.h"
#include "tests/cpp/support/proto_fields.h"
#include "tests/fuzz/structured.h"

namespace {

using namespace metaprotocol;
using test::proto::Entry;
using test::proto::Number;

std::string Frame(int type, int stream_type, uint32_t id, const std::string& head,
                  const std::string& body) {
  std::string out = "\x09\x30";
  out += static_cast<char>(type);
  out += static_cast<char>(stream_type);
  AppendBe32(out, static_cast<uint32_t>(16 + head.size() + body.size()));
  AppendBe16(out, static_cast<uint16_t>(head.size()));
  AppendBe32(out, id);
  return out + '\1' + '\0' + head + body;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const trpc::TrpcCodec kCodec;
  FuzzedDataProvider input(data, size);
  const Mutation mutation = fuzzing::ReadMutation(input);
  fuzzing::Said said;
  const auto id = input.ConsumeIntegralInRange<uint32_t>(0, INT32_MAX);
  const uint32_t stream_id = std::max<uint32_t>(id, 1);  // 0 names none
  said.id = id;
  const std::string func = "/pkg.Service/m" + fuzzing::Text(input, 40);
  std::string wire;
  bool mutable_entries = true;
  switch (input.ConsumeIntegralInRange(0, 3)) {
    case 0: {
      said.entries = fuzzing::ReadEntries(input, 300);
      std::string head = Number(3, id) + test::proto::Text(5, "me") + test::proto::Text(6, "you") +
                         test::proto::Text(7, func);
      said.own = {{"caller", "me"}, {"callee", "you"}, {"func", func}};
      if (const auto timeout = input.ConsumeIntegral<uint16_t>(); timeout != 0) {
        head += Number(4, timeout);
        said.timeout_us = uint64_t{timeout} * 1000;
      }
      for (const auto& [key, value] : said.entries) head += Entry(9, key, value);
      wire = Frame(0, 0, id, head, input.ConsumeRandomLengthString(500));
      break;
    }
    case 1: {
      said.direction = Direction::kResponse;
      said.kind = MessageKind::kResponse;
      said.entries = fuzzing::ReadEntries(input, 300);
      std::string head = Number(3, id) + Number(4, input.ConsumeIntegral<uint16_t>());
      for (const auto& [key, value] : said.entries) head += Entry(8, key, value);
      wire = Frame(0, 0, id, head, input.ConsumeRandomLengthString(500));
      break;
    }
    case 2: {
      said.kind = MessageKind::kStreamOpen;
      said.id = stream_id;
      said.entries = fuzzing::ReadEntries(input, 300);
      std::string meta = test::proto::Text(1, "me") + test::proto::Text(3, func);
      for (const auto& [key, value] : said.entries) meta += Entry(5, key, value);
      said.own = {{"caller", "me"}, {"func", func}};
      wire = Frame(1, 1, stream_id, "", test::proto::Text(1, meta) + Number(3, 65535));
      break;
    }
    default:
      said.kind = MessageKind::kStreamData;
      said.id = stream_id;
      if (input.ConsumeBool()) said.direction = Direction::kResponse;
      mutable_entries = false;
      wire = Frame(1, 2, stream_id, "", input.ConsumeRandomLengthString(500));
  }
  fuzzing::CheckWritten(kCodec, wire, said, mutation, mutable_entries);
  return 0;
}
