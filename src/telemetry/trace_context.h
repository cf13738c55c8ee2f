// Which trace a request belongs to, and who has sent it: W3C Trace Context
// (https://www.w3.org/TR/trace-context/) and B3 (https://github.com/openzipkin/b3-propagation),
// read from a request's metadata and written into it; SkyWalking's `sw8`
// (https://skywalking.apache.org/docs/main/next/en/api/x-process-propagation-headers-v3/), of which
// the trace is taken, and which is passed on as it is: its segments are told by agents.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "src/codec/metadata_keys.h"
#include "src/codec/mutation.h"
#include "src/route/match_input.h"

namespace metaprotocol {

struct TraceId {
  uint64_t high = 0;
  uint64_t low = 0;

  bool present() const { return (high | low) != 0; }
  friend bool operator==(const TraceId&, const TraceId&) = default;
};

// As 32 hexadecimal digits.
std::string TraceIdText(const TraceId& id);

// What a value of `sw8` calls its trace: any text. Nothing if it is not as SkyWalking has it.
std::optional<std::string> SkyWalkingTraceId(std::string_view sw8);

// Ways to write it, in the order in which they are believed. Sets of them are bits.
enum class TraceFormat : uint8_t { kW3c, kB3, kB3Multi };
using TraceFormats = uint8_t;
inline constexpr TraceFormats TraceFormatBit(TraceFormat format) {
  return static_cast<TraceFormats>(1u << static_cast<unsigned>(format));
}

// One span of a trace.
struct TraceContext {
  TraceId trace;
  uint64_t span = 0;
  uint64_t parent = 0;  // 0: none
  bool sampled = false;
  bool debug = false;  // B3's, which is passed on
};

// What becomes of a request in a trace.
struct TraceStart {
  TraceContext context;
  bool leaves_span = false;
};

// What a client says. What is not as its specification has it is as if it were not there.
struct ClientTrace {
  TraceId trace;  // with the client's `span`, but for SkyWalking's; or neither is there
  uint64_t span = 0;
  std::optional<bool> sampled;  // what the client has decided
  bool debug = false;
  TraceFormats formats = 0;  // those it has used
  bool stale_state = false;  // there is a `tracestate` without the `traceparent` it belongs to
  bool skywalking = false;   // the trace is SkyWalking's, which names no span
};

class TracePropagation {
 public:
  // The entries are wanted from now on.
  explicit TracePropagation(MetadataKeys& keys);

  ClientTrace Read(const MatchInput& input) const;
  // What makes a request one that `context` has sent, in these formats.
  static void Write(const TraceContext& context, TraceFormats formats, bool stale_state,
                    Mutation& changes);

 private:
  enum Key : uint8_t {
    kTraceParent,
    kTraceState,
    kB3,
    kB3TraceId,
    kB3SpanId,
    kB3Sampled,
    kB3Flags,
    kSkyWalking,
    kKeyCount,
  };
  static const std::array<std::string_view, kKeyCount> kNames;

  std::optional<std::string_view> Find(const MatchInput& input, Key key) const {
    return input.message.Get(slots_[key]);
  }

  std::array<uint32_t, kKeyCount> slots_;
};

}  // namespace metaprotocol
