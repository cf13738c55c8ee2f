// Well-formed messages of bRPC, built from the input.
#include "codecs/brpc/brpc_codec.h"
#include "src/codec/bytes.h"
#include "tests/cpp/support/proto_fields.h"
#include "tests/fuzz/structured.h"

namespace {

using namespace metaprotocol;
using test::proto::Entry;
using test::proto::Number;

std::string Frame(const std::string& meta, const std::string& body) {
  std::string out = "PRPC";
  AppendBe32(out, static_cast<uint32_t>(meta.size() + body.size()));
  AppendBe32(out, static_cast<uint32_t>(meta.size()));
  return out + meta + body;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const brpc::BrpcCodec kCodec;
  FuzzedDataProvider input(data, size);
  const Mutation mutation = fuzzing::ReadMutation(input);
  fuzzing::Said said;
  said.entries = fuzzing::ReadEntries(input, 300);
  said.id = input.ConsumeIntegral<uint64_t>() >> 1;
  std::string fields;
  for (const auto& [key, value] : said.entries) fields += Entry(9, key, value);
  std::string meta;
  const bool id_first = input.ConsumeBool();
  if (id_first) meta = Number(4, said.id);
  if (input.ConsumeBool()) {
    const std::string method = "m" + fuzzing::Text(input, 40);
    std::string request = test::proto::Text(1, "pkg.Service") + test::proto::Text(2, method);
    const size_t dot = method.rfind('.');
    said.own = {{"service", "pkg.Service"}, {"method", method}};
    if (dot != std::string::npos) {
      said.own = {{"service", "pkg.Service." + method.substr(0, dot)},
                  {"method", method.substr(dot + 1)}};
    }
    if (input.ConsumeBool()) {
      const auto log_id = input.ConsumeIntegralInRange<int64_t>(0, INT64_MAX);
      request += Number(3, static_cast<uint64_t>(log_id));
      said.own.emplace_back("log_id", std::to_string(log_id));
    }
    if (input.ConsumeBool()) {
      const uint64_t timeout = input.ConsumeIntegralInRange<uint64_t>(1, INT32_MAX);
      request += Number(8, timeout);
      said.timeout_us = timeout * 1000;
    }
    meta += test::proto::Text(1, request);
  } else {
    said.direction = Direction::kResponse;
    said.kind = MessageKind::kResponse;
    const auto code = input.ConsumeIntegralInRange<uint64_t>(0, INT32_MAX);
    meta += test::proto::Text(2, Number(1, code) + test::proto::Text(2, "text"));
  }
  if (!id_first) meta += Number(4, said.id);
  meta += fields;
  const std::string wire = Frame(meta, input.ConsumeRandomLengthString(500));
  fuzzing::CheckWritten(kCodec, wire, said, mutation, true);
  return 0;
}
