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

// The first of these that has a value; "" if none has.
std::string_view FirstOf(const RequestRecord& record, const std::vector<size_t>& places) {
  std::string_view found;
  for (const size_t place : places) {
    if (found.empty()) found = record.value(place).value_or("");
  }
  return found.substr(0, Tracing::kMostValueBytes);
}

// What each span begins with. Times are the engine's.
void AppendHead(std::string& span, const EndedRequest& request, uint64_t id, uint64_t parent,
                std::string_view name, Tracing::Kind kind, uint64_t began_us, uint64_t ended_us) {
  namespace f = span_field;
  const TraceId& trace = request.record.trace->context.trace;
  AppendProtoBytes(span, f::kTraceId, BigEndian(trace.high) + BigEndian(trace.low));
  AppendProtoBytes(span, f::kSpanId, BigEndian(id));
  if (parent != 0) AppendProtoBytes(span, f::kParentSpanId, BigEndian(parent));
  AppendProtoBytes(span, f::kName, MadeUtf8(name));
  AppendProtoVarint(span, f::kKind, static_cast<uint64_t>(kind));
  const auto unix_ns = [&](uint64_t us) {
    return (request.ended_unix_us - (request.ended_us - us)) * 1000;
  };
  AppendProtoFixed64(span, f::kStart, unix_ns(began_us));
  AppendProtoFixed64(span, f::kEnd, unix_ns(ended_us));
}

void AppendCalled(std::string& span, std::string_view protocol, std::string_view service,
                  std::string_view method) {
  const auto text = [&](std::string_view key, std::string_view value) {
    if (!value.empty()) AppendText(span, span_field::kAttributes, key, value);
  };
  text("rpc.system", protocol);
  text("rpc.service", service);
  text("rpc.method", method);
}

void AppendError(std::string& span, std::string_view why, std::string_view reason) {
  if (!why.empty()) AppendText(span, span_field::kAttributes, "error.type", why);
  std::string status;
  if (!reason.empty()) AppendProtoBytes(status, 2, MadeUtf8(reason));
  AppendProtoVarint(status, 3, kStatusError);
  AppendProtoBytes(span, span_field::kStatus, status);
}

// Why a request has failed.
std::string_view ErrorType(const EndedRequest& request) {
  if (request.client_gone) return "client_gone";
  return request.answered ? request.details() : request.code();
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
  const std::string_view service = FirstOf(record, service_);
  const std::string_view method = FirstOf(record, method_);
  std::string span;
  AppendHead(span, request, context.span, context.parent,
             SpanName(request.protocol, service, method), kind, request.started_us,
             request.ended_us);
  const std::string_view state = record.value(trace_state_).value_or("");
  if (context.parent != 0 && !state.empty() && state.size() <= kMostTraceState && IsAscii(state)) {
    AppendProtoBytes(span, f::kTraceState, state);
  }

  const auto text = [&](std::string_view key, std::string_view value) {
    if (!value.empty()) AppendText(span, f::kAttributes, key, value);
  };
  const auto number = [&](std::string_view key, uint64_t value) {
    AppendOtlpNumber(span, f::kAttributes, key, value);
  };
  AppendCalled(span, request.protocol, service, method);
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
    if (attribute.format) {
      std::string value;
      attribute.format->WriteAnyValue(request, value);
      if (!value.empty()) AppendOtlpAttribute(span, f::kAttributes, attribute.name, value);
      continue;
    }
    const auto found = attribute.place ? record.value(*attribute.place) : std::nullopt;
    text(attribute.name, found ? *found : std::string_view(attribute.value));
  }
  if (request.failed()) AppendError(span, ErrorType(request), record.reason());
  AppendProtoBytes(out, 2, span);
}

void Tracing::WriteAttempt(const EndedRequest& request, size_t number, uint64_t id,
                           std::string& out) const {
  namespace f = span_field;
  const RequestRecord& record = request.record;
  const std::string_view service = FirstOf(record, service_);
  const std::string_view method = FirstOf(record, method_);
  const bool is_last = number == record.failed_attempts.size();
  const auto* const failed = is_last ? nullptr : &record.failed_attempts[number];
  const std::string_view host = is_last ? request.host : std::string_view(failed->host);
  std::string span;
  AppendHead(span, request, id, record.trace->context.span,
             SpanName(request.protocol, service, method), Kind::kClient,
             is_last ? record.sent_us : failed->began_us,
             is_last ? request.ended_us : failed->ended_us);
  AppendCalled(span, request.protocol, service, method);
  if (!host.empty()) AppendServer(span, f::kAttributes, host);
  AppendOtlpNumber(span, f::kAttributes, "attempt", number + 1);
  if (!is_last) {
    if (failed->why != ReplyStatusText(ReplyStatus::kOk)) AppendError(span, failed->why, "");
  } else if (request.failed()) {
    AppendError(span, ErrorType(request), record.reason());
  }
  AppendProtoBytes(out, 2, span);
}

}  // namespace metaprotocol
