// What every request body begins with, read without touching the arguments.
//
// Source: org.apache.dubbo.rpc.protocol.dubbo.DubboCodec.encodeRequestData.
#pragma once

#include <cstddef>

#include "codecs/dubbo/hessian2.h"
#include "codecs/dubbo/json_values.h"
#include "codecs/dubbo/jsonb.h"
#include "src/codec/bytes.h"

namespace metaprotocol::dubbo {

// The strings in the order in which they come.
enum HeadField : size_t {
  kDubboVersion,
  kPath,
  kServiceVersion,
  kMethod,
  kParameterTypes,
  kHeadFields,
};

struct HessianRequestHead {
  std::array<HessianString, kHeadFields> fields;
  // Only known once all fields are read.
  size_t arguments = 0;
};

// Reads the fields from `first` on that come before `end`; false leaves the reason in `reader` (or,
// where `error` is set, in that). Understands Dubbox, which has an int before the parameter types,
// or instead of them.
bool ReadHessianHead(Hessian2Reader& reader, size_t first, size_t end, HessianRequestHead& head,
                     std::string_view& error);

struct JsonRequestHead {
  std::array<Bytes, kHeadFields> fields;  // JSON tokens
  size_t arguments = 0;
};

// The same for JSON; false with an empty `error` means that the values ran out.
bool ReadJsonHead(JsonValues& values, size_t first, size_t end, JsonRequestHead& head,
                  std::string_view& error);

struct JsonbRequestHead {
  std::array<Bytes, kHeadFields> fields;  // documents
  size_t arguments = 0;
};

// The same for JSONB.
bool ReadJsonbHead(JsonbValues& values, size_t first, size_t end, JsonbRequestHead& head,
                   std::string_view& error);

// How many types a JVM parameter descriptor such as "Ljava/lang/String;[I" lists; false if it is
// none.
bool CountArguments(std::string_view descriptor, size_t& count);

}  // namespace metaprotocol::dubbo
