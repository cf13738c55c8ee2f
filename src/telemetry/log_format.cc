#include "src/telemetry/log_format.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <optional>

#include "src/codec/protobuf.h"
#include "src/codec/utf8.h"
#include "src/telemetry/otlp.h"
#include "src/telemetry/request_id.h"

namespace metaprotocol {
namespace {

constexpr std::string_view kHex = "0123456789abcdef";

bool IsOperatorLetter(char c) { return (c >= 'A' && c <= 'Z') || c == '_'; }

void AppendNumber(uint64_t number, std::string& out) {
  char digits[20];
  const auto end = std::to_chars(std::begin(digits), std::end(digits), number);
  out.append(digits, end.ptr);
}

// 2026-01-31T12:00:00.000Z
void AppendTime(uint64_t unix_us, std::string& out) {
  using std::chrono::floor;
  const std::chrono::sys_time<std::chrono::microseconds> time{
      std::chrono::microseconds(static_cast<int64_t>(unix_us))};
  const auto day = floor<std::chrono::days>(time);
  const std::chrono::year_month_day date{day};
  const std::chrono::hh_mm_ss clock{floor<std::chrono::milliseconds>(time - day)};
  char text[40];
  const int size = std::snprintf(
      text, sizeof text, "%04d-%02u-%02uT%02d:%02d:%02d.%03dZ", static_cast<int>(date.year()),
      static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
      static_cast<int>(clock.hours().count()), static_cast<int>(clock.minutes().count()),
      static_cast<int>(clock.seconds().count()), static_cast<int>(clock.subseconds().count()));
  out.append(text, static_cast<size_t>(size));
}

// Of W3C's traceparent ("00-<trace>-<span>-01"), B3's single header ("<trace>-<span>-1"),
// SkyWalking's ("1-<trace>-..."), or the trace id alone.
std::string TraceIdIn(std::string_view value) {
  if (const auto id = SkyWalkingTraceId(value)) return *id;
  if (value.size() > 3 && value[2] == '-') value.remove_prefix(3);
  return std::string(value.substr(0, value.find('-')));
}

// What acts where it is shown: control characters, ends of lines and paragraphs, other directions
// of writing.
bool IsPrintable(uint32_t c) {
  return c >= 0x20 && !(c >= 0x7f && c < 0xa0) && c != 0x61c && c != 0x200e && c != 0x200f &&
         !(c >= 0x2028 && c <= 0x202e) && !(c >= 0x2066 && c <= 0x2069);
}

// Also of what is not UTF-8 each byte is written as an escape.
void AppendEscaped(std::string_view text, std::string& out) {
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = Utf8At(text, at);
    const size_t width = c.width == 0 ? 1 : c.width;
    if (c.width == 0 || !IsPrintable(c.value)) {
      for (const char byte : text.substr(at, width)) {
        out.append("\\x") += kHex[static_cast<unsigned char>(byte) >> 4];
        out += kHex[static_cast<unsigned char>(byte) & 15];
      }
    } else {
      if (c.value == '"' || c.value == '\\') out += '\\';
      out += text.substr(at, width);
    }
    at += width;
  }
}

void AppendJsonEscaped(std::string_view text, std::string& out) {
  for (Utf8Iterator it(text); !it.Done();) {
    const uint32_t c = it.Next();
    if (!IsPrintable(c)) {
      out.append("\\u");
      for (const int shift : {12, 8, 4, 0}) out += kHex[c >> shift & 15];
    } else {
      if (c == '"' || c == '\\') out += '\\';
      AppendUtf8(out, c);
    }
  }
}

std::string Known(const auto& operators) {
  std::string names = "REQ";
  for (const auto& named : operators) names.append(", ").append(named.name);
  return names;
}

}  // namespace

