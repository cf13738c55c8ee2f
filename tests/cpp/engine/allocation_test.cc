// In steady state a request allocates nothing. Counts what the engine and the codecs allocate
// between two points, with real codecs and a configuration as users write it.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "src/codec/registry.h"
#include "src/config/config_error.h"
#include "src/engine.h"
#include "tests/cpp/support/sanitized.h"

namespace {
std::atomic<bool> counting{false};
std::atomic<size_t> allocations{0};
void CountOne() {
  if (counting.load(std::memory_order_relaxed)) allocations.fetch_add(1);
}
}  // namespace

#ifdef METAPROTOCOL_TEST_SANITIZED
// The sanitizers' own allocators must stay; they tell about each allocation.
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void*,
                                                                           size_t),
                                                         void (*on_free)(const volatile void*));
namespace {
const int kHooked = __sanitizer_install_malloc_and_free_hooks(
    [](const volatile void*, size_t) { CountOne(); }, [](const volatile void*) {});
}  // namespace
#else
namespace {
std::atomic<bool> failing{false};
}  // namespace
void* operator new(size_t size) {
  CountOne();
  if (!failing.load(std::memory_order_relaxed)) {
    if (void* p = std::malloc(size == 0 ? 1 : size)) return p;
  }
  throw std::bad_alloc();
}
void* operator new[](size_t size) { return operator new(size); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t) noexcept { std::free(p); }
#endif

namespace metaprotocol {
namespace {

// Keeps what is written in memory of its own, in fixed places.
class StillHost final : public Host {
 public:
  void WriteSession(SessionHandle, Bytes bytes) override { to_clients += bytes.size(); }
  void CloseSession(SessionHandle, CloseMode) override { ++closed; }
  void PauseSession(SessionHandle, bool) override {}
  void OpenLease(LeaseId lease, std::string_view, std::string_view) override { opened = lease; }
  void WriteLease(LeaseHandle lease, Bytes bytes) override {
    written_to = reinterpret_cast<LeaseId>(lease);
    ASSERT_LE(used + bytes.size(), written.size());
    std::memcpy(written.data() + used, bytes.data(), bytes.size());
    used += bytes.size();
  }
  void ProbeLease(LeaseHandle lease) override { probed = reinterpret_cast<LeaseId>(lease); }
  void PauseLease(LeaseHandle, bool) override {}
  void ReleaseLease(LeaseId) override {}
  void ResetLease(LeaseId) override {}
  void StartCall(CallId, SessionHandle, std::string_view, std::string_view, Bytes,
                 uint64_t) override {}
  uint64_t NowUs() override { return now; }
  void SetTimer(uint64_t) override {}
  uint64_t Random() override { return 4; }
  bool LogEnabled(LogLevel) override { return false; }
  void Log(LogLevel, std::string_view) override {}
  void DefineSeries(uint32_t, const SeriesLabels&) override {}
  void AddCounter(uint32_t, Counter, uint64_t) override {}
  void AddGauge(uint32_t, Gauge, int64_t) override {}
  void RecordHistogram(uint32_t, Histogram, std::span<const uint64_t>) override {}

