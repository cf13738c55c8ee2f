// Well-formed Thrift messages of every dialect, built from the input: what was written must be
// read, at every cut, and must survive another id and mutations.
#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "codecs/thrift/message_head.h"
#include "codecs/thrift/thrift_codec.h"
#include "codecs/thrift/wire.h"
#include "src/codec/varint.h"

namespace metaprotocol::thrift {
namespace {

using Status = DecodeResult::Status;
using Pairs = std::vector<std::pair<std::string, std::string>>;

void Require(bool condition) {
  if (!condition) std::abort();
}

// Writes random structs that obey the specification.
class StructWriter {
 public:
  StructWriter(FuzzedDataProvider& input, bool compact) : input_(input), compact_(compact) {}

  // A struct, its stop included.
  void Struct(int depth, std::string& out) {
    for (int fields = input_.ConsumeIntegralInRange(0, 4); fields > 0; --fields) {
      const int type = Type(depth);
      FieldHeader(type, out);
      if (!compact_ || type > 2) Value(type, depth, out);
    }
    out += '\0';
  }

 private:
  // Of field types: binary 2..16, compact 1..13.
  int Type(int depth) {
    static constexpr int kBinary[] = {2, 3, 4, 6, 8, 10, 11, 16, 12, 13, 14, 15};
    static constexpr int kCompact[] = {1, 2, 3, 4, 5, 6, 7, 8, 13, 9, 10, 11, 12};
    const int flat = compact_ ? 8 : 7;
    const int all = compact_ ? 12 : 11;
    const int index = input_.ConsumeIntegralInRange(0, depth > 0 ? all : flat);
    return compact_ ? kCompact[index] : kBinary[index];
  }

  void FieldHeader(int type, std::string& out) {
    const auto id = input_.ConsumeIntegral<uint16_t>();
    if (!compact_) {
      out += static_cast<char>(type);
      AppendBe16(out, id);
    } else if (id % 2 == 0) {
      out += static_cast<char>((id % 15 + 1) << 4 | type);
    } else {
      out += static_cast<char>(type);
      AppendVarint(id, out);
    }
  }

  void Size(size_t n, std::string& out) {
    if (compact_) {
      AppendVarint(static_cast<uint32_t>(n), out);
    } else {
      AppendBe32(out, static_cast<uint32_t>(n));
    }
  }

  void Varint64(std::string& out) {
    auto v = input_.ConsumeIntegral<uint64_t>();
    for (; v >= 0x80; v >>= 7) out += static_cast<char>(v | 0x80);
    out += static_cast<char>(v);
  }

  void Value(int type, int depth, std::string& out) {
    if (compact_) {
      switch (type) {
        case 1:
        case 2:
        case 3:
          out += static_cast<char>(input_.ConsumeIntegral<uint8_t>());
          return;
        case 4:
          AppendVarint(input_.ConsumeIntegral<uint16_t>(), out);
          return;
        case 5:
          AppendVarint(input_.ConsumeIntegral<uint32_t>(), out);
          return;
        case 6:
          Varint64(out);
          return;
        case 7:
          out.append(8, '\x80');
          return;
        case 8:
          String(out);
          return;
        case 9:
        case 10:
          List(depth - 1, out);
          return;
        case 11:
          Map(depth - 1, out);
          return;
        case 12:
          Struct(depth - 1, out);
          return;
        default:
          out.append(16, '\xFF');
          return;
      }
    }
    switch (type) {
      case 2:
      case 3:
        out += static_cast<char>(input_.ConsumeIntegral<uint8_t>());
        return;
      case 6:
        AppendBe16(out, input_.ConsumeIntegral<uint16_t>());
        return;
      case 8:
        AppendBe32(out, input_.ConsumeIntegral<uint32_t>());
        return;
      case 4:
      case 10:
        AppendBe64(out, input_.ConsumeIntegral<uint64_t>());
        return;
      case 11:
        String(out);
        return;
      case 12:
        Struct(depth - 1, out);
        return;
      case 13:
        Map(depth - 1, out);
        return;
      case 14:
      case 15:
        List(depth - 1, out);
        return;
      default:
        out.append(16, '\xFF');
        return;
    }
  }

  void String(std::string& out) {
    const std::string text = input_.ConsumeRandomLengthString(300);
    Size(text.size(), out);
    out += text;
  }

