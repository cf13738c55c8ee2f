// The messages of Envoy's authorization service (envoy.service.auth.v3), as far as they are needed
// to ask about one request of any protocol.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "src/codec/bytes.h"
#include "src/codec/mutation.h"

namespace metaprotocol {

inline constexpr std::string_view kCheckAuthorization =
    "/envoy.service.auth.v3.Authorization/Check";

// Writes a CheckRequest. What is no UTF-8 is told with "?" in place of its bytes, since services
// refuse messages whose strings are not.
class CheckRequestWriter {
 public:
  void SetSource(std::string_view address, std::string_view principal);
  void SetDestination(std::string_view address, uint32_t port);
  // What is called: http.path is "/service/method", as in gRPC, and http.method the method.
  void SetCalled(std::string_view service, std::string_view method);
  void SetProtocol(std::string_view protocol);
  // An entry of http.headers. Of one key the first counts.
  void AddMetadata(std::string_view key, std::string_view value);
  // Its whole length, and the first bytes of it.
  void SetMessage(size_t length, Bytes first);
  void AddContext(std::string_view key, std::string_view value);
  std::string Finish() const;

 private:
  std::string source_;
  std::string destination_;
  std::string http_;
  std::string context_;
};

struct CheckVerdict {
  enum class Kind : uint8_t {
    kNone,  // no verdict, or no CheckResponse
    kAllowed,
    kDenied,
  };
  Kind kind = Kind::kNone;
  std::string text;  // kDenied: what the service says of it, if anything; cut off where it is long
  Mutation changes;  // kAllowed: in the request's metadata
};

// Most changes of one verdict: one with more is none.
inline constexpr size_t kMostCheckChanges = 64;
inline constexpr size_t kMostDenialText = 256;

// A CheckResponse. It allows only if it says so: with a status, which is OK, or with an
// ok_response, and without any of the others.
CheckVerdict ReadCheckResponse(Bytes message);

}  // namespace metaprotocol
