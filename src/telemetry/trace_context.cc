#include "src/telemetry/trace_context.h"

#include <utility>

namespace metaprotocol {
namespace {

// Lower-case digits, exactly as many as there are in `text`, 16 at most.
std::optional<uint64_t> ReadHex(std::string_view text) {
  uint64_t number = 0;
  for (const char c : text) {
    if (c >= '0' && c <= '9') {
      number = number << 4 | static_cast<uint64_t>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      number = number << 4 | static_cast<uint64_t>(c - 'a' + 10);
    } else {
      return std::nullopt;
    }
  }
  return number;
}

void AppendHex(std::string& out, uint64_t number) {
  for (int shift = 60; shift >= 0; shift -= 4) out += "0123456789abcdef"[number >> shift & 15];
}

// Of 32 digits or, as old clients of Zipkin write it, of 16.
std::optional<TraceId> ReadTraceId(std::string_view text) {
  TraceId id;
  if (text.size() == 32) {
    const std::optional<uint64_t> high = ReadHex(text.substr(0, 16));
    if (!high) return std::nullopt;
    id.high = *high;
    text.remove_prefix(16);
  }
  if (text.size() != 16) return std::nullopt;
  const std::optional<uint64_t> low = ReadHex(text);
  if (!low) return std::nullopt;
  id.low = *low;
  return id.present() ? std::optional(id) : std::nullopt;
}

std::optional<uint64_t> ReadSpanId(std::string_view text) {
  if (text.size() != 16) return std::nullopt;
  const std::optional<uint64_t> id = ReadHex(text);
  return id && *id != 0 ? id : std::nullopt;
}

bool TakeIds(std::string_view trace_text, std::string_view span_text, ClientTrace& found) {
  const std::optional<TraceId> trace = ReadTraceId(trace_text);
  const std::optional<uint64_t> span = ReadSpanId(span_text);
  if (!trace || !span) return false;
  found.trace = *trace;
  found.span = *span;
  return true;
}

// "00-<trace>-<parent>-<flags>"; later versions may have more behind a dash.
bool ReadTraceParent(std::string_view text, ClientTrace& found) {
  constexpr size_t kSize = 55;
  if (text.size() < kSize || text[2] != '-' || text[35] != '-' || text[52] != '-') return false;
  const std::optional<uint64_t> version = ReadHex(text.substr(0, 2));
  if (!version || *version == 0xff) return false;
  if (text.size() > kSize && (*version == 0 || text[kSize] != '-')) return false;
  const std::optional<uint64_t> flags = ReadHex(text.substr(53, 2));
  if (!flags || !TakeIds(text.substr(3, 32), text.substr(36, 16), found)) return false;
  found.sampled = (*flags & 1) != 0;
  return true;
}

// "0", "1", "d": what B3 says of sampling; false: `text` says nothing of that kind.
bool ReadB3Decision(std::string_view text, ClientTrace& found) {
  if (text == "0" || text == "false") {
    found.sampled = false;
  } else if (text == "1" || text == "true") {
    found.sampled = true;
  } else if (text == "d") {
    found.sampled = found.debug = true;
  } else {
    return false;
  }
  return true;
}

// "<trace>-<span>", "<trace>-<span>-<decision>", "<trace>-<span>-<decision>-<parent>" or
// "<decision>".
bool ReadB3(std::string_view text, ClientTrace& found) {
  if (text.size() == 1) return ReadB3Decision(text, found);
  const size_t trace_size = text.find('-');
  constexpr size_t kSpan = 16;
  if (trace_size == std::string_view::npos) return false;
  const std::string_view trace = text.substr(0, trace_size);
  text.remove_prefix(trace_size + 1);
  ClientTrace read;
  if (!TakeIds(trace, text.substr(0, kSpan), read)) return false;
  text.remove_prefix(kSpan);
  if (!text.empty()) {
    const bool alone = text.size() == 2;
    const bool with_parent =
        text.size() == 3 + kSpan && text[2] == '-' && ReadHex(text.substr(3)).has_value();
    if (text[0] != '-' || !(alone || with_parent)) return false;
    if (!ReadB3Decision(text.substr(1, 1), read)) return false;
  }
  found = read;
  return true;
}

constexpr size_t kMostSkyWalkingId = 256;  // bytes, of which agents write about 60

std::optional<uint8_t> Base64Digit(char c) {
  if (c >= 'A' && c <= 'Z') return static_cast<uint8_t>(c - 'A');
  if (c >= 'a' && c <= 'z') return static_cast<uint8_t>(c - 'a' + 26);
  if (c >= '0' && c <= '9') return static_cast<uint8_t>(c - '0' + 52);
  if (c == '+') return uint8_t{62};
  if (c == '/') return uint8_t{63};
  return std::nullopt;
}

// With its padding; nothing if it is none, or empty.
std::optional<std::string> ReadBase64(std::string_view text) {
  if (text.empty() || text.size() % 4 != 0 || text.size() > kMostSkyWalkingId / 3 * 4) {
    return std::nullopt;
  }
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  std::string bytes;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text.substr(0, text.size() - padding)) {
    const std::optional<uint8_t> digit = Base64Digit(c);
    if (!digit) return std::nullopt;
    bits = bits << 6 | *digit;
    count += 6;
    if (count >= 8) {
      count -= 8;
      bytes += static_cast<char>(bits >> count & 0xff);
    }
  }
  return bytes;
}

struct SkyWalkingContext {
  bool sampled;
  std::string trace;
};

// "<sample>-<trace>-<segment>-<span>-<service>-<instance>-<endpoint>-<address>", texts in Base64.
std::optional<SkyWalkingContext> ReadSkyWalking(std::string_view text) {
  constexpr size_t kFields = 8;
  std::array<std::string_view, kFields> fields;
  for (size_t i = 0; i < kFields; ++i) {
    const size_t dash = text.find('-');
    if ((dash == std::string_view::npos) != (i + 1 == kFields)) return std::nullopt;
    fields[i] = text.substr(0, dash);
    if (fields[i].empty()) return std::nullopt;
    text.remove_prefix(i + 1 == kFields ? text.size() : dash + 1);
  }
  if (fields[0] != "0" && fields[0] != "1") return std::nullopt;
  std::optional<std::string> trace = ReadBase64(fields[1]);
  if (!trace) return std::nullopt;
  return SkyWalkingContext{fields[0] == "1", std::move(*trace)};
}

// The bits of a text (FNV-1a), mixed: the same for all proxies on a trace's way.
uint64_t Digest(std::string_view text, uint64_t seed) {
  uint64_t hash = 0xcbf29ce484222325 ^ seed;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  hash = (hash ^ hash >> 33) * 0xff51afd7ed558ccd;
  return hash ^ hash >> 33;
}

// 32 digits are an id already; of any other text one is made.
TraceId IdOfSkyWalking(std::string_view trace) {
  if (trace.size() == 32) {
    if (const std::optional<TraceId> id = ReadTraceId(trace)) return *id;
  }
  return {Digest(trace, 0), Digest(trace, 0x9e3779b97f4a7c15) | 1};
}

}  // namespace