  void List(int depth, std::string& out) {
    const int type = Type(depth);
    const int n = input_.ConsumeIntegralInRange(0, 20);
    if (compact_ && n < 15) {
      out += static_cast<char>(n << 4 | type);
    } else if (compact_) {
      out += static_cast<char>(0xF0 | type);
      Size(n, out);
    } else {
      out += static_cast<char>(type);
      Size(n, out);
    }
    for (int i = 0; i < n; ++i) Value(type, depth, out);
  }

  void Map(int depth, std::string& out) {
    const int key = Type(depth);
    const int value = Type(depth);
    const int n = input_.ConsumeIntegralInRange(0, 20);
    if (!compact_) {
      out += static_cast<char>(key);
      out += static_cast<char>(value);
      Size(n, out);
    } else {
      Size(n, out);
      if (n > 0) out += static_cast<char>(key << 4 | value);
    }
    for (int i = 0; i < n; ++i) {
      Value(key, depth, out);
      Value(value, depth, out);
    }
  }

  FuzzedDataProvider& input_;
  const bool compact_;
};

struct Written {
  Dialect dialect;
  MessageType type = MessageType::kCall;
  std::string service;
  std::string method;
  uint32_t id = 0;
  Pairs headers;
  std::string wire;
};

Written Write(FuzzedDataProvider& input) {
  Written w;
  w.dialect.transport = static_cast<Transport>(input.ConsumeIntegralInRange(1, 3));
  w.dialect.protocol = static_cast<Protocol>(input.ConsumeIntegralInRange(1, 3));
  const bool header = w.dialect.transport == Transport::kHeader;
  if (header && w.dialect.protocol == Protocol::kOldBinary) w.dialect.protocol = Protocol::kBinary;
  const bool compact = w.dialect.protocol == Protocol::kCompact;
  w.type = static_cast<MessageType>(input.ConsumeIntegralInRange(1, 4));
  w.method = "m" + std::string(input.ConsumeIntegralInRange(0, 300), 'x');
  if (input.ConsumeBool()) w.service = "svc";
  w.id = input.ConsumeIntegral<uint32_t>();
  const auto header_id = input.ConsumeBool() ? w.id : input.ConsumeIntegral<uint32_t>();
  if (header) {
    for (int n = input.ConsumeIntegralInRange(0, 6); n > 0; --n) {
      w.headers.emplace_back(input.ConsumeRandomLengthString(20),
                             input.ConsumeRandomLengthString(200));
    }
  }
  std::string message;
  AppendMessageHead(w.dialect.protocol, w.type,
                    w.service.empty() ? w.method : w.service + ":" + w.method, w.id, message);
  StructWriter(input, compact).Struct(5, message);
  if (w.dialect.transport == Transport::kUnframed) {
    w.wire = message;
    return w;
  }
  if (header) {
    std::string infos = {compact ? '\2' : '\0', '\0'};
    if (!w.headers.empty()) {
      infos += '\1';
      AppendVarint(static_cast<uint32_t>(w.headers.size()), infos);
      for (const auto& [key, value] : w.headers) {
        AppendVarint(static_cast<uint32_t>(key.size()), infos);
        infos += key;
        AppendVarint(static_cast<uint32_t>(value.size()), infos);
        infos += value;
      }
    }
    infos.resize((infos.size() + 3) / 4 * 4);
    std::string fixed("\x0F\xFF\0\0", 4);
    AppendBe32(fixed, header_id);
    AppendBe16(fixed, static_cast<uint16_t>(infos.size() / 4));
    message = fixed + infos + message;
  }
  AppendBe32(w.wire, static_cast<uint32_t>(message.size()));
  w.wire += message;
  return w;
}

Direction DirectionOf(const Written& w) {
  const bool call = w.type == MessageType::kCall || w.type == MessageType::kOneWay;
  return call ? Direction::kRequest : Direction::kResponse;
}

// What the peers' dictionaries make of a list of headers, mutated.
std::map<std::string, std::string> Effective(const Pairs& headers, const Mutation& mutation) {
  std::map<std::string, std::string> all;
  for (const auto& [key, value] : headers) all[key] = value;
  for (const MutationOp& op : mutation) {
    switch (op.kind) {
      case MutationOp::Kind::kSet:
        all[op.key] = op.value;
        break;
      case MutationOp::Kind::kAddIfAbsent:
        all.emplace(op.key, op.value);
        break;
      case MutationOp::Kind::kRemove:
        all.erase(op.key);
        break;
    }
  }
  return all;
}

void CheckDecodes(const Written& w, const std::string& wire, uint64_t id,
                  const std::map<std::string, std::string>& headers) {
  static const MetadataKeys kEverything =
      MetadataKeys::Everything(ThriftCodec().traits().metadata_keys);
  const DecodeOptions options{.interest = ThriftCodec().InterestIn(kEverything)};
  Message message;
  message.Clear(&kEverything);
  const DecodeResult result = ThriftCodec().Decode(nullptr, DirectionOf(w), wire, options, message);
  Require(result.status == Status::kMessage);
  Require(message.length == wire.size());
  Require((message.id & UINT32_MAX) == id);
  Require(message.metadata.Find("method") == w.method);
  Require(message.metadata.Find("service").value_or(w.service) == w.service);
  Require(message.metadata.Find("transport") == TransportName(w.dialect.transport));
  Require(message.metadata.Find("protocol") == ProtocolName(w.dialect.protocol));
  for (const auto& [key, value] : headers) {
    Require(kEverything.IsOwn(key) || message.metadata.Find(key) == value);
  }
}

void CheckCuts(const Written& w) {
  const ThriftCodec codec;
  const auto state = codec.NewDecodeState(DirectionOf(w));
  size_t n = 0;
  while (n < w.wire.size()) {
    const auto copy = std::make_unique<char[]>(n);
    std::copy_n(w.wire.begin(), n, copy.get());
    Message message;
    const DecodeResult result =
        codec.Decode(state.get(), DirectionOf(w), {copy.get(), n}, {}, message);
    Require(result.status == Status::kNeedMore);
    Require(result.need > n && result.need <= w.wire.size());
    n = w.wire.size() > 2000 ? result.need : n + 1;
  }
  Message message;
  Require(codec.Decode(state.get(), DirectionOf(w), w.wire, {}, message).status ==
          Status::kMessage);
  Require(message.length == w.wire.size());
}

Mutation ReadMutation(FuzzedDataProvider& input, const Pairs& headers) {
  Mutation mutation;
  for (int n = input.ConsumeIntegralInRange(0, 4); n > 0; --n) {
    MutationOp op;
    op.kind = static_cast<MutationOp::Kind>(input.ConsumeIntegralInRange(0, 2));
    op.key = !headers.empty() && input.ConsumeBool() ? headers[0].first
                                                     : input.ConsumeRandomLengthString(20);
    op.value = input.ConsumeRandomLengthString(100);
    mutation.push_back(std::move(op));
  }
  return mutation;
}

void CheckOne(FuzzedDataProvider& input) {
  const uint32_t new_id = input.ConsumeIntegral<uint32_t>();
  const Written w = Write(input);
  CheckDecodes(w, w.wire, w.id, Effective(w.headers, {}));
  CheckCuts(w);

  const ThriftCodec codec;
  Message message;
  Require(codec.Decode(nullptr, DirectionOf(w), w.wire, {}, message).status == Status::kMessage);
  std::string other;
  other += w.wire.substr(codec.Encode(message, w.wire, {.id = new_id}, other).head);
  CheckDecodes(w, other, new_id, Effective(w.headers, {}));

  // With its own id back it is what it was; a response has no second id of its own.
  Message again;
  Require(codec.Decode(nullptr, DirectionOf(w), other, {}, again).status == Status::kMessage);
  std::string back;
  back += other.substr(codec.Encode(again, other, {.id = message.id}, back).head);
  Require(back == w.wire ||
          (DirectionOf(w) == Direction::kResponse && w.dialect.transport == Transport::kHeader));

  const Mutation mutation = ReadMutation(input, w.headers);
  std::string mutated;
  mutated += w.wire.substr(
      codec.Encode(message, w.wire, {.id = new_id, .mutation = mutation}, mutated).head);
  const bool header = w.dialect.transport == Transport::kHeader;
  CheckDecodes(w, mutated, new_id, Effective(w.headers, header ? mutation : Mutation{}));
  Require(header || mutated == other);
}

}  // namespace
}  // namespace metaprotocol::thrift

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzedDataProvider input(data, size);
  metaprotocol::thrift::CheckOne(input);
  return 0;
}
