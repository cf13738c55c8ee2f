// Reading and rewriting the attachments at the end of Dubbo bodies.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "codecs/dubbo/frame.h"
#include "codecs/dubbo/hessian2.h"
#include "src/codec/bytes.h"
#include "src/codec/mutation.h"

namespace metaprotocol::dubbo {

// One entry of a Hessian map, by positions in the stream.
struct HessianEntry {
  HessianString key;
  HessianString value;
  bool string_key = false;
  bool string_value = false;  // null is not a string
  size_t begin = 0;
  size_t value_begin = 0;
  size_t end = 0;
};

bool ReadHessianEntry(Hessian2Reader& reader, HessianEntry& entry);
// The rest of one whose key has been read.
bool ReadHessianValue(Hessian2Reader& reader, HessianEntry& entry);

enum class Rewriting : uint8_t {
  kChanged,
  kNone,        // nothing is to be changed, or the body cannot carry it and need not
  kImpossible,  // it cannot carry what is required
};

// Appends a request body with `mutation` applied to its attachments, every other byte as it was;
// nothing unless that is kChanged. `timeout` stands in place of what the attachments `timeout` and
// `_TO` say, where there are any; empty: no change.
Rewriting RewriteRequestBody(Serialization serialization, Bytes body,
                             std::span<const MutationOp> mutation, std::string_view timeout,
                             std::string& out);

// The same for the body of an OK response, where nothing is required; false: nothing was appended.
// `may_add`: the client is known to understand responses with attachments, so that one without may
// be given some.
bool RewriteResponseBody(Serialization serialization, Bytes body,
                         std::span<const MutationOp> mutation, bool may_add, std::string& out);

}  // namespace metaprotocol::dubbo