std::optional<std::string> SkyWalkingTraceId(std::string_view sw8) {
  std::optional<SkyWalkingContext> read = ReadSkyWalking(sw8);
  return read ? std::optional(std::move(read->trace)) : std::nullopt;
}

std::string TraceIdText(const TraceId& id) {
  std::string text;
  AppendHex(text, id.high);
  AppendHex(text, id.low);
  return text;
}

const std::array<std::string_view, TracePropagation::kKeyCount> TracePropagation::kNames = {
    "traceparent", "tracestate",   "b3",         "x-b3-traceid",
    "x-b3-spanid", "x-b3-sampled", "x-b3-flags", "sw8"};

TracePropagation::TracePropagation(MetadataKeys& keys) {
  for (size_t i = 0; i < kNames.size(); ++i) slots_[i] = keys.Want(kNames[i]);
}

ClientTrace TracePropagation::Read(const MatchInput& input) const {
  ClientTrace found;
  const auto text = [&](Key key) { return Find(input, key).value_or(""); };
  if (ReadTraceParent(text(kTraceParent), found)) {
    found.formats |= TraceFormatBit(TraceFormat::kW3c);
  } else {
    found.stale_state = Find(input, kTraceState).has_value();
  }
  ClientTrace b3;
  if (ReadB3(text(kB3), b3)) b3.formats = TraceFormatBit(TraceFormat::kB3);
  ClientTrace multi;
  bool multi_used = TakeIds(text(kB3TraceId), text(kB3SpanId), multi);
  multi_used |= ReadB3Decision(text(kB3Sampled), multi);
  if (text(kB3Flags) == "1") multi_used = ReadB3Decision("d", multi);
  if (multi_used) multi.formats = TraceFormatBit(TraceFormat::kB3Multi);
  // The first that names a span is believed, and else the first that has decided.
  for (const ClientTrace* other : {&b3, &multi}) {
    if (other->formats == 0) continue;
    found.formats |= other->formats;
    if (found.trace.present()) continue;
    found.trace = other->trace;
    found.span = other->span;
    if (other->trace.present() || !found.sampled) {
      found.sampled = other->sampled;
      found.debug = other->debug;
    }
  }
  if (found.trace.present()) return found;
  if (const auto skywalking = ReadSkyWalking(text(kSkyWalking))) {
    found.trace = IdOfSkyWalking(skywalking->trace);
    found.skywalking = true;
    if (!found.sampled) found.sampled = skywalking->sampled;
  }
  return found;
}

void TracePropagation::Write(const TraceContext& context, TraceFormats formats, bool stale_state,
                             Mutation& changes) {
  const auto set = [&](Key key, std::string value) {
    changes.push_back({MutationOp::Kind::kSet, std::string(kNames[key]), std::move(value)});
  };
  const std::string trace = TraceIdText(context.trace);
  const auto span_text = [](uint64_t id) {
    std::string text;
    AppendHex(text, id);
    return text;
  };
  const std::string span = span_text(context.span);
  const auto uses = [&](TraceFormat format) { return (formats & TraceFormatBit(format)) != 0; };
  if (uses(TraceFormat::kW3c)) {
    set(kTraceParent, "00-" + trace + "-" + span + (context.sampled ? "-01" : "-00"));
    if (stale_state) {
      changes.push_back({MutationOp::Kind::kRemove, std::string(kNames[kTraceState]), {}});
    }
  }
  if (uses(TraceFormat::kB3)) {
    std::string value = trace + "-" + span + (context.debug ? "-d" : context.sampled ? "-1" : "-0");
    if (context.parent != 0) value += "-" + span_text(context.parent);
    set(kB3, std::move(value));
  }
  if (uses(TraceFormat::kB3Multi)) {
    set(kB3TraceId, trace);
    set(kB3SpanId, span);
    set(kB3Sampled, context.sampled ? "1" : "0");
    constexpr std::string_view kParent = "x-b3-parentspanid";
    if (context.parent != 0) {
      changes.push_back({MutationOp::Kind::kSet, std::string(kParent), span_text(context.parent)});
    } else {
      changes.push_back({MutationOp::Kind::kRemove, std::string(kParent), {}});
    }
  }
}

}  // namespace metaprotocol