const std::vector<LogTemplate::Named>& LogTemplate::Operators() {
  using O = Operator;
  static const std::vector<Named> operators = {
      {"SERVICE", O::kRecorded, {kServiceKeys.begin(), kServiceKeys.end()}},
      {"METHOD", O::kRecorded, {kMethodKeys.begin(), kMethodKeys.end()}},
      {"TRACE_ID", O::kTraceId, {"traceparent", "x-b3-traceid", "b3", "sw8"}},
      {"REQUEST_ID", O::kRecorded, {kRequestIdKey}},
      {"PROTOCOL", O::kProtocol},
      {"ROUTE_NAME", O::kRouteName},
      {"DOWNSTREAM_REMOTE_ADDRESS", O::kRemoteAddress},
      {"DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", O::kRecorded, {kSourceAddressKey}},
      {"DOWNSTREAM_LOCAL_ADDRESS", O::kLocalAddress, {kDestinationAddressKey, kDestinationPortKey}},
      {"DOWNSTREAM_PEER_URI_SAN", O::kRecorded, {kPeerUriSanKey}},
      {"DOWNSTREAM_PEER_SUBJECT", O::kRecorded, {kPeerSubjectKey}},
      {"REQUESTED_SERVER_NAME", O::kRecorded, {kSniKey}},
      {"RESPONSE_CODE", O::kCode},
      {"RESPONSE_CODE_DETAILS", O::kDetails},
      {"RESPONSE_FLAGS", O::kFlags},
      {"LOCAL_REPLY_BODY", O::kReason},
      {"UPSTREAM_HOST", O::kHost},
      {"UPSTREAM_CLUSTER", O::kCluster},
      {"START_TIME", O::kStartTime},
      {"BYTES_RECEIVED", O::kBytesReceived},
      {"BYTES_SENT", O::kBytesSent},
      {"UPSTREAM_REQUEST_ATTEMPT_COUNT", O::kAttempts},
      {"DURATION", O::kDuration},
      {"RESPONSE_DURATION", O::kResponseDuration},
      {"UPSTREAM_DURATION", O::kUpstreamDuration},
      {"RESPONSE_TX_DURATION", O::kResponseTxDuration},
  };
  return operators;
}

LogTemplate LogTemplate::Compile(std::string_view format, RecordedKeys& recorded,
                                 MetadataKeys& keys, std::string& error) {
  LogTemplate made;
  const auto text = [&](std::string_view more) {
    if (made.parts_.empty() || made.parts_.back().op != Operator::kText) {
      made.parts_.emplace_back();
    }
    made.parts_.back().text.append(more);
  };
  const auto wrong = [&](std::string why) {
    error = std::move(why);
    return LogTemplate();
  };
  while (!format.empty()) {
    const size_t sign = format.find('%');
    if (sign != 0) text(format.substr(0, sign));
    if (sign == std::string_view::npos) break;
    format.remove_prefix(sign + 1);
    if (format.starts_with('%')) {
      text("%");
      format.remove_prefix(1);
      continue;
    }
    size_t end = 0;
    while (end < format.size() && IsOperatorLetter(format[end])) ++end;
    const std::string_view name = format.substr(0, end);
    format.remove_prefix(end);
    std::optional<std::string_view> argument;
    if (format.starts_with('(')) {
      const size_t close = format.find(')');
      if (close == std::string_view::npos) return wrong("has a parenthesis that does not end");
      argument = format.substr(1, close - 1);
      format.remove_prefix(close + 1);
    }
    Part part;
    if (format.starts_with(':')) {
      format.remove_prefix(1);
      const auto parsed = std::from_chars(format.data(), format.data() + format.size(), part.most);
      if (parsed.ec != std::errc()) return wrong("has no number after a colon");
      format.remove_prefix(static_cast<size_t>(parsed.ptr - format.data()));
    }
    if (!format.starts_with('%')) {
      return wrong("has an operator that does not end in %; a percent sign is written %%");
    }
    format.remove_prefix(1);
    if (name == "REQ") {
      if (!argument || argument->empty()) return wrong("has REQ without a key: %REQ(key)%");
      part.op = Operator::kRecorded;
      std::string_view rest = *argument;
      while (!rest.empty()) {
        const size_t mark = rest.find('?');
        const std::string_view key = rest.substr(0, mark);
        if (IsConnectionKey(key) && std::find(kConnectionKeys.begin(), kConnectionKeys.end(),
                                              key) == kConnectionKeys.end()) {
          return wrong("has no key of the connection: " + std::string(key));
        }
        if (!key.empty()) part.places.push_back(recorded.Want(key, keys));
        rest = mark == std::string_view::npos ? "" : rest.substr(mark + 1);
      }
      made.parts_.push_back(std::move(part));
      continue;
    }
    const auto& operators = Operators();
    const auto found = std::find_if(operators.begin(), operators.end(),
                                    [&](const Named& named) { return named.name == name; });
    if (found == operators.end()) {
      return wrong("has no operator " + std::string(name) + "; there are " + Known(operators));
    }
    if (argument) return wrong("has an argument that " + std::string(name) + " does not take");
    part.op = found->op;
    part.places = recorded.Want(found->keys, keys);
    made.parts_.push_back(std::move(part));
  }
  return made;
}

