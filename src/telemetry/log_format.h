// How a line of an access log looks: Envoy's format strings, compiled.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/codec/metadata_keys.h"
#include "src/telemetry/request_record.h"

namespace metaprotocol {

// One format string: literal texts and operators.
class LogTemplate {
 public:
  // What is wrong with it in `error`, "" if nothing. The keys that it shows are recorded from then
  // on.
  static LogTemplate Compile(std::string_view format, RecordedKeys& recorded, MetadataKeys& keys,
                             std::string& error);

  // Appends it as text on one line: of what peers have sent, quotes, backslashes and what acts
  // where it is shown are escaped, and bytes that are not UTF-8.
  void WriteText(const EndedRequest& request, std::string& out) const;
  // Appends it as one value of JSON.
  void WriteJson(const EndedRequest& request, std::string& out) const;
  // Appends it as OTLP's AnyValue; nothing if it is an operator alone that has no value.
  void WriteAnyValue(const EndedRequest& request, std::string& out) const;

 private:
  enum class Operator : uint8_t {
    kText,
    kRecorded,  // the first of `places` that has a value
    kTraceId,   // likewise, cut out of it
    kRemoteAddress,
    kLocalAddress,
    kProtocol,
    kRouteName,
    kCode,
    kDetails,
    kFlags,
    kReason,
    kHost,
    kCluster,
    kStartTime,
    // What follows are numbers.
    kBytesReceived,
    kBytesSent,
    kAttempts,
    kDuration,
    kResponseDuration,
    kUpstreamDuration,
    kResponseTxDuration,
  };
  struct Part {
    Operator op = Operator::kText;
    std::string text = {};            // kText
    std::vector<size_t> places = {};  // in the record
    size_t most = std::numeric_limits<size_t>::max();
  };
  struct Named {
    std::string_view name;
    Operator op;
    std::vector<std::string_view> keys = {};
  };

  static const std::vector<Named>& Operators();
  static bool IsNumber(Operator op) { return op >= Operator::kBytesReceived; }
  static std::optional<uint64_t> Number(Operator op, const EndedRequest& request);
  // An operator and nothing else.
  bool alone() const { return parts_.size() == 1 && parts_[0].op != Operator::kText; }
  // All of it, "-" for what has no value; nothing if it is an operator alone without one.
  std::optional<std::string> Whole(const EndedRequest& request) const;
  // Appends its value as it is; false: there is none.
  static bool Value(const Part& part, const EndedRequest& request, std::string& out);

  std::vector<Part> parts_;
};

class LogFormat {
 public:
  static LogFormat Text(LogTemplate line);
  static LogFormat Json(std::vector<std::pair<std::string, LogTemplate>> fields);

  // Appends a line, with its end.
  void Write(const EndedRequest& request, std::string& out) const;
  // Appends a record for a collector: field 2 of OTLP's ScopeLogs. Text is its body, and the fields
  // of an object are its attributes.
  void WriteRecord(const EndedRequest& request, std::string& out) const;

 private:
  // Text: one without name.
  struct Field {
    std::string name;
    std::string before;  // as it stands before the value in a line
    LogTemplate value;
  };

  bool json_ = false;
  std::vector<Field> fields_;
};

}  // namespace metaprotocol
