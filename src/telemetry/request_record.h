// What is kept of a request for the time after it, when its bytes are gone: only where something is
// told of ended requests, and bounded for each of them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/codec/called_keys.h"
#include "src/codec/codec.h"
#include "src/route/match_input.h"
#include "src/telemetry/trace_context.h"

namespace metaprotocol {

// "ok", "exception" or "error".
std::string_view ReplyStatusText(ReplyStatus status);

// The keys that somebody wants to see when a request has ended, each once. Made while a
// configuration is loaded.
class RecordedKeys {
 public:
  // The place of the key's value in records.
  size_t Want(std::string_view name, MetadataKeys& keys);
  std::vector<size_t> Want(std::span<const std::string_view> names, MetadataKeys& keys);
  size_t size() const { return keys_.size(); }
  const KeyRef& at(size_t place) const { return keys_[place]; }

 private:
  std::vector<KeyRef> keys_;
};

class RequestRecord {
 public:
  // Of one value, and of all values of a request: what is beyond is cut off, since a request may
  // stay for long.
  static constexpr size_t kMostValueBytes = 1024;
  static constexpr size_t kMostBytes = 4096;
  static constexpr size_t kMostReasonBytes = 256;

  // Begins anew, with the request's values of `keys`.
  void Begin(const RecordedKeys& keys, const MatchInput& input);

  std::optional<std::string_view> value(size_t place) const {
    const Value& value = values_[place];
    if (!value.present) return std::nullopt;
    return std::string_view(text_).substr(value.begin, value.size);
  }
  std::string_view remote() const { return std::string_view(text_).substr(remote_begin_); }
  // Another value, before SetRemote.
  void Replace(size_t place, std::string_view value);
  // The client's address and port: behind all values.
  void SetRemote(std::string_view address, uint32_t port);
  bool leaves_span() const { return trace && trace->leaves_span; }
  std::string_view reason() const { return reason_; }
  // Why the proxy has answered.
  void SetReason(std::string_view text) { reason_.assign(text.substr(0, kMostReasonBytes)); }

  // By the bits of the logs that want to know of its end.
  uint64_t wanted = 0;
  std::optional<TraceStart> trace;  // nothing: its trace is no affair of ours
  uint64_t sent_us = 0;             // when the last attempt began; 0: none has
  uint64_t first_byte_us = 0;       // when the reply's head came; 0: it has not
  bool by_filter = false;           // the proxy's reply is a filter's
  bool connected = false;           // some of the request was sent to a server
  bool delayed = false;             // a fault filter made it wait
  std::string host_workload;        // HostInfo::workload of the host that was tried last

  // An attempt after which there was to be another one.
  struct FailedAttempt {
    std::string host;  // "" if none was tried
    uint64_t began_us;
    uint64_t ended_us;
    std::string_view why;  // static
  };
  std::vector<FailedAttempt> failed_attempts;  // in order; kept only for requests that leave a span

 private:
  struct Value {
    uint32_t begin;
    uint32_t size;
    bool present;
  };
  std::vector<Value> values_;
  std::string text_;
  size_t remote_begin_ = 0;
  std::string reason_;
};

// How a request ended, for those who tell of it.
struct EndedRequest {
  const RequestRecord& record;
  std::string_view protocol = {};
  std::string_view route = {};    // "" if none was found
  std::string_view cluster = {};  // "" if none was chosen
  std::string_view host = {};     // "" if none was tried
  bool replied = false;           // with a server's reply
  bool answered = false;          // with a reply of the proxy's own
  bool client_gone = false;
  ReplyStatus status = ReplyStatus::kOk;      // replied
  LocalReply reply = LocalReply::kNoContent;  // answered
  size_t request_bytes = 0;
  size_t response_bytes = 0;
  uint64_t started_us = 0;
  uint64_t ended_us = 0;
  uint64_t ended_unix_us = 0;  // the same on the calendar's clock
  uint32_t attempts = 0;

  // Whether there was a good end: a good reply, or none expected and the request sent.
  bool failed() const {
    if (client_gone) return true;
    if (answered) return reply != LocalReply::kNoContent;
    return replied && status != ReplyStatus::kOk;
  }
  // "ok", "exception" or "error"; "" if there is no reply.
  std::string_view code() const;
  // What HTTP would answer: Istio's dashboards count by such codes.
  std::string_view http_code() const;
  // "via_upstream", or a short name of why the proxy has answered; "" if there is no reply.
  std::string_view details() const;
  // Envoy's flags; "" if there is nothing to say.
  std::string_view flags() const;
};

}  // namespace metaprotocol