std::optional<uint64_t> LogTemplate::Number(Operator op, const EndedRequest& request) {
  const RequestRecord& record = request.record;
  const auto ms = [](uint64_t from, uint64_t to) -> std::optional<uint64_t> {
    if (from == 0 || to == 0) return std::nullopt;
    return (to - from) / 1000;
  };
  switch (op) {
    case Operator::kBytesReceived:
      return request.request_bytes;
    case Operator::kBytesSent:
      return request.response_bytes;
    case Operator::kAttempts:
      return request.attempts;
    case Operator::kDuration:
      return (request.ended_us - request.started_us) / 1000;
    case Operator::kResponseDuration:
      return ms(request.started_us, record.first_byte_us);
    case Operator::kUpstreamDuration:
      return ms(record.sent_us, record.first_byte_us);
    case Operator::kResponseTxDuration:
      return ms(record.first_byte_us, request.ended_us);
    default:
      return std::nullopt;
  }
}

bool LogTemplate::Value(const Part& part, const EndedRequest& request, std::string& out) {
  const RequestRecord& record = request.record;
  const auto put = [&](std::string_view value) {
    out.append(value.substr(0, part.most));
    return !value.empty();
  };
  switch (part.op) {
    case Operator::kText:
      return put(part.text);
    case Operator::kRecorded:
      for (const size_t place : part.places) {
        if (const auto value = record.value(place)) {
          put(*value);
          return true;
        }
      }
      return false;
    case Operator::kTraceId:
      if (record.trace) return put(TraceIdText(record.trace->context.trace));
      for (const size_t place : part.places) {
        if (const auto value = record.value(place)) return put(TraceIdIn(*value));
      }
      return false;
    case Operator::kRemoteAddress:
      return put(record.remote());
    case Operator::kLocalAddress: {
      const std::string_view address = record.value(part.places[0]).value_or("");
      const bool v6 = address.find(':') != std::string_view::npos;
      if (v6) out += '[';
      out.append(address);
      if (v6) out += ']';
      out.append(":").append(record.value(part.places[1]).value_or(""));
      return true;
    }
    case Operator::kProtocol:
      return put(request.protocol);
    case Operator::kRouteName:
      return put(request.route);
    case Operator::kCode:
      return put(request.code());
    case Operator::kDetails:
      return put(request.details());
    case Operator::kFlags:
      return put(request.flags());
    case Operator::kReason:
      return request.answered && put(record.reason());
    case Operator::kHost:
      return put(request.host);
    case Operator::kCluster:
      return put(request.cluster);
    case Operator::kStartTime:
      AppendTime(request.ended_unix_us - (request.ended_us - request.started_us), out);
      return true;
    default: {
      const std::optional<uint64_t> number = Number(part.op, request);
      if (number) AppendNumber(*number, out);
      return number.has_value();
    }
  }
}

