// What a peer may send at worst costs what its bytes cost, in every protocol: the densest messages
// that there are, and messages that come byte by byte.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "codecs/brpc/brpc_codec.h"
#include "codecs/dubbo/dubbo_codec.h"
#include "codecs/thrift/thrift_codec.h"
#include "codecs/trpc/trpc_codec.h"
#include "tests/cpp/codecs/declared/declarations.h"
#include "tests/cpp/codecs/thrift/messages.h"
#include "tests/cpp/support/cpu_time.h"
#include "tests/cpp/support/proto_fields.h"

namespace metaprotocol {
namespace {

using test::proto::Entry;
using test::proto::Number;
using test::proto::Text;

std::string Repeated(std::string_view unit, size_t bytes) {
  std::string all;
  all.reserve(bytes + unit.size());
  while (all.size() < bytes) all += unit;
  return all;
}

std::string BrpcFrame(const std::string& meta) {
  std::string frame = "PRPC";
  AppendBe32(frame, static_cast<uint32_t>(meta.size()));
  AppendBe32(frame, static_cast<uint32_t>(meta.size()));
  return frame + meta;
}
std::string BrpcCall(const std::string& more) {
  return BrpcFrame(Text(1, Text(1, "a.Service") + Text(2, "Echo")) + Number(4, 7) + more);
}

std::string TrpcCall(const std::string& more) {
  const std::string head = Number(3, 7) + Text(7, "/a.Greeter/Say") + more;
  std::string frame = "\x09\x30";
  frame += std::string(2, '\0');
  AppendBe32(frame, static_cast<uint32_t>(16 + head.size()));
  AppendBe16(frame, static_cast<uint16_t>(head.size()));
  AppendBe32(frame, 7);
  return frame + std::string(1, '\1') + '\0' + head;
}

std::string DubboFrame(const std::string& body) {
  std::string frame = {'\xda', '\xbb', '\xc2', '\0'};
  AppendBe64(frame, 7);
  AppendBe32(frame, static_cast<uint32_t>(body.size()));
  return frame + body;
}

std::string ThriftStruct(const std::string& fields) { return fields + '\0'; }

// Kinds of messages that get as large as they are asked to be.
struct Worst {
  std::string what;
  std::shared_ptr<const Codec> codec;
  std::function<std::string(size_t)> make;
  size_t few = size_t{16} << 10;
};

std::vector<Worst> AllOfThem() {
  const auto brpc = brpc::CreateBrpcCodec("").codec;
  const auto trpc = trpc::CreateTrpcCodec("").codec;
  const auto thrift = thrift::CreateThriftCodec("").codec;
  const auto dubbo = dubbo::CreateDubboCodec("").codec;
  const auto acme = declared::Make(declared::kAcme);
  std::vector<Worst> all;
  const auto add = [&all](std::string what, const std::shared_ptr<const Codec>& codec,
                          std::function<std::string(size_t)> make) {
    all.push_back({std::move(what), codec, std::move(make)});
  };

  for (const std::string& entry :
       {Entry(9, "tenant", "x"), Entry(9, "x", ""), Entry(9, "TENANT", ""), Text(9, ""),
        Number(30, 1), Number(4, 7)}) {
    add("bRPC, its meta full of " + testing::PrintToString(entry), brpc,
        [entry](size_t bytes) { return BrpcCall(Repeated(entry, bytes)); });
  }
  add("bRPC, entries of the request", brpc, [](size_t bytes) {
    return BrpcFrame(
        Text(1, Text(1, "a.Service") + Text(2, "Echo") + Repeated(Entry(7, "tenant", "x"), bytes)));
  });
  for (const std::string& entry : {Entry(9, "tenant", "x"), Entry(9, "x", ""), Number(30, 1)}) {
    add("tRPC, its head full of " + testing::PrintToString(entry), trpc,
        [entry](size_t bytes) { return TrpcCall(Repeated(entry, bytes)); });
    all.back().few = 3 << 10;  // a head has 65,535 bytes at most
  }

  const auto binary = [](const std::string& fields) {
    return thrift::Binary(thrift::kCall, "m", 7, ThriftStruct(fields));
  };
  const auto compact = [](const std::string& fields) {
    return thrift::Compact(thrift::kCall, "m", 7, ThriftStruct(fields));
  };
  for (const bool framed : {false, true}) {
    const std::string how = framed ? "Thrift, framed, " : "Thrift, ";
    const auto wrapped = [framed](const std::string& message) {
      return framed ? thrift::Framed(message) : message;
    };
    add(how + "binary, fields without end", thrift, [=](size_t bytes) {
      return wrapped(binary(Repeated(std::string("\x02\0\1\1", 4), bytes)));
    });
    add(how + "binary, empty structs", thrift, [=](size_t bytes) {
      return wrapped(binary(Repeated(std::string("\x0c\0\1\0", 4), bytes)));
    });
    add(how + "binary, a list of empty structs", thrift, [=](size_t bytes) {
      return wrapped(binary(std::string("\x0f\0\1\x0c", 4) +
                            thrift::Be32(static_cast<uint32_t>(bytes)) + std::string(bytes, '\0')));
    });
    add(how + "binary, empty lists", thrift, [=](size_t bytes) {
      return wrapped(binary(Repeated(std::string("\x0f\0\1\x02\0\0\0\0", 8), bytes)));
    });
    add(how + "compact, booleans", thrift,
        [=](size_t bytes) { return wrapped(compact(Repeated("\x11", bytes))); });
    add(how + "compact, a list of booleans", thrift, [=](size_t bytes) {
      return wrapped(compact("\x19\xf1" + thrift::Varint(static_cast<uint32_t>(bytes)) +
                             std::string(bytes, '\1')));
    });
    add(how + "compact, empty maps", thrift,
        [=](size_t bytes) { return wrapped(compact(Repeated(std::string("\x1b\0", 2), bytes))); });
  }

  const auto call = [](const std::string& arguments) {
    std::string body;
    for (const std::string_view text : {"2.0.2", "a.Service", "0", "m", "Ljava/util/Map;"}) {
      body += static_cast<char>(text.size());
      body += text;
    }
    return DubboFrame(body + arguments + "HZ");
  };
  add("Dubbo, a list of nothing", dubbo,
      [=](size_t bytes) { return call("W" + std::string(bytes, 'N') + "Z"); });
  add("Dubbo, a map of nothing", dubbo,
      [=](size_t bytes) { return call("H" + Repeated("NN", bytes) + "Z"); });
  add("Dubbo, references", dubbo,
      [=](size_t bytes) { return call("W" + Repeated(std::string("Q\x90", 2), bytes) + "Z"); });
  add("Dubbo, empty chunks", dubbo, [=](size_t bytes) {
    return call("W" + Repeated(std::string("R\0\0", 3), bytes) + std::string(1, '\0') + "Z");
  });

  add("declared, entries", acme, [](size_t bytes) {
    std::vector<std::pair<std::string, std::string>> entries(std::min<size_t>(bytes, 60000) / 4,
                                                             {"x", ""});
    return declared::AcmeRequest(7, "shop", "get", entries);
  });
  all.back().few = 3 << 10;  // two bytes say how long they are together
  return all;
}

DecodeResult DecodeOf(const Codec& codec, const MetadataKeys& keys, DecodeState* state, Bytes bytes,
                      Message& message) {
  DecodeOptions options;
  options.interest = codec.InterestIn(keys);
  message.Clear(&keys);
  return codec.Decode(state, Direction::kRequest, bytes, options, message);
}

MetadataKeys Wanted(const Codec& codec) {
  MetadataKeys keys(codec.traits().metadata_keys);
  for (const char* const key : {"tenant", "x", "Tenant"}) keys.Want(key);
  for (const std::string_view key : codec.traits().metadata_keys) keys.Want(std::string(key));
  return keys;
}

TEST(HostileBytes, TheDensestMessageCostsWhatItsBytesCost) {
  for (const Worst& worst : AllOfThem()) {
    ASSERT_NE(worst.codec, nullptr);
    const MetadataKeys keys = Wanted(*worst.codec);
    const Mutation mutation = {{MutationOp::Kind::kSet, "tenant", "y"},
                               {MutationOp::Kind::kRemove, "x", ""}};
    const auto passing = [&](size_t bytes) {
      return [&, wire = worst.make(bytes)] {
        Message message;
        const auto state = worst.codec->NewDecodeState(Direction::kRequest);
        const DecodeResult result = DecodeOf(*worst.codec, keys, state.get(), wire, message);
        ASSERT_EQ(result.status, DecodeResult::Status::kMessage) << worst.what;
        std::string out;
        worst.codec->Encode(message, Bytes(wire).substr(0, message.length),
                            {.id = 9, .mutation = mutation}, out);
      };
    };
    EXPECT_LT(test::GrowthOfUnitCost(worst.few, passing), test::kLinear) << worst.what;
  }
}

// As whoever reads a connection does: only when as many bytes are there as the codec wanted. What a
// byte may be looked at again is bounded, however the message is made.
TEST(HostileBytes, WhatComesByteByByteIsNotReadAnewForEach) {
  for (const Worst& worst : AllOfThem()) {
    const MetadataKeys keys = Wanted(*worst.codec);
    const auto trickling = [&](size_t bytes) {
      return [&, wire = worst.make(bytes)] {
        Message message;
        const auto state = worst.codec->NewDecodeState(Direction::kRequest);
        size_t there = 1;
        while (there <= wire.size()) {
          const DecodeResult result =
              DecodeOf(*worst.codec, keys, state.get(), Bytes(wire).substr(0, there), message);
          if (result.status != DecodeResult::Status::kNeedMore) return;
          ASSERT_GT(result.need, there) << worst.what;
          there = result.need;
        }
      };
    };
    EXPECT_LT(test::GrowthOfUnitCost(std::min<size_t>(worst.few, 4 << 10), trickling),
              test::kLinear)
        << worst.what;
  }
}

}  // namespace
}  // namespace metaprotocol
