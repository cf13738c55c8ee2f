// In steady state a request allocates nothing. Counts what the engine and the codecs allocate
// between two points, with real codecs and a configuration as users write it.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdint>
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
// How many allocations still succeed; negative: all.
std::atomic<int64_t> left{-1};
std::atomic<int64_t> allocated{0};  // and not freed yet
}  // namespace
void* operator new(size_t size) {
  CountOne();
  if (left.load(std::memory_order_relaxed) < 0 || left.fetch_sub(1) > 0) {
    if (void* p = std::malloc(size == 0 ? 1 : size)) {
      allocated.fetch_add(1, std::memory_order_relaxed);
      return p;
    }
  }
  left = 0;
  throw std::bad_alloc();
}
void* operator new[](size_t size) { return operator new(size); }
void operator delete(void* p) noexcept {
  if (p != nullptr) allocated.fetch_sub(1, std::memory_order_relaxed);
  std::free(p);
}
void operator delete[](void* p) noexcept { operator delete(p); }
void operator delete(void* p, size_t) noexcept { operator delete(p); }
void operator delete[](void* p, size_t) noexcept { operator delete(p); }
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

constexpr std::string_view kWithFilters = R"({"name":"p","protocol":{"codec":"dubbo"},
    "access_logs":[{"path":"/dev/null","text":"%METHOD% %RESPONSE_CODE%"}],
    "route_tables":[{"name":"t","routes":[
        {"match":[{"key":"method","exact":"other"}],"cluster":"b"},
        {"match":[{"key":"tenant","prefix":"bl"}],"cluster":"a","timeout":"1s",
         "request_mutation":[{"set":{"key":"lane","value":"test"}}]}],
      "authorization":{"policies":[{"name":"x","action":"DENY",
          "rules":[{"match":[{"key":"method","exact":"drop"}]}]}]},
      "local_rate_limit":{"token_bucket":{"max_tokens":9,"fill_interval":"1s"}}}]})";

// The engine's whole way with one request, of which allocation number `fails_at` (0: the first)
// fails. Returns by itself only if there were not so many, and everything was right.
void ServeUntilNoMemory(const std::shared_ptr<const Snapshot>& snapshot, int64_t fails_at) {
  auto host_memory = std::make_unique<StillHost>();
  StillHost& host = *host_memory;
  const auto policy = LoadClusterPolicy("{}").policy;
  auto slot = std::make_shared<ConfigSlot>();
  Exchanged dubbo = Dubbo();
  left = fails_at;
  slot->Publish(snapshot);
  const auto engine = Engine::Create(host);
  HostInfo upstream;
  upstream.address = "192.0.2.1:1";
  engine->SetCluster("a", 1, policy, {upstream});
  Session* const session = engine->OpenSession(slot, ConnectionInfo(), nullptr);
  const Bytes all = dubbo.request;
  for (const Bytes piece : {all.substr(0, 40), all.substr(40)}) {
    engine->SessionData(session, {&piece, 1}, false);
  }
  engine->LeaseReady(host.opened, reinterpret_cast<LeaseHandle>(host.opened));
  std::memcpy(dubbo.reply.data() + 4, host.written.data() + 4, 8);
  const Bytes reply = dubbo.reply;
  engine->LeaseData(host.written_to, {&reply, 1});
  engine->SessionClosed(session);
  left = -1;
  if (host.to_clients != dubbo.reply.size()) std::_Exit(3);
}

// Each allocation on the way of a request, one after the other. Nothing goes on with half of an
// event done, or crashes: what cannot be taken back ends the process, in so many words.
TEST(Allocation, EngineThatRunsOutOfMemoryEndsTheProcessWhereverThatIs) {
  CodecRegistry codecs;
  RegisterBuiltinCodecs(codecs);
  const auto loaded = LoadSnapshot(kWithFilters, codecs);
  ASSERT_NE(loaded.snapshot, nullptr) << FormatErrors(loaded.errors);
  int64_t ended = 0;
  for (;; ++ended) {
    ASSERT_LT(ended, 1000);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      const int nowhere = open("/dev/null", O_WRONLY);
      dup2(nowhere, STDERR_FILENO);
      try {
        ServeUntilNoMemory(loaded.snapshot, ended);
      } catch (const std::bad_alloc&) {
        std::_Exit(4);  // before there was an event: what makes an engine or a slot may throw
      }
      std::_Exit(0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) break;
    const bool as_said = (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT) ||
                         (WIFEXITED(status) && WEXITSTATUS(status) == 4);
    ASSERT_TRUE(as_said) << "allocation " << ended << ": status " << status;
  }
  EXPECT_GT(ended, 30);
}

// A configuration for which there is no memory is not there, and leaves nothing behind: whoever
// loads it is told, and the next one is as good as ever.
TEST(Allocation, ConfigurationThatRunsOutOfMemoryLeavesNothing) {
  CodecRegistry codecs;
  RegisterBuiltinCodecs(codecs);
  const auto load = [&] { return LoadSnapshot(kWithFilters, codecs).snapshot != nullptr; };
  ASSERT_TRUE(load());  // what is made once only is there
  int64_t failed = 0;
  for (;; ++failed) {
    ASSERT_LT(failed, 100000);
    const int64_t before = allocated;
    bool loaded = false;
    left = failed;
    try {
      loaded = load();
    } catch (const std::bad_alloc&) {
    }
    left = -1;
    ASSERT_EQ(allocated, before) << "allocation " << failed;
    if (loaded) break;
  }
  EXPECT_GT(failed, 100);
  EXPECT_TRUE(load());
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
