// Tracing: which requests leave a span, and how that looks to a collector. Names of attributes are
// OpenTelemetry's for RPC where it has any (https://opentelemetry.io/docs/specs/semconv/rpc/), else
// Envoy's.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "src/codec/mutation.h"
#include "src/route/route.h"
#include "src/telemetry/log_format.h"
#include "src/telemetry/otlp.h"
#include "src/telemetry/request_record.h"
#include "src/telemetry/trace_context.h"

namespace metaprotocol {

class Tracing {
 public:
  // Of one attribute's value.
  static constexpr size_t kMostValueBytes = 256;

  enum class Kind : uint8_t { kServer = 2, kClient = 3 };  // as in OTLP
  struct Attribute {
    std::string name;
    std::optional<size_t> place = {};  // in the record; if nothing is there, `value`
    std::optional<LogTemplate> format = {};
    std::string value = {};  // "": there is no attribute
  };

  // What spans show is recorded from then on.
  Tracing(RecordedKeys& recorded, MetadataKeys& keys);

  OtlpTarget target;
  uint64_t chance = Route::kAlways;   // of kAlways, that a request is sampled
  uint64_t overall = Route::kAlways;  // likewise, that one that is to be sampled leaves a span
  TraceFormats formats = TraceFormatBit(TraceFormat::kW3c);
  Kind kind = Kind::kClient;
  std::vector<Attribute> attributes;

  // Of a request that has come; appends what it is to be changed by. Nothing if it stays as it is,
  // and leaves none. `random()` is any number.
  template <typename Random>
  std::optional<TraceStart> Begin(const MatchInput& input, Random&& random,
                                  Mutation& changes) const {
    const ClientTrace client = propagation_.Read(input);
    const auto drawn = [&](uint64_t of_always) {
      return of_always >= Route::kAlways || (of_always != 0 && random() >> 32 < of_always);
    };
    TraceStart start;
    start.leaves_span =
        client.sampled.value_or(true) && (client.sampled || drawn(chance)) && drawn(overall);
    if (client.sampled && !start.leaves_span) return std::nullopt;
    TraceContext& context = start.context;
    context.trace = client.trace.present() ? client.trace : TraceId{random(), random() | 1};
    context.parent = client.span;
    context.span = client.span;
    if (start.leaves_span || client.span == 0) context.span = random() | 1;
    if (!start.leaves_span) context.parent = 0;
    context.sampled = start.leaves_span;
    context.debug = client.debug;
    TracePropagation::Write(context, client.formats | formats, client.stale_state, changes);
    return start;
  }

  // Appends the span of a request that has one: a field `spans` of OTLP's ScopeSpans.
  void WriteSpan(const EndedRequest& request, std::string& out) const;
  // How many spans of attempts such a request leaves besides: none if it was tried once.
  static size_t AttemptSpans(const EndedRequest& request) {
    const size_t failed = request.record.failed_attempts.size();
    return failed == 0 ? 0 : std::min<size_t>(failed + 1, request.attempts);
  }
  // Appends the span of one of them, counted from 0, with this id: a child of the request's.
  void WriteAttempt(const EndedRequest& request, size_t number, uint64_t id,
                    std::string& out) const;

 private:
  TracePropagation propagation_;
  // Places in the record; of several the first that has a value.
  std::vector<size_t> service_;
  std::vector<size_t> method_;
  size_t source_address_;
  size_t trace_state_;
  size_t request_id_;
  size_t skywalking_;
};

}  // namespace metaprotocol