  std::array<char, 1 << 20> written;
  size_t used = 0;
  size_t to_clients = 0;
  size_t closed = 0;
  LeaseId opened = 0;
  LeaseId written_to = 0;
  LeaseId probed = 0;
  uint64_t now = 1000000;
};

// One protocol: a request, the reply to it, and where the id stands in both.
struct Exchanged {
  std::string codec;
  std::string match;
  std::string request;
  std::string reply;
  size_t id_at;
  size_t id_bytes;
};

std::string Short(std::string_view text) {
  return std::string(1, static_cast<char>(text.size())) + std::string(text);
}
std::string DubboFrame(char flags, char status, const std::string& body) {
  std::string frame = {'\xda', '\xbb', flags, status};
  AppendBe64(frame, 0);
  AppendBe32(frame, static_cast<uint32_t>(body.size()));
  return frame + body;
}
// `payload`: the length of an argument, and of what comes back.
Exchanged Dubbo(size_t payload = 5) {
  const std::string length = {'S', static_cast<char>(payload >> 8), static_cast<char>(payload)};
  const std::string value = length + std::string(payload, 'x');
  const std::string request = Short("2.0.2") + Short("demo.Greeter") + Short("1.0.0") +
                              Short("greet") + Short("Ljava/lang/String;") + value + "H" +
                              Short("path") + Short("demo.Greeter") + Short("interface") +
                              Short("demo.Greeter") + Short("version") + Short("1.0.0") +
                              Short("tenant") + Short("blue") + "Z";
  const std::string reply = "\x91" + value;
  return {"dubbo",
          R"({"key":"interface","exact":"demo.Greeter"},{"key":"method","exact":"greet"},
             {"key":"tenant","prefix":"bl"})",
          DubboFrame('\xc2', 0, request),
          DubboFrame('\x02', 20, reply),
          4,
          8};
}
std::string ThriftFrame(char type, const std::string& body) {
  std::string message = std::string("\x80\x01\x00", 3) + type;
  AppendBe32(message, 5);
  message += "greet";
  AppendBe32(message, 0);
  message += body;
  std::string frame;
  AppendBe32(frame, static_cast<uint32_t>(message.size()));
  return frame + message;
}
Exchanged Thrift() {
  const std::string text = {'\x0b', '\0', '\1', '\0', '\0', '\0', '\2', 'h', 'i', '\0'};
  const std::string result = {'\x0b', '\0', '\0', '\0', '\0', '\0', '\2', 'h', 'i', '\0'};
  return {"thrift",
          R"({"key":"method","exact":"greet"})",
          ThriftFrame('\1', text),
          ThriftFrame('\2', result),
          4 + 4 + 4 + 5,
          4};
}

// Runs until nothing is new, then counts.
size_t AllocationsOfThousandRequests(const Exchanged& protocol, const std::string& mode,
                                     size_t sessions_count, bool& all_answered,
                                     const std::string& filters = "",
                                     const std::string& telemetry = "") {
  CodecRegistry codecs;
  RegisterBuiltinCodecs(codecs);
  const auto loaded = LoadSnapshot(
      R"({"name":"p","protocol":{"codec":")" + protocol.codec + R"(","upstream_connections":")" +
          mode + R"("},"default_timeout":"5s","route_tables":[{"name":"t","routes":[
          {"name":"never","match":[{"key":"method","exact":"other"}],"cluster":"a"},
          {"name":"r","match":[)" +
          protocol.match + R"(],"weighted_clusters":[{"name":"a","weight":3},
          {"name":"b","weight":1}]}])" +
          filters + "}]" + telemetry + "}",
      codecs);
  EXPECT_NE(loaded.snapshot, nullptr) << FormatErrors(loaded.errors);
  if (loaded.snapshot == nullptr) return 0;
  auto slot = std::make_shared<ConfigSlot>();
  slot->Publish(loaded.snapshot);

  auto host_memory = std::make_unique<StillHost>();
  StillHost& host = *host_memory;
  const auto engine = Engine::Create(host);
  const auto policy = LoadClusterPolicy("{}").policy;
  HostInfo upstream;
  upstream.address = "10.0.0.1:1";
  engine->SetCluster("a", 1, policy, {upstream});
  engine->SetCluster("b", 1, policy, {upstream});
  std::vector<Session*> sessions;
  for (size_t i = 0; i < sessions_count; ++i) {
    ConnectionInfo info;
    info.remote_address = "10.1.1.1";
    sessions.push_back(engine->OpenSession(slot, info, nullptr));
  }
  uint64_t next_id = 1;
  std::string request = protocol.request;
  std::string reply = protocol.reply;
  const auto round = [&] {
    for (Session* session : sessions) {
      for (size_t i = 0; i < protocol.id_bytes; ++i) {
        request[protocol.id_at + i] =
            static_cast<char>(next_id >> (8 * (protocol.id_bytes - 1 - i)));
      }
      ++next_id;
      host.used = 0;
      host.opened = 0;
      const Bytes slice = request;
      engine->SessionData(session, {&slice, 1}, false);
      if (host.opened != 0) {
        engine->LeaseReady(host.opened, reinterpret_cast<LeaseHandle>(host.opened));
      }
      if (host.probed != 0) engine->LeaseDrained(std::exchange(host.probed, 0));
      if (host.used != request.size()) {
        all_answered = false;
        return;
      }
      std::memcpy(reply.data() + protocol.id_at, host.written.data() + protocol.id_at,
                  protocol.id_bytes);
      const size_t before = host.to_clients;
      const Bytes answer = reply;
      engine->LeaseData(host.written_to, {&answer, 1});
      if (host.to_clients != before + reply.size()) all_answered = false;
    }
    host.now += 1000;
    engine->Tick();
  };
  all_answered = true;
  for (size_t i = 0; i < 3000 / sessions_count + 1; ++i) round();
  engine->FlushMetrics();
  allocations = 0;
  counting = true;
  for (size_t i = 0; i < 1000 / sessions_count; ++i) round();
  counting = false;
  EXPECT_EQ(host.closed, 0u);
  return allocations;
}

