// A request as a value: what was decoded of it, and the bytes it was decoded from.
#pragma once

#include <string>
#include <utility>

#include "src/codec/codec.h"

namespace metaprotocol {

// In somebody else's buffer: good for the call it is passed to.
struct RequestView {
  Message& message;
  Bytes bytes;          // of the message, what is there of it
  bool arrived = true;  // what is not there comes within the present event

  bool whole() const { return bytes.size() >= message.length; }
};

// A whole message with its bytes, for those who have to wait. Takes the message away from who read
// it, and copies the bytes.
class HeldMessage {
 public:
  HeldMessage(Message& message, Bytes bytes)
      : bytes_(bytes.substr(0, message.length)), message_(std::exchange(message, Message())) {
    message_.Rebase(bytes, bytes_.data());
  }
  HeldMessage(const HeldMessage&) = delete;  // `message_` points into `bytes_`
  HeldMessage& operator=(const HeldMessage&) = delete;

  Message& message() { return message_; }
  Bytes bytes() const { return bytes_; }

 private:
  std::string bytes_;
  Message message_;
};

class HeldRequest : public HeldMessage {
 public:
  explicit HeldRequest(const RequestView& request) : HeldMessage(request.message, request.bytes) {}

  RequestView view() { return {message(), bytes()}; }
};

}  // namespace metaprotocol
