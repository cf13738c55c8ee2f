// Whole lives of a simulated world as data: a setting and a list of actions. Property tests and the
// fuzzer generate them; the same script always gives the same run (sim_script_run.h).
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/filter/fault/fault.h"
#include "tests/cpp/support/sim_real_wires.h"
#include "tests/cpp/support/sim_world.h"

namespace metaprotocol::test {

enum class ScriptProtocol : uint8_t {
  kMultiplexed,
  kPipelined,
  kPipelinedWithIds,
  kExclusive,
  kStateful,
  kDubbo,
  kThrift,
};
inline constexpr size_t kScriptProtocolCount = 7;

struct ScriptSetting {
  ScriptProtocol protocol = ScriptProtocol::kMultiplexed;
  uint32_t mode = 0;  // among those that suit the protocol
  uint64_t seed = 1;
  uint32_t max_piece = 0;
  uint32_t timeout_ms = 1000;
  uint32_t max_requests_in_flight = 1024;
  uint32_t max_kb_in_flight = 1024;
  uint32_t max_unread_kb = 1024;
  uint32_t watermark_bytes = 65536;
  uint32_t stream_bytes = 1024;
  uint32_t max_leases_per_host = 16;
  uint32_t exchanges_per_shared_lease = 2;
  uint32_t max_shared_leases_per_host = 2;
  uint32_t max_cluster_requests = 1000;
  uint32_t max_pending = 16;
  uint32_t max_lease_kb = 256;
  uint32_t lease_idle_ms = 500;
  uint32_t balance = 0;         // BalancePolicy::Kind
  uint32_t mirror_percent = 0;  // 0: no route has a mirror
  uint32_t bucket_tokens = 0;   // of the local rate limit; 0: there is none
  uint32_t asks = 0;            // 0: no service; else denies on failure if even
  // Not from bytes: routes try again what no server can have seen, and some requests are delayed.
  bool retries_and_delays = false;
  // Not from bytes: the multiplexed protocol has streams.
  bool streams = false;
};
// What ScriptFromBytes takes for the setting.
inline constexpr size_t kSettingBytes = 22;
// The buckets of a setting are filled to the brim this often.
inline constexpr uint64_t kFillUs = 200 * kMs;

enum class Op : uint8_t {
  kConnect,        // a: local port
  kRequest,        // a: client, b: route and size
  kOneWay,         // likewise
  kHeartbeat,      // a: client
  kGarbage,        // a: client, b: 0: no message; else one in which this byte is wrong
  kFinish,         // a: client
  kReset,          // a: client
  kReading,        // a: client, b: whether
  kWait,           // a: steps of 100 us; b: the same again, as a power of two
  kServerMode,     // a: server, b: how it answers
  kServerConnect,  // a: server, b: how it takes connections
  kServerClose,    // a: upstream connection
  kServerSends,    // a: upstream connection, b: what
  kServerAnswers,  // a: upstream connection, b: which of its unanswered requests, and how much of
                   // it
  kHosts,          // a: cluster, b: which hosts, and which of them are healthy
  kGeneration,     // a: cluster
  kRemoveCluster,  // a: cluster
  kPublish,        // a: what changes
  kLimiter,        // a: how the rate limit service answers, b: how late
  kDrain,          // a: everything, or one port
  // Not from bytes, and only where there are streams.
  kOpenStream,    // a: client, b: route
  kStreamData,    // a: client, b: which of its streams, and how much
  kEndStream,     // a: client, b: which of its streams, and with data or without
  kResetStream,   // a: client, b: which of its streams
  kStreamWindow,  // a: client, b: which of its streams
  kServerStream,  // a: upstream connection, b: which of its streams, and what it says
};
inline constexpr size_t kOpCount = 20;  // of those from bytes
inline constexpr size_t kStreamOpCount = 6;

struct Action {
  Op op = Op::kWait;
  uint32_t a = 0;
  uint32_t b = 0;
};

inline constexpr std::array<std::string_view, kOpCount + kStreamOpCount> kOpNames = {
    "connect",        "request",        "one_way",      "heartbeat",      "garbage",
    "finish",         "reset",          "reading",      "wait",           "server_mode",
    "server_connect", "server_close",   "server_sends", "server_answers", "hosts",
    "generation",     "remove_cluster", "publish",      "limiter",        "drain",
    "open_stream",    "stream_data",    "end_stream",   "reset_stream",   "stream_window",
    "server_stream"};

// Any bytes are a script.
inline std::pair<ScriptSetting, std::vector<Action>> ScriptFromBytes(const uint8_t* data,
                                                                     size_t size) {
  size_t at = 0;
  const auto next = [&]() -> uint32_t { return at < size ? data[at++] : 0; };
  ScriptSetting setting;
  setting.protocol = static_cast<ScriptProtocol>(next() % kScriptProtocolCount);
  setting.mode = next();
  setting.seed = next();
  setting.max_piece = next() * next();
  setting.timeout_ms = 1 + next() * 10;
  setting.max_requests_in_flight = 1 + next();
  setting.max_kb_in_flight = 1 + next();
  setting.max_unread_kb = 1 + 8 * next();
  setting.watermark_bytes = 1 + 256 * next();
  setting.stream_bytes = 64 * next();
  setting.max_leases_per_host = 1 + next() % 32;
  setting.exchanges_per_shared_lease = 1 + next() % 8;
  setting.max_shared_leases_per_host = 1 + next() % 4;
  setting.max_cluster_requests = 1 + next();
  setting.max_pending = next();
  setting.max_lease_kb = 1 + next();
  setting.lease_idle_ms = next() * 10;
  setting.balance = next();
  setting.mirror_percent = next() % 3 * 50;
  const uint32_t tokens = next();
  setting.bucket_tokens = tokens % 4 == 0 ? tokens / 4 : 0;
  setting.asks = next() % 5;
  if (setting.asks > 2) setting.asks = 0;
  std::vector<Action> actions;
  while (at < size && actions.size() < 400) {
    Action action;
    action.op = static_cast<Op>(next() % kOpCount);
    action.a = next();
    action.b = next();
    actions.push_back(action);
  }
  return {setting, std::move(actions)};
}

inline std::string Describe(const ScriptSetting& s, const std::vector<Action>& actions) {
  std::string text;
  for (const uint64_t value : {uint64_t{static_cast<uint8_t>(s.protocol)},
                               uint64_t{s.mode},
                               s.seed,
                               uint64_t{s.max_piece},
                               uint64_t{s.timeout_ms},
                               uint64_t{s.max_requests_in_flight},
                               uint64_t{s.max_kb_in_flight},
                               uint64_t{s.max_unread_kb},
                               uint64_t{s.watermark_bytes},
                               uint64_t{s.stream_bytes},
                               uint64_t{s.max_leases_per_host},
                               uint64_t{s.exchanges_per_shared_lease},
                               uint64_t{s.max_shared_leases_per_host},
                               uint64_t{s.max_cluster_requests},
                               uint64_t{s.max_pending},
                               uint64_t{s.max_lease_kb},
                               uint64_t{s.lease_idle_ms},
                               uint64_t{s.balance},
                               uint64_t{s.mirror_percent},
                               uint64_t{s.bucket_tokens},
                               uint64_t{s.asks}}) {
    text += std::to_string(value) + " ";
  }
  for (const Action& action : actions) {
    text += "\n" + std::string(kOpNames[static_cast<size_t>(action.op)]) + " " +
            std::to_string(action.a) + " " + std::to_string(action.b);
  }
  return text;
}

// The configuration that a setting stands for.
inline SimConfig ScriptConfig(const ScriptSetting& setting) {
  SimConfig config;
  using Mode = UpstreamMode;
  std::vector<Mode> modes;
  CodecRegistry registry;
  switch (setting.protocol) {
    case ScriptProtocol::kMultiplexed:
      config.codec =
          std::make_shared<FakeCodec>(setting.streams ? FakeStreams() : FakeMultiplexed());
      modes = {Mode::kShared, Mode::kExclusive, Mode::kPerSession};
      if (setting.streams) modes = {Mode::kShared};
      break;
    case ScriptProtocol::kPipelined:
      config.codec = std::make_shared<FakeCodec>(FakePipelined());
      modes = {Mode::kExclusive, Mode::kPerSession};
      break;
    case ScriptProtocol::kPipelinedWithIds:
      config.codec = std::make_shared<FakeCodec>(FakePipelinedWithIds());
      modes = {Mode::kShared, Mode::kExclusive, Mode::kPerSession};
      break;
    case ScriptProtocol::kExclusive:
      config.codec = std::make_shared<FakeCodec>(FakeExclusive());
      modes = {Mode::kExclusive};
      break;
    case ScriptProtocol::kStateful:
      config.codec = std::make_shared<FakeCodec>(FakeStateful());
      modes = {Mode::kPerSession};
      break;
    case ScriptProtocol::kDubbo:
    case ScriptProtocol::kThrift:
      RegisterBuiltinCodecs(registry);
      config.codec =
          registry.Create(setting.protocol == ScriptProtocol::kDubbo ? "dubbo" : "thrift", "")
              .codec;
      modes = {Mode::kShared, Mode::kExclusive, Mode::kPerSession};
      break;
  }
  config.mode = modes[setting.mode % modes.size()];
  SessionLimits& limits = config.limits;
  limits.max_message_bytes = 200000;
  limits.stream_message_bytes = std::max(64u, setting.stream_bytes);
  limits.max_requests_in_flight = std::max(1u, setting.max_requests_in_flight);
  limits.max_bytes_in_flight = size_t{std::max(1u, setting.max_kb_in_flight)} << 10;
  limits.max_unread_reply_bytes = size_t{std::max(1u, setting.max_unread_kb)} << 10;
  limits.message_timeout_us = 3600 * kSecond;
  limits.slow_client_timeout_us = 3600 * kSecond;
  config.default_timeout_us = uint64_t{std::max(1u, setting.timeout_ms)} * 1000;
  config.routes.clear();
  const bool real = setting.protocol >= ScriptProtocol::kDubbo;
  const auto route = [&](std::string_view to) -> SimRoute& {
    Condition condition = Exact(real ? "method" : "name", std::string(to) + "-");
    condition.kind = Condition::Kind::kPrefix;
    config.routes.push_back({.match = {condition}});
    return config.routes.back();
  };
  route("a").hash_keys = {real ? "method" : "name"};
  SimRoute& b = route("b");
  b.clusters = {{"b", 1}};
  b.request_mutation = {{MutationOp::Kind::kSet, "k", "v"}};
  b.response_mutation = {{MutationOp::Kind::kSet, "r", "w"}};
  b.timeout_us = 300 * kMs;
  route("w").clusters = {{"a", 2}, {"b", 1}};
  route("d").direct_reply = LocalReply::kDenied;
  if (setting.mirror_percent != 0) {
    const uint64_t chance = Route::kAlways * std::min(100u, setting.mirror_percent) / 100;
    for (SimRoute& each : config.routes) each.mirrors = {{"m", chance}};
  }
  if (setting.bucket_tokens != 0) {
    config.bucket = {setting.bucket_tokens, setting.bucket_tokens, kFillUs};
    config.limit_rules = {{config.routes[1].match, {1, 1, kFillUs}}};
  }
  if (setting.retries_and_delays) {
    for (SimRoute& each : config.routes) {
      if (!each.direct_reply) {
        each.retry = {.retries = 3, .backoff_us = 5 * kMs, .max_backoff_us = 40 * kMs};
      }
    }
    auto fault = std::make_shared<Fault>();
    fault->delay = {.chance = Route::ChanceOf(20), .duration_us = 30 * kMs};
    config.filters = {{"fault", fault}};
  }
  if (setting.asks != 0) {
    // Of what goes to "b" nobody asks.
    config.global_limit.emplace();
    config.global_limit->match = config.routes[1].match;
    config.global_limit->match[0].invert = true;
    config.global_limit->descriptors = {{{real ? "method" : "name", "who"}}};
    config.global_limit->deny_on_fail = setting.asks % 2 == 0;
    config.global_limit->timeout_us = 20 * kMs;
  }
  return config;
}

}  // namespace metaprotocol::test
