// OpenTelemetry's protocol, by hand: what spans and lines of access logs have in common.
// https://github.com/open-telemetry/opentelemetry-proto.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "src/codec/bytes.h"

namespace metaprotocol {

enum class OtlpSignal : uint8_t { kSpans, kLogs };

// Who gets records of a kind, and whom they are of.
struct OtlpTarget {
  OtlpSignal signal = OtlpSignal::kSpans;
  std::string cluster;       // of the collector
  std::string service_name;  // of the proxy

  friend auto operator<=>(const OtlpTarget&, const OtlpTarget&) = default;
};

// The method that takes ExportRequests of that kind.
std::string_view ExportMethod(OtlpSignal signal);
// `records`: fields 2 of ScopeSpans or ScopeLogs, as WriteSpan and WriteLogRecord append them.
std::string ExportRequest(std::string_view service_name, std::string_view records);
// How many of the records their receiver has not taken, by its answer.
uint64_t RejectedRecords(Bytes response);

// A field of the type KeyValue.
void AppendOtlpText(std::string& out, uint32_t field, std::string_view name,
                    std::string_view value);
void AppendOtlpNumber(std::string& out, uint32_t field, std::string_view name, uint64_t value);
// `any_value`: a message AnyValue.
void AppendOtlpAttribute(std::string& out, uint32_t field, std::string_view name,
                         std::string_view any_value);
// What are ids there.
std::string BigEndian(uint64_t number);

}  // namespace metaprotocol
