// How often the engine calls the host for a given traffic: what a call costs is the host's (in
// Envoy a write is a system call sooner or later, a probe a message through HTTP/2, an earlier
// timer the wake-up of a thread), so these counts are what keeps a request cheap, and no clock is
// needed.
#include "src/upstream/flow_control.h"
#include "tests/cpp/engine/world.h"

namespace metaprotocol::test {
namespace {

struct Calls {
  size_t session_writes = 0;
  size_t lease_writes = 0;
  size_t probes = 0;
  size_t timers = 0;
  size_t clocks = 0;
};

class CountingHost final : public Host {
 public:
  Calls calls;
  LeaseId opened = 0;
  bool probed = false;
  std::string written;
  uint64_t now = 1000000;

  void WriteSession(SessionHandle, Bytes) override { ++calls.session_writes; }
  void CloseSession(SessionHandle, CloseMode) override { ADD_FAILURE() << "closed a session"; }
  void PauseSession(SessionHandle, bool) override { ADD_FAILURE() << "paused a session"; }
  void OpenLease(LeaseId lease, std::string_view, std::string_view) override {
    EXPECT_EQ(opened, 0u) << "a second lease";
    opened = lease;
  }
  void WriteLease(LeaseHandle, Bytes bytes) override {
    ++calls.lease_writes;
    written.append(bytes);
  }
  void ProbeLease(LeaseHandle) override {
    ++calls.probes;
    probed = true;
  }
  void PauseLease(LeaseHandle, bool) override { ADD_FAILURE() << "paused a lease"; }
  void ReleaseLease(LeaseId) override {}
  void ResetLease(LeaseId) override { ADD_FAILURE() << "reset a lease"; }
  void StartCall(CallId, SessionHandle, std::string_view, std::string_view, Bytes,
                 uint64_t) override {}
  uint64_t NowUs() override {
    ++calls.clocks;
    return now;
  }
  void SetTimer(uint64_t) override { ++calls.timers; }
  uint64_t Random() override { return 7; }
  bool LogEnabled(LogLevel) override { return false; }
  void Log(LogLevel, std::string_view) override {}
  void DefineSeries(uint32_t, const SeriesLabels&) override {}
  void AddCounter(uint32_t, Counter, uint64_t) override {}
  void AddGauge(uint32_t, Gauge, int64_t) override {}
  void RecordHistogram(uint32_t, Histogram, std::span<const uint64_t>) override {}
};

// Clients whose messages share one upstream connection, and a server that answers at once.
class HostCalls : public testing::Test {
 protected:
  static constexpr size_t kSessions = 8;

  HostCalls() {
    slot_->Publish(BuildSnapshot(SimConfig()));
    HostInfo upstream;
    upstream.address = "192.0.2.9:80";
    engine_->SetCluster("a", 1, std::make_shared<ClusterPolicy>(), {upstream});
    for (size_t i = 0; i < kSessions; ++i) {
      sessions_.push_back(engine_->OpenSession(slot_, ConnectionInfo(), &host_));
    }
    Send(0, FakeMessage('Q', 1));
    engine_->LeaseReady(host_.opened, &host_);
    Answer();
    host_.calls = {};
  }

  void Send(size_t session, const std::string& bytes) {
    const Bytes slice = bytes;
    engine_->SessionData(sessions_[session], {&slice, 1}, false);
    sent_ += bytes.size();
  }
  // Everything that has been asked, in one read.
  void Answer() {
    std::string replies;
    for (const FakeParsed& message : ParseFakeMessages(host_.written)) {
      if (message.kind == 'Q') replies += FakeMessage('R', message.id);
    }
    host_.written.clear();
    const Bytes slice = replies;
    if (!replies.empty()) engine_->LeaseData(host_.opened, {&slice, 1});
    if (std::exchange(host_.probed, false)) engine_->LeaseDrained(host_.opened);
  }

  CountingHost host_;
  std::unique_ptr<Engine> engine_ = Engine::Create(host_);
  std::shared_ptr<ConfigSlot> slot_ = std::make_shared<ConfigSlot>();
  std::vector<Session*> sessions_;
  size_t sent_ = 0;
};

TEST_F(HostCalls, RequestsOfOneReadAreOneWriteAndTheirRepliesOneWriteForEachClient) {
  constexpr size_t kRounds = 1000;
  std::string batch;
  for (uint64_t id = 0; id < 16; ++id) batch += FakeMessage('Q', id);
  for (size_t round = 0; round < kRounds; ++round) {
    host_.now += 100;
    for (size_t i = 0; i < kSessions; ++i) Send(i, batch);
    Answer();
  }
  EXPECT_EQ(host_.calls.lease_writes, kRounds * kSessions);
  EXPECT_EQ(host_.calls.session_writes, kRounds * kSessions);
  EXPECT_LE(host_.calls.probes, sent_ / FlowControl::kMostUnprobed + 1);
  EXPECT_LE(host_.calls.clocks, kRounds * (kSessions + 1) + host_.calls.probes);
  EXPECT_LE(host_.calls.timers, 2u) << "no request moves the next deadline";
}

TEST_F(HostCalls, MessagesWithoutReplyAreAskedAboutRarely) {
  constexpr size_t kRounds = 1000;
  std::string batch;
  for (uint64_t id = 0; id < 31; ++id) batch += FakeMessage('O', id, {}, std::string(200, 'x'));
  for (size_t round = 0; round < kRounds; ++round) {
    host_.now += 100;
    for (size_t i = 0; i < kSessions; ++i) Send(i, batch);
    Answer();
  }
  EXPECT_EQ(host_.calls.lease_writes, kRounds * kSessions);
  EXPECT_EQ(host_.calls.session_writes, 0u);
  EXPECT_GE(host_.calls.probes, 1u);
  EXPECT_LE(host_.calls.probes, sent_ / FlowControl::kMostUnprobed + 1);
  EXPECT_LE(host_.calls.timers, 2u);
}

}  // namespace
}  // namespace metaprotocol::test