void LogTemplate::WriteText(const EndedRequest& request, std::string& out) const {
  std::string value;
  for (const Part& part : parts_) {
    if (part.op == Operator::kText) {
      out.append(part.text);
      continue;
    }
    value.clear();
    if (Value(part, request, value)) {
      AppendEscaped(value, out);
    } else {
      out += '-';
    }
  }
}

std::optional<std::string> LogTemplate::Whole(const EndedRequest& request) const {
  std::string value;
  for (const Part& part : parts_) {
    const bool there = Value(part, request, value);
    if (there || part.op == Operator::kText) continue;
    if (alone()) return std::nullopt;
    value += '-';
  }
  return value;
}

void LogTemplate::WriteJson(const EndedRequest& request, std::string& out) const {
  if (alone() && IsNumber(parts_[0].op)) {
    const std::optional<uint64_t> number = Number(parts_[0].op, request);
    if (number) {
      AppendNumber(*number, out);
    } else {
      out.append("null");
    }
    return;
  }
  const std::optional<std::string> value = Whole(request);
  if (!value) {
    out.append("null");
    return;
  }
  out += '"';
  AppendJsonEscaped(*value, out);
  out += '"';
}

void LogTemplate::WriteAnyValue(const EndedRequest& request, std::string& out) const {
  if (alone() && IsNumber(parts_[0].op)) {
    const std::optional<uint64_t> number = Number(parts_[0].op, request);
    if (number) AppendProtoVarint(out, 3, *number);
    return;
  }
  const std::optional<std::string> value = Whole(request);
  if (value) AppendProtoBytes(out, 1, MadeUtf8(*value));
}

LogFormat LogFormat::Text(LogTemplate line) {
  LogFormat format;
  format.fields_.push_back({"", "", std::move(line)});
  return format;
}

LogFormat LogFormat::Json(std::vector<std::pair<std::string, LogTemplate>> fields) {
  LogFormat format;
  format.json_ = true;
  for (auto& [name, value] : fields) {
    std::string before = format.fields_.empty() ? "{\"" : ",\"";
    AppendJsonEscaped(name, before);
    before.append("\":");
    format.fields_.push_back({std::move(name), std::move(before), std::move(value)});
  }
  return format;
}

void LogFormat::Write(const EndedRequest& request, std::string& out) const {
  for (const Field& field : fields_) {
    out.append(field.before);
    if (json_) {
      field.value.WriteJson(request, out);
    } else {
      field.value.WriteText(request, out);
    }
  }
  if (json_) out += '}';
  out += '\n';
}

void LogFormat::WriteRecord(const EndedRequest& request, std::string& out) const {
  // Fields of LogRecord.
  constexpr uint32_t kTime = 1, kBody = 5, kAttributes = 6, kTraceId = 9, kSpanId = 10,
                     kObservedTime = 11;
  std::string record;
  const uint64_t lasted_us = request.ended_us - request.started_us;
  AppendProtoFixed64(record, kTime, (request.ended_unix_us - lasted_us) * 1000);
  AppendProtoFixed64(record, kObservedTime, request.ended_unix_us * 1000);
  std::string value;
  for (const Field& field : fields_) {
    value.clear();
    if (json_) {
      field.value.WriteAnyValue(request, value);
      if (!value.empty()) AppendOtlpAttribute(record, kAttributes, field.name, value);
    } else {
      std::string line;
      field.value.WriteText(request, line);
      AppendProtoBytes(value, 1, line);
      AppendProtoBytes(record, kBody, value);
    }
  }
  if (const auto& trace = request.record.trace; trace && trace->context.span != 0) {
    const TraceContext& context = trace->context;
    AppendProtoBytes(record, kTraceId,
                     BigEndian(context.trace.high) + BigEndian(context.trace.low));
    AppendProtoBytes(record, kSpanId, BigEndian(context.span));
  }
  AppendProtoBytes(out, 2, record);
}

}  // namespace metaprotocol
