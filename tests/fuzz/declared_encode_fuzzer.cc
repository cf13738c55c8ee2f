// Well-formed messages of declared protocols, built from the input: one in binary, one in text.
#include <memory>

#include "tests/cpp/codecs/declared/declarations.h"
#include "tests/fuzz/structured.h"

namespace {

using namespace metaprotocol;

// Without what separates the fields of kLines.
std::string Word(FuzzedDataProvider& input, size_t most) {
  std::string word = fuzzing::Text(input, most);
  std::erase_if(word, [](char c) { return c == '.' || c == ';' || c == '='; });
  return word;
}

void WriteAcme(FuzzedDataProvider& input, fuzzing::Said& said, std::string& wire) {
  said.id = input.ConsumeIntegral<uint64_t>();
  said.entries = fuzzing::ReadEntries(input, 300);
  const std::string service = fuzzing::Text(input, 300);
  const std::string method = fuzzing::Text(input, 300);
  said.own = {{"service", service}, {"method", method}};
  const bool one_way = input.ConsumeBool();
  if (one_way) said.kind = MessageKind::kOneWay;
  wire = declared::AcmeRequest(said.id, service, method, said.entries,
                               input.ConsumeRandomLengthString(500), one_way ? 1 : 0);
}

void WriteLine(FuzzedDataProvider& input, fuzzing::Said& said, std::string& wire) {
  said.id = input.ConsumeIntegralInRange<uint64_t>(0, INT32_MAX);
  const std::string service = "s" + Word(input, 40);
  const std::string method = "m" + Word(input, 40);
  said.own = {{"service", service}, {"method", method}};
  wire = "AX1 " + std::to_string(said.id) + " " + service + "." + method + " ";
  for (auto& [key, value] : said.entries = fuzzing::ReadEntries(input, 40)) {
    std::erase_if(value, [](char c) { return c == ';' || c == '='; });
    if (wire.back() != ' ') wire += ';';
    wire += key + "=" + value;
  }
  wire += " body\n";
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto kAcme = declared::Make(declared::kAcme);
  static const auto kLines = declared::Make(declared::kLines);
  FuzzedDataProvider input(data, size);
  const bool lines = input.ConsumeBool();
  Mutation mutation = fuzzing::ReadMutation(input);
  fuzzing::Said said;
  std::string wire;
  if (lines) {
    // What would end a field cannot be written into it, and is left out.
    for (MutationOp& op : mutation) {
      std::erase_if(op.value, [](char c) { return c == ';' || c == '='; });
    }
    WriteLine(input, said, wire);
  } else {
    WriteAcme(input, said, wire);
  }
  fuzzing::CheckWritten(lines ? *kLines : *kAcme, wire, said, mutation, true);
  return 0;
}