#ifndef METAPROTOCOL_TEST_SANITIZED
// Not with a half of an event done, and nothing else.
TEST(Allocation, EngineThatRunsOutOfMemoryEndsTheProcess) {
  StillHost host;
  const auto engine = Engine::Create(host);
  CodecRegistry codecs;
  RegisterBuiltinCodecs(codecs);
  auto slot = std::make_shared<ConfigSlot>();
  slot->Publish(LoadSnapshot(R"({"name":"p","protocol":{"codec":"dubbo"},
      "route_tables":[{"name":"t","routes":[{"cluster":"a"}]}]})",
                             codecs)
                    .snapshot);
  Session* const session = engine->OpenSession(slot, ConnectionInfo(), nullptr);
  const std::string part(100, '\xda');
  const Bytes slice = std::string_view(part).substr(0, 1);
  EXPECT_DEATH(
      {
        failing = true;
        for (int i = 0; i < 100; ++i) engine->SessionData(session, {&slice, 1}, false);
        engine->OpenSession(slot, ConnectionInfo(), nullptr);
      },
      "");
}
#endif

TEST(Allocation, IsCounted) {
  counting = true;
  allocations = 0;
  auto something = std::make_unique<std::array<char, 100>>();
  (*something)[0] = 'x';
  counting = false;
  EXPECT_EQ(allocations, 1u);
}

TEST(Allocation, DubboRequestAllocatesNothing) {
  for (const size_t sessions : {1, 20}) {
    bool all_answered = false;
    EXPECT_EQ(AllocationsOfThousandRequests(Dubbo(), "SHARED", sessions, all_answered), 0u);
    EXPECT_TRUE(all_answered);
  }
}

TEST(Allocation, LongerDubboRequestsAndRepliesAllocateNothingEither) {
  for (const size_t payload : {1000, 4096, 7900, 8192, 16384, 65000}) {
    bool all_answered = false;
    EXPECT_EQ(AllocationsOfThousandRequests(Dubbo(payload), "SHARED", 20, all_answered), 0u)
        << payload;
    EXPECT_TRUE(all_answered);
  }
}

TEST(Allocation, FiltersThatHaveNothingToDoAllocateNothing) {
  bool all_answered = false;
  EXPECT_EQ(AllocationsOfThousandRequests(Dubbo(), "SHARED", 1, all_answered, R"(,
          "local_rate_limit":{"token_bucket":{"max_tokens":1000000,"fill_interval":"1s"}},
          "global_rate_limit":{"match":[{"key":"method","exact":"other"}],"domain":"d",
              "cluster":"c","descriptors":[{"key":"method","descriptor_key":"m"}]},
          "filters":[{"name":"more","local_rate_limit":{"rules":[{
              "match":[{"key":"method","exact":"other"}],
              "token_bucket":{"max_tokens":1,"fill_interval":"60s"}}]}}])"),
            0u);
  EXPECT_TRUE(all_answered);
}

TEST(Allocation, MetricsOfRequestsAllocateNothing) {
  bool all_answered = false;
  EXPECT_EQ(AllocationsOfThousandRequests(Dubbo(), "SHARED", 1, all_answered, "",
                                          R"(,"request_metrics":{"reporter":"DESTINATION"})"),
            0u);
  EXPECT_TRUE(all_answered);
}

TEST(Allocation, ThriftRequestAllocatesNothing) {
  bool all_answered = false;
  EXPECT_EQ(AllocationsOfThousandRequests(Thrift(), "SHARED", 1, all_answered), 0u);
  EXPECT_TRUE(all_answered);
}

TEST(Allocation, RequestOnAConnectionOfItsOwnAllocatesNothing) {
  bool all_answered = false;
  EXPECT_EQ(AllocationsOfThousandRequests(Dubbo(), "PER_SESSION", 1, all_answered), 0u);
  EXPECT_TRUE(all_answered);
  EXPECT_EQ(AllocationsOfThousandRequests(Thrift(), "EXCLUSIVE", 1, all_answered), 0u);
  EXPECT_TRUE(all_answered);
}

}  // namespace
}  // namespace metaprotocol
