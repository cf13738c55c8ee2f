// The head of a Thrift message: what stands before the arguments or the result. The same in every
// transport, so transports hand in where it begins.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "codecs/thrift/dialect.h"
#include "codecs/thrift/wire.h"
#include "src/codec/codec.h"

namespace metaprotocol::thrift {

struct MessageHead {
  MessageType type = MessageType::kUnknown;
  bool bad_type = false;    // there is a type, and it is none
  std::string_view name;    // as on the wire, "service:method" if multiplexed
  std::string_view method;  // MethodOf(name)
  uint32_t id = 0;          // sequence id
  size_t id_offset = 0;     // where it lies
  size_t body_offset = 0;   // where the struct of arguments or results begins
};

// Reads a head at `cursor`. On failure `head` holds what was read before it: `name` and `method`
// are
// "" and `body_offset` is 0 as long as they are not known.
DecodeResult ReadMessageHead(Protocol protocol, Cursor& cursor, MessageHead& head);

// Whether the result struct at `cursor` (just behind the head of a kReply) begins with an exception
// that the method declares: a first field other than 0. Void results have no field at all.
DecodeResult ReadIsDeclaredException(Protocol protocol, Cursor& cursor, bool& is_exception);

// The type of the TApplicationException at `cursor` (just behind the head of a kException); 0,
// which means "unknown", if that is not there to its end.
int32_t ReadExceptionType(Protocol protocol, Cursor& cursor);

// The method in "service:method"; the whole of a name that is not multiplexed.
std::string_view MethodOf(std::string_view name);

// Whether all servers make the same service and method of a name.
bool IsUnequivocal(std::string_view name);

// Appends a head, for messages of our own.
void AppendMessageHead(Protocol protocol, MessageType type, std::string_view name, uint32_t id,
                       std::string& out);

}  // namespace metaprotocol::thrift
