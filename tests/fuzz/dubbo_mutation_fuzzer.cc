// Well-formed Dubbo requests with mutations: after encoding, decoding must show exactly the
// attachments that the mutation done plainly gives, and every other byte unchanged.
//
// The input drives a generator of Hessian values, so that nearly all messages decode.
#include <fuzzer/FuzzedDataProvider.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "tests/cpp/codecs/dubbo/round_trip.h"

namespace {

using namespace metaprotocol;
using namespace metaprotocol::dubbo;

// Writes values as the Hessian grammar allows them, keeping count of what may be referred to.
class Generator {
 public:
  explicit Generator(FuzzedDataProvider& data) : data_(data) {}

  std::string Key() {
    static const char* const kKeys[] = {"group", "user", "path", "é😀", "version", ""};
    return data_.ConsumeBool() ? data_.PickValueInArray(kKeys) : data_.ConsumeRandomLengthString(8);
  }

  std::string Text() {
    std::string text = data_.ConsumeRandomLengthString(40);
    if (data_.ConsumeIntegralInRange(0, 15) == 0) {
      const size_t times = data_.ConsumeIntegralInRange<size_t>(0, 40000);
      text = std::string(times, 'x') + text;
    }
    return text;
  }

  void String(std::string& out, std::string_view text) {
    if (data_.ConsumeIntegralInRange(0, 7) == 0) {  // needlessly chunked, as some writers do
      const size_t cut = data_.ConsumeIntegralInRange<size_t>(0, text.size());
      std::string first;
      AppendHessianString(first, text.substr(0, cut));
      if (first.size() > 1 && static_cast<uint8_t>(first[0]) <= 0x1f) {
        out += 'R';
        out += '\0';
        out += first;
        AppendHessianString(out, text.substr(cut));
        return;
      }
    }
    AppendHessianString(out, text);
  }

  void Value(std::string& out, int depth) {
    switch (depth > 6 ? 0 : data_.ConsumeIntegralInRange(0, 11)) {
      case 0:
        out += 'N';
        return;
      case 1:
        out += static_cast<char>(data_.ConsumeIntegralInRange(0x80, 0xbf));
        return;
      case 2:
        String(out, Text());
        return;
      case 3:
        out += 'D';
        out.append(8, data_.ConsumeIntegral<char>());
        return;
      case 4: {
        const std::string blob = data_.ConsumeRandomLengthString(300);
        out += 'B';
        AppendBe16(out, static_cast<uint16_t>(blob.size()));
        out += blob;
        return;
      }
      case 5: {
        const int count = data_.ConsumeIntegralInRange(0, 7);
        out += static_cast<char>(0x78 + count);
        for (int i = 0; i < count; ++i) Value(out, depth + 1);
        return;
      }
      case 6: {
        out += 0x55;
        String(out, "[int");
        for (int i = data_.ConsumeIntegralInRange(0, 5); i > 0; --i) Value(out, depth + 1);
        out += 'Z';
        return;
      }
      case 7: {
        out += 'H';
        for (int i = data_.ConsumeIntegralInRange(0, 5); i > 0; --i) {
          Value(out, depth + 1);
          Value(out, depth + 1);
        }
        out += 'Z';
        return;
      }
      case 8: {
        const int fields = data_.ConsumeIntegralInRange(0, 5);
        out += 'C';
        String(out, "demo.Pojo");
        out += static_cast<char>(0x90 + fields);
        for (int i = 0; i < fields; ++i) String(out, "f");
        if (classes_.size() < 16) {
          out += static_cast<char>(0x60 + classes_.size());
        } else {
          out += 'I';
          AppendBe32(out, static_cast<uint32_t>(classes_.size()));
          out[out.size() - 5] = 'O';
          out.insert(out.size() - 4, 1, 'I');
        }
        classes_.push_back(fields);
        for (int i = 0; i < fields; ++i) Value(out, depth + 1);
        return;
      }
      case 9: {
        if (classes_.empty()) {
          out += 'T';
          return;
        }
        const size_t index =
            data_.ConsumeIntegralInRange<size_t>(0, std::min<size_t>(classes_.size(), 16) - 1);
        out += static_cast<char>(0x60 + index);
        for (int i = classes_[index]; i > 0; --i) Value(out, depth + 1);
        return;
      }
      case 10:
        out += 'Q';
        out += static_cast<char>(data_.ConsumeIntegralInRange(0x90, 0xbf));
        return;
      default:
        out += 0x4a;
        out.append(8, data_.ConsumeIntegral<char>());
        return;
    }
  }

 private:
  FuzzedDataProvider& data_;
  std::vector<int> classes_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  static const DubboCodec codec;
  FuzzedDataProvider data(bytes, size);
  Generator generator(data);

  std::string body;
  for (const char* text : {"2.0.2", "org.Demo", "1.0", "hello"}) generator.String(body, text);
  const int arguments = data.ConsumeIntegralInRange(0, 4);
  generator.String(body, std::string(static_cast<size_t>(arguments), 'I'));
  for (int i = 0; i < arguments; ++i) generator.Value(body, 0);
  const int attachments = data.ConsumeIntegralInRange(0, 9);
  if (attachments == 8) {
    body += 'N';
  } else if (attachments != 9) {
    if (data.ConsumeBool()) {
      body += 'M';
      generator.String(body, "java.util.HashMap");
    } else {
      body += 'H';
    }
    for (int i = 0; i < attachments; ++i) {
      if (data.ConsumeIntegralInRange(0, 9) == 0) {
        generator.Value(body, 0);
      } else {
        generator.String(body, generator.Key());
      }
      generator.Value(body, 0);
    }
    body += 'Z';
    body += data.ConsumeRandomLengthString(4);
  }

  std::string frame;
  AppendHeader(frame, {static_cast<uint8_t>(kFlagRequest | kFlagTwoWay | 2), 0,
                       data.ConsumeIntegral<uint64_t>(), body.size()});
  frame += body;

  Mutation mutation;
  for (int i = data.ConsumeIntegralInRange(0, 5); i > 0; --i) {
    std::string key;  // configuration is always UTF-8
    const std::string any_key = generator.Key();
    for (Utf8Iterator it(any_key); !it.Done();) AppendUtf8(key, it.Next());
    mutation.push_back(
        {data.PickValueInArray(
             {MutationOp::Kind::kSet, MutationOp::Kind::kAddIfAbsent, MutationOp::Kind::kRemove}),
         key, generator.Text()});
  }
  if (const Violation violation = CheckRequestRoundTrip(codec, frame, mutation)) {
    std::fprintf(stderr, "%s\n", violation->c_str());
    std::abort();
  }
  return 0;
}
