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

// A whole request with its bytes, for those who have to wait. Takes the message away from who read
// it, and copies the bytes.
class HeldRequest {
 public:
  explicit HeldRequest(const RequestView& request)
      : bytes_(request.bytes.substr(0, request.message.length)),
        message_(std::exchange(request.message, Message())) {
    message_.Rebase(request.bytes, bytes_.data());
  }
  HeldRequest(const HeldRequest&) = delete;  // `message_` points into `bytes_`
  HeldRequest& operator=(const HeldRequest&) = delete;

  RequestView view() { return {message_, bytes_}; }

 private:
  std::string bytes_;
  Message message_;
};

}  // namespace metaprotocol
