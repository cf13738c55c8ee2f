#include "src/telemetry/tracing.h"

#include <algorithm>
#include <string_view>

#include "src/codec/protobuf.h"
#include "src/codec/utf8.h"
#include "src/telemetry/request_id.h"

namespace metaprotocol {
namespace {

// Fields of OTLP's messages: https://github.com/open-telemetry/opentelemetry-proto.
namespace span_field {
constexpr uint32_t kTraceId = 1, kSpanId = 2, kTraceState = 3, kParentSpanId = 4, kName = 5,
                   kKind = 6, kStart = 7, kEnd = 8, kAttributes = 9, kStatus = 15;
}
constexpr uint64_t kStatusError = 2;
constexpr size_t kMostTraceState = 512;  // what W3C wants to be passed on at least

void AppendText(std::string& out, uint32_t field, std::string_view name, std::string_view value) {
  AppendOtlpText(out, field, name, value.substr(0, Tracing::kMostValueBytes));
}

// "shop/buy"; "shop/buy" as well where the method is "/shop/buy", as it is with tRPC.
std::string SpanName(std::string_view protocol, std::string_view service, std::string_view method) {
  if (method.starts_with('/')) return std::string(method.substr(1));
  std::string name(service);
  if (!service.empty() && !method.empty()) name += '/';
  name += method;
  return name.empty() ? std::string(protocol) : name;
}

// "10.0.0.1:20880", "[fd00::1]:20880".
void AppendServer(std::string& out, uint32_t field, std::string_view host) {
  const size_t colon = host.rfind(':');
  if (colon == std::string_view::npos) return AppendText(out, field, "server.address", host);
  std::string_view address = host.substr(0, colon);
  if (address.starts_with('[') && address.ends_with(']')) {
    address = address.substr(1, address.size() - 2);
  }
  AppendText(out, field, "server.address", address);
  uint64_t port = 0;
  for (const char c : host.substr(colon + 1)) {
    if (c < '0' || c > '9' || port > 65535) return;
    port = port * 10 + static_cast<uint64_t>(c - '0');
  }
  AppendOtlpNumber(out, field, "server.port", port);
}

}  // namespace

Tracing::Tracing(RecordedKeys& recorded, MetadataKeys& keys)
    : propagation_(keys),
      service_(recorded.Want(kServiceKeys, keys)),
      method_(recorded.Want(kMethodKeys, keys)),
      source_address_(recorded.Want(kSourceAddressKey, keys)),
      trace_state_(recorded.Want("tracestate", keys)),
      request_id_(recorded.Want(kRequestIdKey, keys)),
      skywalking_(recorded.Want("sw8", keys)) {}

void Tracing::WriteSpan(const EndedRequest& request, std::string& out) const {
  namespace f = span_field;
  const RequestRecord& record = request.record;
  const TraceContext& context = record.trace->context;
  std::string span;
  AppendProtoBytes(span, f::kTraceId, BigEndian(context.trace.high) + BigEndian(context.trace.low));
  AppendProtoBytes(span, f::kSpanId, BigEndian(context.span));
  const std::string_view state = record.value(trace_state_).value_or("");
  if (context.parent != 0) {
    AppendProtoBytes(span, f::kParentSpanId, BigEndian(context.parent));
    if (!state.empty() && state.size() <= kMostTraceState && IsAscii(state)) {
      AppendProtoBytes(span, f::kTraceState, state);
    }
  }

  const auto first_of = [&](const std::vector<size_t>& places) {
    std::string_view found;
    for (const size_t place : places) {
      if (found.empty()) found = record.value(place).value_or("");
    }
    return found.substr(0, kMostValueBytes);
  };
  const std::string_view service = first_of(service_);
  const std::string_view method = first_of(method_);
  AppendProtoBytes(span, f::kName, MadeUtf8(SpanName(request.protocol, service, method)));

  AppendProtoVarint(span, f::kKind, static_cast<uint64_t>(kind));
  const uint64_t lasted_us = request.ended_us - request.started_us;
  AppendProtoFixed64(span, f::kStart, (request.ended_unix_us - lasted_us) * 1000);
  AppendProtoFixed64(span, f::kEnd, request.ended_unix_us * 1000);

  const auto text = [&](std::string_view key, std::string_view value) {
    if (!value.empty()) AppendText(span, f::kAttributes, key, value);
  };
  const auto number = [&](std::string_view key, uint64_t value) {
    AppendOtlpNumber(span, f::kAttributes, key, value);
  };
  text("rpc.system", request.protocol);
  text("rpc.service", service);
  text("rpc.method", method);
  text("client.address", record.value(source_address_).value_or(""));
  if (!request.host.empty()) AppendServer(span, f::kAttributes, request.host);
  text("guid:x-request-id", record.value(request_id_).value_or(""));
  if (const auto sw8 = record.value(skywalking_)) {
    text("skywalking.trace_id", SkyWalkingTraceId(*sw8).value_or(""));
  }
  text("upstream_cluster", request.cluster);
  text("route_name", request.route);
  text("response_code", request.code());
  text("response_flags", request.flags());
  number("request_size", request.request_bytes);
  number("response_size", request.response_bytes);
  number("attempts", request.attempts);
  for (const Attribute& attribute : attributes) {
    if (!attribute.place) {
      text(attribute.name, attribute.value);
    } else if (const auto value = record.value(*attribute.place)) {
      text(attribute.name, *value);
    }
  }
  if (request.failed()) {
    const std::string_view why = request.client_gone ? "client_gone"
                                 : request.answered  ? request.details()
                                                     : request.code();
    text("error.type", why);
    std::string status;
    if (!record.reason().empty()) AppendProtoBytes(status, 2, MadeUtf8(record.reason()));
    AppendProtoVarint(status, 3, kStatusError);
    AppendProtoBytes(span, f::kStatus, status);
  }
  AppendProtoBytes(out, 2, span);
}

}  // namespace metaprotocol
